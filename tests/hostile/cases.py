"""Layers that escape, lie or exhaust, each with what must come of it. Spec: hostile-input, sections 1 to 5."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ocidiff.errors import LimitExceededError, MalformedLayerError, UnsafeLayerError, UnsupportedError
from ocidiff.layer.pure import tar as format_
from support import headers
from support.archives import Member, directory, file, hard_link, member, symlink, tar, whiteout

END = headers.END

Check = Callable[[Path], bool]


@dataclass(frozen=True)
class Case:
    """One layer, for a target that holds `a`, `d/old`, `d/x/old` and the links `up` (to `..`) and `l` (to `/d`).

    Attributes:
        layer: Makes the blob.
        error: What it must raise; None when it must be applied.
        check: What must be true of the target afterwards.
    """

    name: str
    layer: Callable[[], bytes]
    error: type[Exception] | tuple[type[Exception], ...] | None = None
    check: Check = lambda _: True

    def __str__(self) -> str:
        return self.name


def entries(name: str, *members: Member, error: type[Exception] | None = None, check: Check = lambda _: True) -> Case:
    return Case(name, lambda: tar(*members), error, check)


def sealed(block: bytes) -> bytes:
    """The header block with a right checksum."""
    blank = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(blank) + block[156:]


def patched(layer: bytes, offset: int, new: bytes) -> bytes:
    """The layer with some bytes of its first header changed."""
    return sealed(layer[:offset] + new + layer[offset + len(new) : 512]) + layer[512:]


def special(kind: bytes, content: bytes) -> bytes:
    """A header that describes the next entry."""
    header = format_.encode(format_.Header(b"././@Header", kind, size=len(content)))
    return header + content + format_.padding(len(content))


def pax(*records: tuple[bytes, bytes]) -> bytes:
    return special(b"x", b"".join(format_.pax_record(*record) for record in records))


def has(*names: str) -> Check:
    return lambda root: all((root / name).exists() for name in names)


def lacks(*names: str) -> Check:
    return lambda root: not any((root / name).is_symlink() or (root / name).exists() for name in names)


def _is_real(name: str) -> Check:
    return lambda root: (root / name).is_dir() and not (root / name).is_symlink()


_OLD_SPARSE = patched(tar(file(b"f", b"x" * 512)), 156, b"S")
_X = tar(file(b"f", b"x"))
_SPARSE = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"))
_HUGE = special(b"x", format_.pax_record(b"comment", b"x" * (1 << 20)))

PATHS = [
    entries("dot-dot", file(b"../x"), check=has("x")),
    entries("absolute-dot-dot", file(b"/../x"), check=has("x")),
    entries("dot-dot-inside", file(b"a/../../x"), check=has("x")),
    entries("absolute", file(b"/etc/x"), check=has("etc/x")),
    entries("through-link-to-root", symlink(b"r", b"/"), file(b"r/etc/x"), check=has("etc/x")),
    entries("through-link-up", file(b"up/outside/x"), check=has("outside/x")),
    entries("through-chain", symlink(b"p", b"up/up"), symlink(b"q", b"p/.."), file(b"q/x"), check=has("x")),
    entries("root-as-link", symlink(b".", b"/"), error=UnsafeLayerError),
    entries("root-as-file", file(b"./"), error=UnsafeLayerError),
    entries("root-as-fifo", member(b"..", tarfile.FIFOTYPE), error=UnsafeLayerError),
    entries("empty-name-directory", directory(b"/"), check=has("a")),
    entries("hard-link-outside", hard_link(b"h", b"../outside/secret"), error=MalformedLayerError),
    entries("hard-link-absolute", hard_link(b"h", b"/outside/secret"), error=MalformedLayerError),
    entries("hard-link-through-link", hard_link(b"h", b"up/outside/secret"), error=MalformedLayerError),
    entries("hard-link-to-directory", hard_link(b"h", b"d"), error=MalformedLayerError),
    entries("hard-link-to-itself", hard_link(b"a", b"a"), error=MalformedLayerError, check=has("a")),
    entries("hard-link-to-later", hard_link(b"h", b"f"), file(b"f"), error=MalformedLayerError),
    entries("hard-link-to-link-mode", symlink(b"s", b"/outside/secret"), hard_link(b"h", b"s", mode=0o777)),
    entries("link-anywhere", symlink(b"s", b"/" + b"../" * 1000 + b"x"), check=lambda root: (root / "s").is_symlink()),
    entries("link-of-4095-bytes", symlink(b"s", b"t" * 4095), check=lambda root: (root / "s").is_symlink()),
    entries("link-loop-as-parent", symlink(b"m", b"n"), symlink(b"n", b"m"), file(b"m/x"), error=UnsafeLayerError),
    entries(
        "forty-one-links",
        *(symlink(b"k%d" % n, b"k%d" % (n - 1) if n else b"d") for n in range(41)),
        file(b"k40/x"),
        error=UnsafeLayerError,
    ),
    entries("file-as-parent", file(b"a/x"), check=has("a/x")),
    entries("directory-over-link", directory(b"l"), file(b"l/x"), check=_is_real("l")),
    entries("link-after-directory-times", directory(b"n", mtime=1), directory(b"n/m", mtime=1), symlink(b"n", b"d")),
    entries("control-characters", file(b"x\x1b[31m\n\r\x07"), check=has("x\x1b[31m\n\r\x07")),
    entries("leading-dash", file(b"-rf"), check=has("-rf")),
    entries("not-utf-8", file(b"\xff\xfe"), check=has("\udcff\udcfe")),
    entries("component-of-256-bytes", file(b"n" * 256), error=OSError),
    entries("path-of-5000-bytes", file(b"/".join([b"n" * 249] * 20) + b"/x")),
    entries("deep", file(b"d/" * 100_000 + b"x"), error=LimitExceededError),
    entries("twice", file(b"f", b"1"), file(b"f", b"2"), check=lambda root: (root / "f").read_bytes() == b"2"),
    entries("twice-with-file-below", file(b"f", b"1"), file(b"f/x", b"2"), check=has("f/x")),
    Case("nul-in-path", lambda: pax((b"path", b"f\0g")) + _X, MalformedLayerError),
    Case("nul-in-link", lambda: pax((b"linkpath", b"f\0g")) + tar(symlink(b"s", b"t")), MalformedLayerError),
]

WHITEOUTS = [
    *(
        entries(f"whiteout-of-nothing-{name.decode()}", file(name), error=MalformedLayerError, check=has("a", "d/old"))
        for name in (b".wh.", b".wh..", b".wh...", b"d/.wh.", b"d/.wh..", b"d/.wh...")
    ),
    entries("opaque-root", file(b".wh..wh..opq"), check=lacks("a", "d", "l", "up")),
    entries("aufs", directory(b".wh..wh.plnk"), file(b".wh..wh.plnk/1"), file(b".wh..wh.aufs"), check=lacks(".wh..wh.aufs")),
    entries("whiteout-as-directory-component", file(b".wh.a/b"), check=has("a", ".wh.a/b")),
    entries("whiteout-of-link", whiteout(b"l"), check=has("d/old")),
    entries("whiteout-through-link-up", whiteout(b"up/outside"), check=has("a")),
    entries("whiteout-below-dead-link", symlink(b"s", b"/gone"), file(b"s/.wh.x")),
    entries("whiteout-with-data", file(b".wh.a", b"data"), file(b"f"), check=lacks("a", ".wh.a")),
    entries("whiteout-as-device", member(b".wh.a", tarfile.CHRTYPE, devmajor=1, devminor=3), check=lacks("a", ".wh.a")),
    entries("whiteout-after-entry", file(b"a", b"new"), whiteout(b"a"), check=has("a")),
    entries("whiteout-before-entry", whiteout(b"a"), file(b"a", b"new"), check=has("a")),
    entries("opaque-after-children", file(b"d/x/new"), file(b"d/.wh..wh..opq"), check=has("d/x/new")),
    entries("overlay-whiteout", member(b"c", tarfile.CHRTYPE), error=UnsafeLayerError, check=lacks("c")),
    entries("trusted-overlay-xattr", directory(b"n", pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y"})),
    entries("user-overlay-xattr", directory(b"n", pax_headers={"SCHILY.xattr.user.overlay.opaque": "y"})),
    entries("record-xattr", file(b"n", pax_headers={"SCHILY.xattr.user.containers.override_stat": "0:0:0777"})),
]

METADATA = [
    *(
        entries(f"device-{major}-{minor}", member(b"c", kind, devmajor=major, devminor=minor), error=UnsafeLayerError)
        for kind, major, minor in (
            (tarfile.CHRTYPE, 4096, 0),
            (tarfile.BLKTYPE, 0, 1 << 20),
        )
    ),
    Case(
        "device-of-minus-one",
        lambda: patched(tar(member(b"c", tarfile.BLKTYPE, devmajor=1, devminor=1)), 329, b"\xff" * 8),
        UnsafeLayerError,
    ),
    *(entries(f"uid-{uid}", file(b"f", uid=uid), error=UnsafeLayerError) for uid in (-1, (1 << 32) - 1, 1 << 32)),
    entries("gid-of-minus-one", file(b"f", gid=(1 << 32) - 1), error=UnsafeLayerError),
    entries("before-1970", file(b"f", mtime=-(1 << 40)), check=has("f")),
    entries("year-10000", file(b"f", mtime=253_402_300_800), check=has("f")),
    Case("time-of-twenty-digits", lambda: pax((b"mtime", b"1.12345678901234567890")) + _X, None, has("f")),
    Case("time-beyond-all", lambda: pax((b"mtime", b"9223372036854775807")) + _X, None, has("f")),
    Case("time-too-large", lambda: pax((b"mtime", b"9" * 30)) + _X, MalformedLayerError),
    entries(
        "xattr-value-of-70000-bytes", file(b"f", pax_headers={"SCHILY.xattr.user.x": "x" * 70_000}), error=UnsafeLayerError
    ),
    entries(
        "xattr-name-of-300-bytes", file(b"f", pax_headers={"SCHILY.xattr.user." + "x" * 300: "x"}), error=UnsafeLayerError
    ),
    entries("user-xattr-on-link", symlink(b"s", b"t", pax_headers={"SCHILY.xattr.user.x": "x"})),
    entries(
        "broken-capability",
        file(b"f", pax_headers={"SCHILY.xattr.security.capability": "short"}),
        error=UnsafeLayerError,
    ),
]

STREAM = [
    Case("pax-size-over-header", lambda: pax((b"size", b"1")) + patched(tar(file(b"f", b"x")), 124, b"00000000000\0")),
    Case("pax-size-hides-entry", lambda: pax((b"size", b"1024")) + file_of_zero() + tar(file(b"f"))),
    Case("many-pax-headers", lambda: pax((b"path", b"one")) + pax((b"path", b"two")) + _X, None, has("two")),
    *(
        Case(f"pax-record-{number}", lambda record=record: special(b"x", record) + _X, MalformedLayerError)  # type: ignore[misc]
        for number, record in enumerate((b"0 a=b\n", b"6 a.b\n", b"6 a=b ", b"99999999999999999999 a=b\n", b"x a=b\n"))
    ),
    Case("pax-header-without-entry", lambda: pax((b"path", b"x")) + bytes(1024), MalformedLayerError),
    Case("global-header", lambda: special(b"g", format_.pax_record(b"comment", b"x")) + _X, None, lacks("././@Header")),
    Case("old-sparse", lambda: _OLD_SPARSE, MalformedLayerError),
    Case("pax-sparse", lambda: headers.sparse("1.0", 1 << 20, [(1 << 19, b"x")]) + END, None, has("f")),
    Case("pax-sparse-without-map", lambda: pax(*_SPARSE) + _X, MalformedLayerError),
    Case("pax-sparse-of-other-form", lambda: pax((b"GNU.sparse.major", b"2")) + _X, UnsupportedError),
    Case("pax-sparse-overlap", lambda: headers.sparse("0.1", 9, [(4, b"x"), (2, b"y")]) + END, MalformedLayerError),
    Case("pax-sparse-beyond-its-size", lambda: headers.sparse("1.0", 4, [(4, b"x")]) + END, MalformedLayerError),
    Case("pax-sparse-of-8-EiB", lambda: headers.sparse("0.0", (1 << 63) - 1, [(0, b"x")]) + END, LimitExceededError),
    Case("pax-sparse-of-2^20-pieces", lambda: pax(*_SPARSE) + file_of(b"1048577\n".ljust(512, b"0")), MalformedLayerError),
    Case("pax-sparse-directory", lambda: pax((b"GNU.sparse.map", b"0,0")) + tar(directory(b"n")), MalformedLayerError),
    Case("gnu-header-with-prefix", lambda: headers.header(magic=headers.GNU, rest=b"p") + END, None, has("p/f")),
    Case("contiguous-file", lambda: patched(_X, 156, b"7"), None, has("f")),
    Case("xz", lambda: b"\xfd7zXZ\0" + bytes(100), UnsupportedError),
    Case("size-of-8-EiB", lambda: patched(_X, 124, b"\x80\0\0\0\x7f" + b"\xff" * 7), LimitExceededError),
    Case("size-negative", lambda: patched(_X, 124, b"\xff" * 12), MalformedLayerError),
    Case("size-not-octal", lambda: patched(_X, 124, b"0000000008\0\0"), MalformedLayerError),
    Case("wrong-checksum", lambda: b"g" + _X[1:], MalformedLayerError),
    *(
        Case(f"type-{kind.decode()}", lambda kind=kind: patched(_X, 156, kind), MalformedLayerError)  # type: ignore[misc]
        for kind in (b"V", b"M", b"D", b"~")
    ),
    Case("directory-with-size", lambda: patched(tar(directory(b"n"))[:512], 124, b"00000001000\0") + _X, None, has("f")),
    Case("cut-in-header", lambda: _X[:300], MalformedLayerError),
    Case("cut-in-data", lambda: tar(file(b"f", b"x" * 1000))[:700], MalformedLayerError),
    Case("cut-in-padding", lambda: _X[:600], None, has("f")),
    Case("no-end", lambda: _X[:1024], None, has("f")),
    Case("one-zero-block", lambda: bytes(512) + _X, MalformedLayerError),
    Case("garbage-behind-the-end", lambda: _X + b"garbage" * 10_000, None, has("f")),
    Case("header-of-a-mebibyte", lambda: _HUGE + _X, LimitExceededError),
]

BLOBS = [
    Case("many-members", lambda: gzip.compress(_X[:700]) + gzip.compress(b"") * 100_000 + gzip.compress(_X[700:])),
    Case("zeros-behind-gzip", lambda: gzip.compress(_X) + bytes(512), MalformedLayerError),
    Case("garbage-behind-gzip", lambda: gzip.compress(_X) + b"garbage", MalformedLayerError),
    Case("gzip-cut", lambda: gzip.compress(_X)[:-9], MalformedLayerError),
    Case("gzip-without-length", lambda: gzip.compress(_X)[:-4], MalformedLayerError),
    Case("gzip-wrong-length", lambda: gzip.compress(_X)[:-1] + b"\x01", MalformedLayerError),
    Case("gzip-wrong-crc", lambda: gzip.compress(_X)[:-8] + b"\0\0\0\0" + gzip.compress(_X)[-4:], MalformedLayerError),
    Case("bomb-behind-the-end", lambda: gzip.compress(_X + bytes(20_000_000)), LimitExceededError),
    Case("bomb-in-a-file", lambda: gzip.compress(tar(file(b"f", bytes(20_000_000)))), LimitExceededError),
    Case("nothing", lambda: b""),
    Case("zlib-without-gzip", lambda: zlib.compress(_X), MalformedLayerError),
]

ALL = PATHS + WHITEOUTS + METADATA + STREAM + BLOBS


def file_of(data: bytes) -> bytes:
    return headers.file(b"f", data) + END


def file_of_zero() -> bytes:
    """A header that says no data, with the block that a PAX size makes data of: another header."""
    return patched(tar(file(b"z"))[:512], 124, b"00000000000\0") + tar(file(b"hidden"))[:512] + bytes(512)
