"""Two trees, a lower and what became of it, with one of everything that a layer can carry."""

from __future__ import annotations

from typing import Any

from support import probes, trees

Entry = dict[str, Any]

SETUID, STICKY = 0o4755, 0o1777
CAPABILITY = {"security.capability": probes.CAPABILITY_VALUE.hex()}
NOTE = {"user.note": "00ff31"}
LONG = b"n" * 200
DEEP = [b"deep", b"deep/" + b"d" * 150, b"deep/" + b"d" * 150 + b"/" + b"e" * 150]
ODD_NAMES = (
    *(
        b"a b",
        b"-rf",
        b"a\nb",
        b"'\"\\",
        b"\xff\xfe",
        b"\xc3\xa9",
        b"e\xcc\x81",
        b"\x01",
        b"=",
        b"11 path=x\n",
        b".wh",
        b"...",
    ),
    *(b"x" * 100, b"y" * 101, b"w" * 255, b"\xc3\xa9" * 60),
)


def _entry(path: bytes, kind: str, mode: int, owner: tuple[int, int], mtime: tuple[int, int], **fields: Any) -> Entry:
    entry: Entry = {"type": kind, "mode": f"{mode:04o}", "uid": owner[0], "gid": owner[1], "mtime": list(mtime), **fields}
    return trees.put_name(entry, "path", path)


def directory(path: bytes, mode: int = 0o755, owner: tuple[int, int] = (0, 0), **fields: Any) -> Entry:
    return _entry(path, "dir", mode, owner, (1_600_000_000, 0), **fields)


def file(
    path: bytes,
    text: str = "",
    *,
    mode: int = 0o644,
    owner: tuple[int, int] = (0, 0),
    mtime: tuple[int, int] = (1_600_000_000, 0),
    **fields: Any,
) -> Entry:
    return _entry(path, "file", mode, owner, mtime, **{"content": {"text": text}, **fields})


def symlink(path: bytes, target: bytes) -> Entry:
    return trees.put_name(_entry(path, "symlink", 0o777, (0, 0), (1_600_000_000, 0)), "target", target)


def hard_link(path: bytes, target: bytes) -> Entry:
    return trees.put_name(trees.put_name({"type": "hardlink"}, "path", path), "target", target)


def node(path: bytes, kind: str, rdev: tuple[int, int] = (0, 0)) -> Entry:
    return _entry(path, kind, 0o620, (0, 5), (1_600_000_000, 0), **({"rdev": list(rdev)} if rdev != (0, 0) else {}))


# Every tar format can hold these: short ASCII names, small numbers, no xattrs.
PLAIN: trees.Spec = [
    directory(b"."),
    directory(b"dev"),
    node(b"dev/null", "char", (1, 3)),
    node(b"dev/disk", "block", (8, 1)),
    node(b"dev/pipe", "fifo"),
    directory(b"etc"),
    file(b"etc/hostname", "one\n"),
    symlink(b"etc/localtime", b"../usr/share/zone"),
    file(b"etc/passwd", "root:x:0:0\n"),
    file(b"etc/secret", "s", mode=0o000, owner=(0, 42)),
    directory(b"home", owner=(1000, 1000), mode=0o2750),
    file(b"home/empty", owner=(1000, 65534)),
    symlink(b"home/dangling", b"/no/such/file"),
    directory(b"tmp", STICKY),
    directory(b"usr"),
    file(b"usr/first", "shared"),
    hard_link(b"usr/second", b"usr/first"),
    hard_link(b"dev/third", b"usr/first"),
    file(b"usr/sudo", "#!/bin/sh\n", mode=SETUID),
    file(b"usr/large", content={"prng": ["large", 700_001]}),
    directory(b"var"),
    directory(b"var/cache"),
    file(b"var/cache/one", "1"),
    file(b"var/log", "log"),
]

# These need the extensions of GNU tar or PAX.
LONG_ONES: trees.Spec = [
    directory(b"odd"),
    *(file(b"odd/" + name, repr(name)) for name in ODD_NAMES),
    *(directory(name) for name in DEEP),
    file(DEEP[-1] + b"/" + LONG, "deep"),
    symlink(b"deep/link", b"t" * 300),
    hard_link(b"deep/hard", DEEP[-1] + b"/" + LONG),
    file(b"deep/owner", owner=(2097152, 4294967294)),
    file(b"deep/fraction", "f", mtime=(1_600_000_000, 123_456_789)),
    file(b"deep/late", "l", mtime=(1 << 33, 0)),
    file(b"deep/early", "e", mtime=(-1, 0)),
]

XATTRS: trees.Spec = [
    file(b"usr/ping", "ping", mode=0o755, xattrs=CAPABILITY),
    file(b"usr/noted", "note", xattrs=NOTE),
    directory(b"usr/acl", xattrs={"system.posix_acl_access": probes.ACL_VALUE.hex()}),
]

LOWER: trees.Spec = [*PLAIN, *LONG_ONES, *XATTRS]

_GONE = {
    b"etc/hostname",
    b"var/cache",
    b"var/cache/one",
    b"var/log",
    b"usr/sudo",
    b"dev/third",
    b"odd/\xff\xfe",
    b"dev/disk",
}
_CHANGED = {b"etc/passwd", b"usr/large", b"usr/ping", b"usr/noted", b"home/dangling", b"tmp"}

UPPER: trees.Spec = [
    *(entry for entry in LOWER if trees.name_of(entry) not in _GONE | _CHANGED),
    file(b"etc/passwd", "root:x:0:1\n", mtime=(1_700_000_000, 0)),
    file(b"usr/large", content={"prng": ["larger", 700_002]}, mtime=(1_700_000_000, 0)),
    file(b"usr/ping", "ping", mode=0o755),
    file(b"usr/noted", "note", mode=0o755, xattrs={**NOTE, **CAPABILITY}),
    symlink(b"home/dangling", b"/another"),
    directory(b"tmp", 0o700),
    directory(b"var/log"),
    file(b"var/log/messages", "m"),
    file(b"var/cache", "no directory any more"),
    node(b"dev/disk", "block", (8, 2)),
    node(b"dev/tty", "char", (5, 1)),
    hard_link(b"usr/third", b"usr/first"),
    file(b"odd/\xff\xff", "new"),
    hard_link(b"odd/\xc3\xa9\xc3\xa9", b"odd/\xff\xff"),
]
