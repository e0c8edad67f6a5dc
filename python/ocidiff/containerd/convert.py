"""Conversions between containerd's messages and our values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ocidiff.errors import UsageError
from ocidiff.frozen import FrozenMapping
from ocidiff.layer.idmap import IdMaps
from ocidiff.mounts.mount import Mount
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest
from ocidiff.oci.timestamp import NS_PER_SECOND
from ocidiff.services.snapshots import Kind, Snapshot

_KINDS: Final = {1: Kind.VIEW, 2: Kind.ACTIVE, 3: Kind.COMMITTED}
_MAX_LABEL_BYTES: Final = 4096


def labels_of(message: Any) -> Mapping[str, str]:  # noqa: ANN401 - a message
    """Return the labels of a message."""
    return FrozenMapping(dict(message.labels))


def nanoseconds(time: Any) -> int:  # noqa: ANN401 - a message
    """Return a time in nanoseconds since 1970."""
    return int(time.seconds) * NS_PER_SECOND + int(time.nanos)


def mounts_of(messages: Sequence[Any]) -> tuple[Mount, ...]:
    """Return mounts."""
    return tuple(Mount(one.type, one.source, tuple(one.options), one.target) for one in messages)


def id_maps_of(mounts: Sequence[Mount]) -> IdMaps:
    """Return the id maps that options of mounts give, as containerd 2 has them; empty if there are none."""
    options = [option for mount in mounts for option in mount.options]
    # Several ranges are separated by commas: first in the container, first on the host, how many.
    users, groups = (
        [text for option in options if option.startswith(name) for text in option.removeprefix(name).split(",")]
        for name in ("uidmap=", "gidmap=")
    )
    return IdMaps.of(users, groups, None)


def snapshot_of(info: Any) -> Snapshot:  # noqa: ANN401 - a message
    """Return what is known of a snapshot."""
    times = nanoseconds(info.created_at), nanoseconds(info.updated_at)
    return Snapshot(_KINDS.get(info.kind, Kind.VIEW), info.name, info.parent or None, *times, labels_of(info))


def descriptor_of(message: Any) -> Descriptor:  # noqa: ANN401 - a message
    """Return a descriptor.

    Raises:
        DocumentError: Its digest is not understood.
    """
    annotations = FrozenMapping(dict(message.annotations))
    return Descriptor(message.media_type, Digest(message.digest), message.size, annotations)


def descriptor_fields(descriptor: Descriptor) -> dict[str, object]:
    """Return the fields of a message for a descriptor."""
    return {"media_type": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}


def check_labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Return labels that containerd accepts.

    Raises:
        UsageError: A label is too long.
    """
    for name, value in (labels or {}).items():
        if not name or len(name.encode()) + len(value.encode()) > _MAX_LABEL_BYTES:
            raise UsageError(f"label {name[:100]!r}: must be 1 to {_MAX_LABEL_BYTES} bytes of name and value")
    return dict(labels or {})


def label_mask(labels: Mapping[str, str]) -> dict[str, object]:
    """Return the field mask for an update of these labels and no others."""
    return {"paths": [f"labels.{name}" for name in labels]}


def check_word(what: str, word: str, longest: int) -> None:
    """Refuse a key or name that no message or listing should carry.

    Raises:
        UsageError: It is empty, too long or not printable.
    """
    if not 0 < len(word) <= longest or not word.isprintable():
        raise UsageError(f"{what} {word[:100]!r}: must be 1 to {longest} printable characters")
