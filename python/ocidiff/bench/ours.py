"""Ours: the commands of ocidiff, each in a process of its own, in as many variants as were asked for."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from ocidiff.bench.place import remove
from ocidiff.bench.scene import Scene
from ocidiff.bench.workload import Kind, Task
from ocidiff.layer.applier import apply
from ocidiff.values import dataclass

_DIFFS: Final = frozenset({Kind.LAYER, Kind.SAME, Kind.SMALL, Kind.LARGE})
_WITHOUT_THREADS: Final = frozenset({Kind.APPLY, Kind.UNPACK})


@dataclass(frozen=True, slots=True)
class Variant:
    """Options of the layer.

    Attributes:
        compression: Its compression.
        threads: Number of threads; 0 for all cores.
    """

    compression: str = "gzip"
    threads: int = 0

    @property
    def label(self) -> str:
        """Name of the row."""
        threads = f", {self.threads} thread{'s' if self.threads > 1 else ''}" if self.threads else ""
        return f"ocidiff {self.compression}{threads}"

    @property
    def words(self) -> tuple[str, ...]:
        """Options of the command line."""
        threads = ("--threads", str(self.threads)) if self.threads else ()
        return ("--compression", self.compression, *threads, "--no-ignore-file", "--json", "-q")


class Ocidiff:
    """Measures this ocidiff.

    Args:
        scene: What it works on.
        variants: The first one is what others are compared with.
    """

    name = "ocidiff"

    def __init__(self, scene: Scene, variants: Sequence[Variant]) -> None:
        self._scene, self._variants = scene, variants
        self.version = scene.output(_command("--version")).removeprefix("ocidiff ")
        self._store = scene.path("store")

    def rows(self, kind: Kind) -> int:
        """Return how many tasks it has in a kind of work."""
        return len(self._of(kind))

    def begin(self, kind: Kind) -> Sequence[Task]:
        """Prepare a kind of work, untimed, and return its tasks."""
        if kind in _DIFFS:
            self._scene.check_engines(kind)
            return [self._diff(kind, variant) for variant in self._variants]
        if kind is Kind.AGAIN:
            self._scene.agree_tree("changed tree", self._scene.upper, "diff")
        if kind is Kind.OVER:
            self._make_container()
        make = {
            Kind.APPLY: self._apply,
            Kind.COMMIT: self._commit,
            Kind.UNPACK: self._unpack,
            Kind.OVER: self._commit_container,
            Kind.AGAIN: self._commit_again,
        }[kind]
        return [make(variant) for variant in self._of(kind)]

    def _of(self, kind: Kind) -> Sequence[Variant]:
        if kind not in _WITHOUT_THREADS:
            return self._variants
        return [Variant(name) for name in dict.fromkeys(one.compression for one in self._variants)]

    def _in_store(self, *words: str) -> tuple[str, ...]:
        return _command("--store", self._store, *words)

    def _layer(self, compression: str) -> str:
        return self._scene.path(f"layer-{compression}")

    def _diff(self, kind: Kind, variant: Variant) -> Task:
        scene = self._scene
        trees = ("scratch", scene.lower) if kind is Kind.LAYER else (scene.lower, scene.upper)
        output = self._layer(variant.compression) if kind is Kind.LAYER else scene.path("layer")
        command = _command("diff", *trees, "-o", output, *variant.words)

        def finish(text: str) -> int:
            made = json.loads(text)
            scene.agree(kind, made["diffID"], variant.label)
            return int(made["size"])

        return Task(variant.label, lambda: scene.run(*command), finish)

    def _apply(self, variant: Variant) -> Task:
        target = self._scene.path("applied")
        command = _command("apply", self._layer(variant.compression), target, "-q")
        return self._into(target, variant, command)

    def _unpack(self, variant: Variant) -> Task:
        store, target = self._scene.path(f"store-{variant.compression}"), self._scene.path("unpacked")
        self._scene.run(*_command("--store", store, "commit", self._scene.lower, "app:1", *variant.words))
        return self._into(target, variant, _command("--store", store, "unpack", "app:1", target, "-q"))

    def _into(self, target: str, variant: Variant, command: Sequence[str]) -> Task:
        def finish(_: str) -> None:
            self._scene.agree_tree(Kind.LAYER, target, f"{variant.label}: {os.path.basename(target)}")
            remove(target)

        return Task(variant.label, lambda: self._scene.run(*command), finish, lambda: os.mkdir(target, 0o755))

    def _commit(self, variant: Variant) -> Task:
        def prepare() -> None:
            remove(self._store)

        command = self._in_store("commit", self._scene.upper, "app:1", *variant.words)
        return Task(variant.label, lambda: self._scene.run(*command), self._committed(Kind.LAYER, variant), prepare)

    def _commit_again(self, variant: Variant) -> Task:
        """Commit the tree, change it in place as people do, and commit it once more, which alone is timed."""
        scene = self._scene

        def prepare() -> None:
            remove(self._store)
            apply(scene.undo, scene.upper)
            scene.run(*self._in_store("commit", scene.upper, "app:1", *variant.words))
            apply(scene.change, scene.upper)

        command = self._in_store("commit", scene.upper, "app:2", *variant.words)
        return Task(variant.label, lambda: scene.run(*command), self._committed("changed tree", variant), prepare)

    def _make_container(self) -> None:
        scene = self._scene
        remove(self._store)
        scene.run(*self._in_store("commit", scene.lower, "base:1", "--no-ignore-file", "-q"))
        scene.run(*self._in_store("create", "base:1", "work", "-q"))
        apply(scene.change, scene.output(self._in_store("mount", "work")))
        scene.run(*self._in_store("umount", "work"))

    def _commit_container(self, variant: Variant) -> Task:
        check = self._committed(Kind.SMALL, variant)

        def finish(text: str) -> int:
            size = check(text)
            # The next one would find what it is about to make.
            for words in (("rmi", "new:1"), ("gc", "-q")):
                self._scene.run(*self._in_store(*words))
            return size

        command = self._in_store("commit", "work", "new:1", *variant.words)
        return Task(variant.label, lambda: self._scene.run(*command), finish)

    def _committed(self, what: str, variant: Variant) -> Callable[[str], int]:
        def finish(text: str) -> int:
            layer = json.loads(text)["layer"]
            self._scene.agree(what, layer["diffID"], f"commit, {variant.label}")
            return int(layer["size"])

        return finish


def _command(*words: str) -> tuple[str, ...]:
    # A directory of this name in the current one is another thing.
    return (sys.executable, "-P", "-m", "ocidiff", *words)
