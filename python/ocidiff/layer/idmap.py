"""Id maps: which id in a container an id of the host stands for. Spec: user_namespaces(7), subuid(5)."""

from __future__ import annotations

import os
import pwd
import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from ocidiff.errors import UsageError
from ocidiff.layer.layer import RECORD
from ocidiff.layer.xattrs import class_of
from ocidiff.values import dataclass

UNMAPPED: Final = -1  # in place of an id outside the map: marks of an overlay may have any owner

_IDS: Final = (1 << 32) - 1  # the last number is none. Spec: user_namespaces(7)
_CAPABILITY_WITH_ROOT: Final = 24  # bytes of security.capability, revision 3
_CAPABILITY: Final = 20  # of revision 2
_ACL_NAMES: Final = {0x02: "user", 0x08: "group"}  # tags of the entries of an ACL that name somebody
_SUBORDINATE: Final = {"user": "/etc/subuid", "group": "/etc/subgid"}


@dataclass(frozen=True, slots=True)
class IdRange:
    """A range of ids.

    Attributes:
        container: The first id in the container.
        host: The first id on the host.
        count: How many ids.

    Raises:
        UsageError: It is empty, or goes beyond the last id.
    """

    container: int
    host: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 1 or not all(0 <= first <= _IDS - self.count for first in (self.container, self.host)):
            raise UsageError(f"id map {self.container}:{self.host}:{self.count}: out of range")


@dataclass(frozen=True, slots=True)
class IdMaps:
    """Maps of the ids of files to those in the container; without ranges they stay as they are.

    Attributes:
        users: Of owners.
        groups: Of groups.

    Raises:
        UsageError: Two ranges have an id of the host in common.
    """

    users: tuple[IdRange, ...] = ()
    groups: tuple[IdRange, ...] = ()

    def __post_init__(self) -> None:
        for ranges in (self.users, self.groups):
            _refuse_overlap([(one.host, one.count) for one in ranges])

    def __bool__(self) -> bool:
        return bool(self.users or self.groups)

    @classmethod
    def of(cls, uid_map: Sequence[str], gid_map: Sequence[str], userns: int | None) -> IdMaps:
        """The maps that loose arguments give.

        Args:
            uid_map: Each `CONTAINER:HOST:COUNT`, or the name of a user whose ranges in /etc/subuid are ids of the container
                from 0 on.
            gid_map: The same of groups, and of /etc/subgid.
            userns: Process whose user namespace has the maps, in place of the others.

        Raises:
            UsageError: They are malformed, contradict each other, or there are none.
            FileNotFoundError: There is no such process, or no such file.
        """
        if userns is None:
            maps = cls(_ranges("user", uid_map), _ranges("group", gid_map))
            for ranges in (maps.users, maps.groups):
                _refuse_overlap([(one.container, one.count) for one in ranges])
            return maps
        if uid_map or gid_map:
            raise UsageError("userns: takes the place of other id maps")
        here, there = (os.stat(f"/proc/{process}/ns/user").st_ino for process in ("self", userns))
        if here == there:
            return cls()  # ids are shown as they are in it
        return cls(_of_process(userns, "uid_map"), _of_process(userns, "gid_map"))

    @classmethod
    def of_root(cls, uid: int, gid: int) -> IdMaps:
        """The maps of a container whose root is this user of the host; all other ids stay as they are."""
        return cls(_with_root(uid), _with_root(gid))

    @classmethod
    def of_noted(cls, tree: bytes) -> IdMaps:
        """Return the maps of a tree whose owners are noted: files without a note were made by the user who was root to it.

        Other trees have none.
        """
        try:
            os.getxattr(tree, RECORD)
        except OSError:
            return cls()
        info = os.stat(tree)
        return cls.of_root(info.st_uid, info.st_gid)

    def map(self, kind: str, host: int) -> int:
        """Return the id in the container of the `user` or `group` id `host`.

        Raises:
            LookupError: It is outside the map; the arguments are the kind and the id.
        """
        ranges = self.users if kind == "user" else self.groups
        if not ranges:
            return host
        for one in ranges:
            if 0 <= host - one.host < one.count:
                return one.container + host - one.host
        raise LookupError(kind, host)

    def owner(self, facts: os.stat_result) -> tuple[int, int]:
        """The ids of a file in the container, `UNMAPPED` for one outside the map."""
        try:
            return self.map("user", facts.st_uid), self.map("group", facts.st_gid)
        except LookupError:
            return UNMAPPED, UNMAPPED

    def xattr(self, key: bytes, value: bytes) -> bytes:
        """The value of an xattr with ids of the container: a capability of the container's root needs none.

        Raises:
            LookupError: An id is outside the map.
        """
        if not self:
            return value
        ids = class_of(key).ids
        if ids == "root" and len(value) == _CAPABILITY_WITH_ROOT and value[3] == 3:
            root = self.map("user", int.from_bytes(value[_CAPABILITY:], "little"))
            return value[:_CAPABILITY] + struct.pack("<I", root) if root else value[:3] + b"\2" + value[4:_CAPABILITY]
        if ids == "acl":
            entries = bytearray(value)
            for start in range(4, len(value) - 7, 8):
                tag, _, number = struct.unpack_from("<HHI", value, start)
                if tag in _ACL_NAMES:
                    struct.pack_into("<I", entries, start + 4, self.map(_ACL_NAMES[tag], number))
            return bytes(entries)
        return value


def _with_root(host: int) -> tuple[IdRange, ...]:
    if host == 0:
        return ()
    above = (IdRange(host + 1, host + 1, _IDS - host - 1),) if host + 1 < _IDS else ()
    return (IdRange(0, host, 1), IdRange(0, 0, host), *above)


def _refuse_overlap(ranges: list[tuple[int, int]]) -> None:
    """Refuse ranges, each with its first id and how many, of which two have an id in common."""
    if any(first + count > following for (first, count), (following, _) in pairwise(sorted(ranges))):
        raise UsageError("id map: two ranges overlap")


def _ranges(kind: str, texts: Sequence[str]) -> tuple[IdRange, ...]:
    ranges = list[IdRange]()
    for text in texts:
        parts = text.split(":")
        if len(parts) == 3 and all(map(_is_number, parts)):
            ranges.append(IdRange(*map(int, parts)))
        elif text and len(parts) == 1:
            ranges.extend(_subordinate(kind, text))
        else:
            raise UsageError(f"id map {text[:100]!r}: takes CONTAINER:HOST:COUNT or a user")
    return tuple(ranges)


def _is_number(text: str) -> bool:
    """Return True for the decimal digits of an id or a count."""
    # Ten digits hold any id; int() refuses thousands.
    return text.isascii() and text.isdigit() and len(text) <= 10


def _subordinate(kind: str, user: str) -> Iterator[IdRange]:
    """The ranges that a user was given, end to end from 0 on. Spec: subuid(5)."""
    names = {user}
    try:
        names.add(str(pwd.getpwnam(user).pw_uid))
    except KeyError:
        if _is_number(user) and int(user) < _IDS:
            names.update(entry.pw_name for entry in pwd.getpwall() if entry.pw_uid == int(user))
    path, container = _SUBORDINATE[kind], 0
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            owner, _, rest = line.strip().partition(":")
            first, _, count = rest.partition(":")
            if owner in names and _is_number(first) and _is_number(count):
                yield IdRange(container, int(first), int(count))
                container += int(count)
    if not container:
        raise UsageError(f"id map {user[:100]!r}: no such user in {path}")


def _of_process(pid: int, name: str) -> tuple[IdRange, ...]:
    with open(f"/proc/{pid}/{name}", encoding="ascii") as file:
        ranges = tuple(IdRange(*map(int, line.split())) for line in file)
    if not ranges:
        raise UsageError(f"userns {pid}: its user namespace has no {name} yet")
    return ranges
