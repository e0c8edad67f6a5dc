"""Peers: other tools that do the same work on the same input, with roots of their own, so that nothing is left behind.

`copies` of each is how many times the size of the tree it takes at once, at most.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ocidiff.bench.place import remove
from ocidiff.bench.scene import Scene
from ocidiff.bench.workload import Kind, Task
from ocidiff.errors import UnsupportedError
from ocidiff.layer.applier import apply

_XATTRS: Final = ("--xattrs", "--xattrs-include=*")


def buildah(place: str, *words: str) -> tuple[str, ...]:
    """Return the words of a command of buildah whose storage is in the directory `place`."""
    storage = ("--root", os.path.join(place, "buildah"), "--runroot", os.path.join(place, "run"))
    return ("buildah", *storage, "--storage-driver", "overlay", *words)


def umoci_repack(image: str, bundle: str) -> tuple[str, ...]:
    """Return the words that store the changes of a bundle as `image`, `LAYOUT:NAME`."""
    return ("umoci", "repack", "--image", image, bundle)


def umoci_forget(image: str) -> tuple[tuple[str, ...], ...]:
    """Return the words of the commands that remove an image, `LAYOUT:NAME`, and what only it needed."""
    return ("umoci", "rm", "--image", image), ("umoci", "gc", "--layout", image.rpartition(":")[0])


def _found(scene: Scene, name: str) -> str:
    """Return the first line that a program says of its version.

    Raises:
        UnsupportedError: There is no such program.
    """
    if shutil.which(name, path=scene.environment.get("PATH")) is None:
        raise UnsupportedError(f"{name} is not on the path")
    text = scene.output((name, "--version"))
    # buildah adds the versions of specifications.
    return text.partition("\n")[0].partition(" (image-spec")[0].strip()


def _into(scene: Scene, tool: str, target: str, command: Sequence[str], *, is_made: bool = False, within: str = "") -> Task:
    """Return a task that fills the directory `target`, which is compared with the tree and removed.

    Args:
        scene: The input.
        tool: Name of the row.
        target: The directory.
        command: Fills it.
        is_made: The command makes the directory itself.
        within: Name of the tree in it.
    """

    def finish(_: str) -> None:
        scene.agree_tree(Kind.LAYER, os.path.join(target, within) if within else target, tool)
        remove(target)

    def prepare() -> None:
        remove(target)
        if not is_made:
            os.mkdir(target, 0o755)

    return Task(tool, lambda: scene.run(*command), finish, prepare)


class Tar:
    """GNU tar with gzip, and with pigz if there is one: it compares nothing and checks no digest."""

    name = "tar"
    copies = 1

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.version = _found(scene, "tar")
        if "GNU tar" not in self.version:
            raise UnsupportedError(f"tar is not GNU tar, but {self.version}")
        programs = [name for name in ("gzip", "pigz") if shutil.which(name, path=scene.environment.get("PATH"))]
        self._programs = programs
        self.version = "; ".join([self.version, *(_found(scene, name) for name in programs)])

    def rows(self, kind: Kind) -> int:
        """Return how many tasks it has in a kind of work."""
        return len(self._programs) if kind in {Kind.LAYER, Kind.APPLY} else 0

    def begin(self, kind: Kind) -> Sequence[Task]:
        """Return the tasks of a kind of work."""
        make = {Kind.LAYER: self._pack, Kind.APPLY: self._extract}.get(kind)
        return [make(program) for program in self._programs] if make else []

    def _pack(self, program: str) -> Task:
        scene, output = self._scene, self._scene.path("tar-layer")
        command = ("tar", *_XATTRS, "--numeric-owner", "-I", f"{program} -6", "-cf", output, "-C", scene.lower, ".")

        def finish(_: str) -> int:
            size = os.stat(output).st_size
            os.unlink(output)
            return size

        return Task(f"tar + {program}", lambda: scene.run(*command), finish)

    def _extract(self, program: str) -> Task:
        scene, target = self._scene, self._scene.path("extracted")
        layer = scene.path("layer-gzip")
        command = ("tar", *_XATTRS, "--numeric-owner", "-I", program, "-xpf", layer, "-C", target)
        return _into(scene, f"tar + {program}", target, command)


class Umoci:
    """umoci: `repack`, which compares with a list of the unpacked tree, and `raw unpack`."""

    name = "umoci"
    copies = 3

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.version = _found(scene, "umoci")
        self._layout = scene.path("umoci")
        self._rootless = ("--rootless",) if os.geteuid() else ()
        self._bundle, self._changed = scene.path("bundle"), scene.path("bundle-changed")

    def rows(self, kind: Kind) -> int:
        """Return how many tasks it has in a kind of work."""
        return int(kind in {Kind.COMMIT, Kind.UNPACK, Kind.OVER, Kind.AGAIN})

    def begin(self, kind: Kind) -> Sequence[Task]:
        """Prepare a kind of work, untimed, and return its task."""
        scene = self._scene
        if kind is Kind.COMMIT:
            scene.run("umoci", "init", "--layout", self._layout)
            scene.run("umoci", "new", "--image", self._image("empty"))
            self._unpack("empty", self._bundle)
            scene.copy_to(self._tree(self._bundle))
            return [self._repack(self._bundle, tag="base")]
        if kind is Kind.UNPACK:
            target = scene.path("umoci-unpacked")
            command = ("umoci", "raw", "unpack", *self._rootless, "--image", self._image("base"), target)
            return [_into(scene, self.name, target, command, is_made=True)]
        if kind is Kind.OVER:
            self._unpack("base", self._changed)
            apply(scene.change, self._tree(self._changed))
            return [self._repack(self._changed)]
        if kind is Kind.AGAIN:
            remove(self._changed)
            apply(scene.change, self._tree(self._bundle))
            return [self._repack(self._bundle)]
        return []

    def _image(self, name: str) -> str:
        return f"{self._layout}:{name}"

    def _tree(self, bundle: str) -> str:
        return os.path.join(bundle, "rootfs")

    def _unpack(self, name: str, bundle: str) -> None:
        self._scene.run("umoci", "unpack", *self._rootless, "--image", self._image(name), bundle)

    def _repack(self, bundle: str, tag: str = "") -> Task:
        scene = self._scene

        def finish(_: str) -> int:
            size = self._layer_size()
            if tag:
                scene.run("umoci", "tag", "--image", self._image("new"), tag)
            for command in umoci_forget(self._image("new")):
                scene.run(*command)
            return size

        return Task(self.name, lambda: scene.run(*umoci_repack(self._image("new"), bundle)), finish)

    def _layer_size(self) -> int:
        names = "org.opencontainers.image.ref.name"
        entries = self._document("index.json")["manifests"]
        digest = next(one["digest"] for one in entries if one.get("annotations", {}).get(names) == "new")
        return int(self._document(f"blobs/sha256/{digest.partition(':')[2]}")["layers"][-1]["size"])

    def _document(self, name: str) -> Any:  # noqa: ANN401 - a document
        with open(os.path.join(self._layout, name), encoding="utf-8") as file:
            return json.load(file)


class Buildah:
    """buildah: `commit` of a working container; it stores layers uncompressed."""

    name = "buildah"
    copies = 3

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.version = _found(scene, "buildah")
        if os.geteuid():
            raise UnsupportedError("buildah needs root to mount its containers")

    def rows(self, kind: Kind) -> int:
        """Return how many tasks it has in a kind of work."""
        return int(kind in {Kind.COMMIT, Kind.OVER, Kind.AGAIN})

    def begin(self, kind: Kind) -> Sequence[Task]:
        """Prepare a kind of work, untimed, and return its task."""
        scene = self._scene
        if kind is Kind.COMMIT:
            self._container("whole", "scratch", scene.tree)
            return [self._commit("whole")]
        if kind is Kind.OVER:
            scene.run(*self._command("commit", "-q", "whole", "base"))
            self._container("changed", "base", scene.change)
            return [self._commit("changed")]
        if kind is Kind.AGAIN:
            scene.run(*self._command("rm", "changed"))
            scene.run(*self._command("rmi", "base"))
            self._write("whole", scene.change)
            return [self._commit("whole")]
        return []

    def _command(self, *words: str) -> tuple[str, ...]:
        return buildah(self._scene.root, *words)

    def _container(self, name: str, image: str, layer: str) -> None:
        self._scene.run(*self._command("from", "--name", name, image))
        self._write(name, layer)

    def _write(self, name: str, layer: str) -> None:
        apply(layer, self._scene.output(self._command("mount", name)))
        self._scene.run(*self._command("umount", name))

    def _commit(self, name: str) -> Task:
        def finish(_: str) -> int:
            size = self._layer_size()
            self._scene.run(*self._command("rmi", "new"))
            return size

        return Task("buildah (plain)", lambda: self._scene.run(*self._command("commit", "-q", name, "new")), finish)

    def _layer_size(self) -> int:
        with open(self._scene.path("buildah/overlay-layers/layers.json"), encoding="utf-8") as file:
            layers = json.load(file)
        return int(max((one for one in layers if "diff-size" in one), key=lambda one: str(one["created"]))["diff-size"])


PEERS: Final[Mapping[str, type[Tar | Umoci | Buildah]]] = {"tar": Tar, "buildah": Buildah, "umoci": Umoci}
