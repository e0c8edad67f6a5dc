"""ImageConfig: what an image says about itself. Spec: image-spec config.md, and Docker's fields that everybody writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Final, Self

from ocidiff.oci.digest import DiffID
from ocidiff.oci.encoding import NO_MEMBERS, NO_TEXTS, Members, compact, in_key_order, parse_object, present
from ocidiff.oci.platform import Platform
from ocidiff.oci.timestamp import is_timestamp
from ocidiff.values import dataclass

_ROOTFS_TYPE: Final = "layers"


@dataclass(frozen=True, slots=True)
class RootFS:
    """The layers as content: digests of their uncompressed tars, base first. `extra` keeps unknown members."""

    diff_ids: tuple[DiffID, ...] = ()
    extra: Mapping[str, object] = field(default_factory=lambda: NO_MEMBERS)

    @classmethod
    def parse(cls, value: object, where: str) -> Self:
        """The value of `rootfs`.

        Raises:
            DocumentError: It is none, or of another type than `layers`.
        """
        members = Members(value, where)
        if members.text("type") != _ROOTFS_TYPE:
            members.fail("type", f"is not {_ROOTFS_TYPE!r}")
        return cls(members.each("diff_ids", DiffID.parse), members.rest())

    def document(self) -> dict[str, object]:
        """The JSON object."""
        return {"type": _ROOTFS_TYPE, "diff_ids": list(self.diff_ids), **self.extra}


@dataclass(frozen=True, slots=True)
class History:
    """The origin of one layer, or of one step without a layer.

    Attributes:
        created: RFC 3339 time; empty when unknown.
        created_by: The command.
        author: Who did it.
        comment: Free text.
        empty_layer: The step has no layer.
        extra: Unknown members.
    """

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False
    extra: Mapping[str, object] = field(default_factory=lambda: NO_MEMBERS)

    @classmethod
    def parse(cls, value: object, where: str) -> Self:
        """One entry of `history`.

        Raises:
            DocumentError: It is none.
        """
        members = Members(value, where)
        return cls(
            created=_created(members),
            created_by=members.text("created_by"),
            author=members.text("author"),
            comment=members.text("comment"),
            empty_layer=members.flag("empty_layer"),
            extra=members.rest(),
        )

    def document(self) -> dict[str, object]:
        """The JSON object."""
        return {
            **present(
                [
                    ("created", self.created),
                    ("created_by", self.created_by),
                    ("author", self.author),
                    ("comment", self.comment),
                    ("empty_layer", self.empty_layer),
                ]
            ),
            **self.extra,
        }


@dataclass(frozen=True, slots=True)
class ExecConfig:
    """Settings for running a container of the image, as in image-spec and Docker; `extra` keeps the others."""

    user: str = ""
    exposed_ports: Mapping[str, object] = field(default_factory=lambda: NO_MEMBERS)
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    volumes: Mapping[str, object] = field(default_factory=lambda: NO_MEMBERS)
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: NO_TEXTS)
    stop_signal: str = ""
    args_escaped: bool = False
    healthcheck: Mapping[str, object] = field(default_factory=lambda: NO_MEMBERS)
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    extra: Mapping[str, object] = field(default_factory=lambda: NO_MEMBERS)

    @classmethod
    def parse(cls, value: object, where: str) -> Self:
        """The value of `config`.

        Raises:
            DocumentError: It is none.
        """
        members = Members(value, where)
        return cls(
            user=members.text("User"),
            exposed_ports=members.object_map("ExposedPorts"),
            env=members.texts("Env"),
            entrypoint=members.texts("Entrypoint"),
            cmd=members.texts("Cmd"),
            volumes=members.object_map("Volumes"),
            working_dir=members.text("WorkingDir"),
            labels=members.text_map("Labels"),
            stop_signal=members.text("StopSignal"),
            args_escaped=members.flag("ArgsEscaped"),
            healthcheck=members.object_map("Healthcheck"),
            on_build=members.texts("OnBuild"),
            shell=members.texts("Shell"),
            extra=members.rest(),
        )

    def document(self) -> dict[str, object]:
        """The JSON object, members in Moby's order."""
        return {
            **present(
                [
                    ("User", self.user),
                    ("ExposedPorts", in_key_order(self.exposed_ports)),
                    ("Env", list(self.env)),
                    ("Entrypoint", list(self.entrypoint)),
                    ("Cmd", list(self.cmd)),
                    ("Volumes", in_key_order(self.volumes)),
                    ("WorkingDir", self.working_dir),
                    ("Labels", in_key_order(self.labels)),
                    ("StopSignal", self.stop_signal),
                    ("ArgsEscaped", self.args_escaped),
                    ("Healthcheck", dict(self.healthcheck)),
                    ("OnBuild", list(self.on_build)),
                    ("Shell", list(self.shell)),
                ]
            ),
            **self.extra,
        }


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The configuration of an image.

    Attributes:
        platform: What it runs on, whole.
        rootfs: Its layers as content.
        created: RFC 3339 time; empty when unknown.
        author: Who made it.
        history: How it came about, first step first.
        config: How a container of it is run.
        extra: Unknown members.
    """

    platform: Platform
    rootfs: RootFS = field(default_factory=RootFS)
    created: str = ""
    author: str = ""
    history: tuple[History, ...] = ()
    config: ExecConfig = field(default_factory=ExecConfig)
    extra: Mapping[str, object] = field(default_factory=lambda: NO_MEMBERS)

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """The configuration that a blob holds.

        Raises:
            DocumentError: It holds none.
        """
        members = Members(parse_object(data, where), where)
        return cls(
            created=_created(members),
            author=members.text("author"),
            platform=Platform.take(members),
            rootfs=members.one("rootfs", RootFS.parse),
            history=members.each("history", History.parse),
            config=ExecConfig.parse(members.object_map("config"), f"{where}: config"),
            extra=members.rest(),
        )

    def document(self) -> dict[str, object]:
        """The JSON object, members in Moby's order."""
        return {
            **present([("created", self.created), ("author", self.author)]),
            **self.platform.document(),
            "rootfs": self.rootfs.document(),
            **present([("history", [entry.document() for entry in self.history])]),
            "config": self.config.document(),
            **self.extra,
        }

    def encode(self) -> bytes:
        """The bytes to store."""
        return compact(self.document())


def _created(members: Members) -> str:
    created = members.text("created")
    if created and not is_timestamp(created):
        members.fail("created", f"is {created[:100]!r}, not an RFC 3339 time")
    return created
