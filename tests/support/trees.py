"""A vocabulary of trees: build them from descriptions, read them and layers back, compare them.

The descriptions are those of the golden vectors (`tests/vectors`): a list of entries in an order in which they can be made.
Names are bytes; JSON text is UTF-8, other names come as base64 under `<key>_b64`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

Spec = list[dict[str, Any]]
Facts = dict[str, Any]

TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}
NODE_BITS = {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "char": stat.S_IFCHR, "block": stat.S_IFBLK}
SECOND = 10**9
VECTORS = Path(__file__).parents[1] / "vectors"


class Unsupported(Exception):  # noqa: N818 - says what the machine lacks
    """The file system or the process cannot represent what a description asks for."""


# ---------------------------------------------------------------- descriptions


def load(path: Path) -> dict[str, Any]:
    """Read one vector file."""
    vector: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if vector["format"] != 1:
        raise ValueError(f"{path}: format {vector['format']} is not known")
    return vector


def name_of(entry: Mapping[str, Any], key: str = "path") -> bytes:
    """The bytes of entry[key], or of entry[key + "_b64"] for names that are not UTF-8."""
    if key + "_b64" in entry:
        return base64.b64decode(entry[key + "_b64"])
    return str(entry.get(key, "")).encode("utf-8")


def put_name(entry: dict[str, Any], key: str, raw: bytes) -> dict[str, Any]:
    """The reverse of name_of; an empty name is left out."""
    try:
        if raw:
            entry[key] = raw.decode("utf-8")
    except UnicodeDecodeError:
        entry[key + "_b64"] = base64.b64encode(raw).decode("ascii")
    return entry


def prng(seed: str | int, size: int) -> bytes:
    """size bytes: sha256("seed:0") + sha256("seed:1") + ... cut at size."""
    blocks = (hashlib.sha256(f"{seed}:{i}".encode()).digest() for i in range((size + 31) // 32))
    return b"".join(blocks)[:size]


def content_bytes(content: Any) -> bytes:
    """The bytes of a content object (see vectors/README.md); sparse content is expanded."""
    if isinstance(content, list):
        return b"".join(content_bytes(part) for part in content)
    if "text" in content:
        return str(content["text"]).encode("utf-8")
    if "base64" in content:
        return base64.b64decode(content["base64"])
    if "repeat" in content:
        unit, count = content["repeat"]
        return bytes(unit.encode("utf-8") * count)
    if "prng" in content:
        return prng(*content["prng"])
    if "sparse" in content:
        data = bytearray(content["sparse"]["size"])
        for offset, part in content["sparse"]["data"]:
            piece = content_bytes(part)
            data[offset : offset + len(piece)] = piece
        return bytes(data)
    raise ValueError(f"unknown content {content!r}")


def write_content(path: bytes, content: Any) -> None:
    """Make the file; sparse content really has holes."""
    with open(path, "xb") as file:
        if isinstance(content, dict) and "sparse" in content:
            file.truncate(content["sparse"]["size"])
            for offset, part in content["sparse"]["data"]:
                file.seek(offset)
                file.write(content_bytes(part))
        else:
            file.write(content_bytes(content))


# ---------------------------------------------------------------- building


def build_tree(spec: Spec, root: bytes | str | Path, lower: bytes | str | Path | None = None) -> bytes:
    """Make the tree that `spec` describes in the new directory `root`, and give its path.

    `lower` is the directory of the lower tree, made before; only entries of type "lowerlink" (the same inode as a file of
    lower) need it, and it must be on the same file system.
    """
    root = os.fsencode(root)
    os.mkdir(root, 0o755)
    times = []
    for entry in spec:
        path = os.path.normpath(os.path.join(root, name_of(entry)))
        _create(entry, path, root, lower)
        if entry["type"] in ("hardlink", "lowerlink"):
            continue
        os.chown(path, entry["uid"], entry["gid"], follow_symlinks=False)
        if entry["type"] != "symlink":
            os.chmod(path, int(entry["mode"], 8))
        for key, value in entry.get("xattrs", {}).items():
            try:
                os.setxattr(path, key, bytes.fromhex(value), follow_symlinks=False)
            except OSError as error:
                raise Unsupported(f"setxattr {key} on {path!r}: {error}") from error
        times.append((path, entry["mtime"]))
    for path, (seconds, nanoseconds) in reversed(times):  # children first: their making changed the directory
        want = seconds * SECOND + nanoseconds
        os.utime(path, ns=(want, want), follow_symlinks=False)
        if os.lstat(path).st_mtime_ns != want:
            raise Unsupported(f"{path!r}: the file system cannot store the time {seconds}.{nanoseconds:09}")
    return root


def _create(entry: Mapping[str, Any], path: bytes, root: bytes, lower: bytes | str | Path | None) -> None:
    kind = entry["type"]
    if kind == "dir":
        if path != root:
            os.mkdir(path)
    elif kind == "file":
        write_content(path, entry["content"])
    elif kind == "symlink":
        os.symlink(name_of(entry, "target"), path)
    elif kind == "hardlink":
        os.link(os.path.join(root, name_of(entry, "target")), path, follow_symlinks=False)
    elif kind == "lowerlink":
        assert lower is not None
        os.link(os.path.join(os.fsencode(lower), name_of(entry, "target")), path, follow_symlinks=False)
    elif kind in NODE_BITS:
        try:
            os.mknod(path, NODE_BITS[kind] | 0o600, os.makedev(*entry.get("rdev", (0, 0))))
        except PermissionError as error:
            raise Unsupported(f"mknod {path!r}: {error}") from error
    else:
        raise ValueError(f"unknown type {kind!r}")


def build_vector(vector: Mapping[str, Any], directory: Path) -> tuple[bytes | None, bytes]:
    """Make both trees of a vector; lower is None for no lower tree."""
    lower = None if vector["lower"] is None else build_tree(vector["lower"], directory / "lower")
    return lower, build_tree(vector["upper"], directory / "upper", lower)


# ---------------------------------------------------------------- reading back


def scan_tree(root: bytes | str | Path) -> dict[bytes, Facts]:
    """{relative name: facts} of a tree, the root being b"."; nothing is followed.

    facts: type, mode, uid, gid, mtime_ns, xattrs, and size + sha256, target or rdev by type, and "links", the sorted tuple
    of all names of the inode within the tree.
    """
    root = os.fsencode(root)
    found: dict[bytes, Facts] = {}
    inodes: dict[tuple[int, int], list[bytes]] = {}
    todo = [b"."]
    while todo:
        name = todo.pop()
        path = os.path.join(root, name) if name != b"." else root
        st = os.lstat(path)
        kind = TYPES[stat.S_IFMT(st.st_mode)]
        facts: Facts = {
            "type": kind,
            "mode": stat.S_IMODE(st.st_mode),
            "uid": st.st_uid,
            "gid": st.st_gid,
            "mtime_ns": st.st_mtime_ns,
            "xattrs": _xattrs(path),
        }
        if kind == "file":
            facts["size"] = st.st_size
            with open(path, "rb") as file:
                facts["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        elif kind == "symlink":
            facts["target"] = os.readlink(path)
        elif kind in ("char", "block"):
            facts["rdev"] = (os.major(st.st_rdev), os.minor(st.st_rdev))
        if kind == "dir":
            todo += [child if name == b"." else name + b"/" + child for child in os.listdir(path)]
        else:
            inodes.setdefault((st.st_dev, st.st_ino), []).append(name)
        found[name] = facts
    for names in inodes.values():
        for name in names:
            found[name]["links"] = tuple(sorted(names))
    return found


def _xattrs(path: bytes) -> dict[str, str]:
    try:
        keys = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    return {key: os.getxattr(path, key, follow_symlinks=False).hex() for key in keys}


def read_layer(tar: bytes) -> list[dict[str, Any]]:
    """The entries of an uncompressed layer, in the form of expect.entries of a vector."""
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        return [_layer_entry(archive, info) for info in archive]


def file_bytes(tar: bytes) -> int:
    """How much content of files an uncompressed layer holds."""
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        return sum(info.size for info in archive if info.type == tarfile.REGTYPE)


def _layer_entry(archive: tarfile.TarFile, info: tarfile.TarInfo) -> dict[str, Any]:
    def raw(text: str) -> bytes:
        return text.encode("utf-8", "surrogateescape")

    entry = put_name({}, "name", raw(info.name) + (b"/" if info.isdir() else b""))
    entry.update(
        type=info.type.decode("ascii"),
        mode=f"{info.mode:04o}",
        uid=info.uid,
        gid=info.gid,
        size=info.size,
        mtime=int(info.mtime),
    )
    put_name(entry, "linkname", raw(info.linkname))
    if info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE) or info.devmajor or info.devminor:
        entry["rdev"] = [info.devmajor, info.devminor]
    data = archive.extractfile(info) if info.type == tarfile.REGTYPE and info.size else None
    if data is not None:
        entry["sha256"] = hashlib.sha256(data.read()).hexdigest()
    prefix = "SCHILY.xattr."
    headers = {key: str(value) for key, value in info.pax_headers.items()}
    xattrs = {key.removeprefix(prefix): raw(value).hex() for key, value in headers.items() if key.startswith(prefix)}
    if xattrs:
        entry["xattrs"] = xattrs
    if headers:
        entry["pax"] = sorted(headers)
    return entry


# ---------------------------------------------------------------- comparing


def carried_by_oci(key: str) -> bool:
    """Whether a layer of the profile `oci` carries the xattr."""
    return key in ("security.capability", "system.posix_acl_access", "system.posix_acl_default") or (
        key.startswith("user.") and not key.startswith("user.overlay.")
    )


def carried_by_containerd(key: str) -> bool:
    """Whether a layer of the profile `containerd` carries the xattr."""
    return key == "security.capability"


def comparable(
    facts: Mapping[bytes, Facts],
    *,
    xattrs: Callable[[str], bool] = carried_by_oci,
    directory_times: bool = False,
    leave_out: Iterable[str] = (),
) -> dict[bytes, Facts]:
    """The facts of a scan that a layer can carry: no root, times in whole seconds, no empty xattrs.

    Args:
        facts: What `scan_tree` gave.
        xattrs: Which xattrs count.
        directory_times: Whether the times of directories count; a layer writes only those of directories that it names.
        leave_out: Types of files that do not count.
    """
    kept = {}
    for name, found in facts.items():
        if name == b"." or found["type"] in tuple(leave_out):
            continue
        entry = dict(found, xattrs={key: value for key, value in found["xattrs"].items() if value and xattrs(key)})
        time = entry.pop("mtime_ns")
        if directory_times or entry["type"] != "dir":
            entry["mtime"] = time // SECOND
        kept[name] = entry
    return kept


def assert_same_tree(
    actual: bytes | str | Path,
    expected: bytes | str | Path,
    *,
    xattrs: Callable[[str], bool] = carried_by_oci,
    directory_times: bool = False,
    leave_out: Iterable[str] = (),
) -> None:
    """Fail, naming every difference, unless both trees are the same in all that a layer can carry (see `comparable`)."""
    assert_same_facts(
        comparable(scan_tree(actual), xattrs=xattrs, directory_times=directory_times, leave_out=leave_out),
        comparable(scan_tree(expected), xattrs=xattrs, directory_times=directory_times, leave_out=leave_out),
    )


def assert_same_facts(actual: Mapping[bytes, Facts], expected: Mapping[bytes, Facts]) -> None:
    """Fail, naming every difference."""
    wrong = [f"missing: {name!r}" for name in expected.keys() - actual.keys()]
    wrong += [f"too much: {name!r}" for name in actual.keys() - expected.keys()]
    for name in actual.keys() & expected.keys():
        found, wanted = actual[name], expected[name]
        wrong += [
            f"{name!r}: {key} is {found.get(key)!r}, not {wanted.get(key)!r}"
            for key in found.keys() | wanted.keys()
            if found.get(key) != wanted.get(key)
        ]
    assert not wrong, "\n".join(sorted(wrong))
