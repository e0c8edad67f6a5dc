"""The table of extended attributes: what each class of names means to layers. All that decides by a name asks it.

The other engine has the same table in `rules/xattr.rs`; tests hold both to docs/layer-format.md.
"""

from __future__ import annotations

import stat
from typing import Final, Literal, NamedTuple

CAPABILITY: Final = b"security.capability"
ACCESS_ACL: Final = b"system.posix_acl_access"
DEFAULT_ACL: Final = b"system.posix_acl_default"
NOTE: Final = b"user.containers.override_stat"
"""The note of what a file could not get; see decision 0050."""
OVERLAY: Final = b"trusted.overlay."
"""The prefix of the marks of overlayfs."""
OVERLAY_USERXATTR: Final = b"user.overlay."
"""Their prefix in a mount with the option `userxattr`."""
FUSE: Final = b"user.fuseoverlayfs."
"""The prefix of the attributes in which fuse-overlayfs keeps its marks."""
FUSE_OF_ROOT: Final = b"security.fuseoverlayfs."
"""The same of a fuse-overlayfs that root runs; its mounts show them."""
_ESCAPE: Final = b"overlay."
_NAMESPACES: Final = (b"security", b"system", b"trusted", b"user")


class XattrClass(NamedTuple):
    """Attributes that are treated alike.

    Attributes:
        pattern: A name, or what names begin with: then it ends in a dot, or is empty.
        stored: The profiles that compare and store it. An entry without it removes it from the directory it merges with.
        is_accepted: True if an apply sets it. Others belong to the host, or mean something to overlayfs or to us.
        ids: What an id map changes in its value: the root of a user namespace, or the names in an ACL.
        files: The files that the kernel lets have it. Spec: xattr(7).
        owner: The program that keeps it for itself; empty for an attribute of the file.
    """

    pattern: bytes
    stored: Literal["no", "oci", "all"]
    is_accepted: bool
    ids: Literal["", "root", "acl"]
    files: Literal["all", "no symlinks", "regular"]
    owner: Literal["", "overlayfs", "fuse-overlayfs", "ocidiff"] = ""

    def is_stored(self, *, only_capability: bool = False) -> bool:
        """Return true if layers have it, by default those of the profile `oci`."""
        return self.stored == "all" or (self.stored == "oci" and not only_capability)

    def fits(self, mode: int) -> bool:
        """Return true if the kernel lets a file with this type have it."""
        if self.files == "all":
            return True
        return not stat.S_ISLNK(mode) if self.files == "no symlinks" else stat.S_ISREG(mode) or stat.S_ISDIR(mode)


CLASSES: Final = (
    XattrClass(CAPABILITY, "all", True, "root", "all"),
    XattrClass(ACCESS_ACL, "oci", True, "acl", "no symlinks"),
    XattrClass(DEFAULT_ACL, "oci", True, "acl", "no symlinks"),
    XattrClass(NOTE, "no", False, "", "regular", "ocidiff"),
    XattrClass(OVERLAY_USERXATTR, "no", False, "", "regular", "overlayfs"),
    XattrClass(FUSE, "oci", True, "", "regular", "fuse-overlayfs"),
    XattrClass(b"user.", "oci", True, "", "regular"),
    XattrClass(OVERLAY, "no", False, "", "all", "overlayfs"),
    XattrClass(b"trusted.", "no", False, "", "all"),
    XattrClass(FUSE_OF_ROOT, "no", True, "", "all", "fuse-overlayfs"),
    XattrClass(b"system.", "no", True, "", "no symlinks"),
    XattrClass(b"", "no", True, "", "all"),
)
"""The first that fits is that of a name."""


def class_of(name: bytes) -> XattrClass:
    """Return the class of an attribute."""
    for found in CLASSES:
        if name == found.pattern or (found.pattern.endswith(b".") and name.startswith(found.pattern)):
            return found
    return CLASSES[-1]


def is_for_root(name: bytes) -> bool:
    """Return True if the kernel lets only root set an attribute of this namespace. Spec: xattr(7)."""
    return name.startswith((b"security.", b"trusted."))


def mark_of(name: bytes, prefix: bytes) -> bytes | None:
    """Return the mark of an overlay that an attribute is, without the prefix of these marks; None if it is none.

    An escape is none: it is a mark of an overlay within this one.
    """
    mark = name[len(prefix) :]
    return mark if name.startswith(prefix) and not mark.startswith(_ESCAPE) else None


def escape(name: bytes, prefix: bytes) -> bytes:
    """Return the name under which overlayfs keeps an attribute that users of its mounts shall see as `name`.

    Spec: Linux overlayfs.rst, "Nesting overlayfs mounts".
    """
    return prefix + _ESCAPE + name.removeprefix(prefix) if name.startswith(prefix) else name


def lost_class(name: bytes) -> str:
    """Return what an attribute that is left out is counted as: its namespace. Spec: xattr(7)."""
    namespace = name.partition(b".")[0]
    return "xattrs." + (namespace.decode() if namespace in _NAMESPACES else "other")
