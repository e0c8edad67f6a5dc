"""Options of apply and index."""

from __future__ import annotations

import os
from dataclasses import field
from enum import StrEnum
from typing import TYPE_CHECKING

from ocidiff.layer.idmap import IdMaps
from ocidiff.layer.limits import Limits
from ocidiff.values import dataclass

if TYPE_CHECKING:
    from ocidiff.oci.digest import ChainID


class Destination(StrEnum):
    """The kind of tree that a layer is written onto.

    `DIRECTORY` is a plain tree, in which whiteouts remove what is there. `OVERLAY` is the upperdir of an overlay, in which
    whiteouts become what overlayfs reads: devices 0/0 and `trusted.overlay.opaque`. `OVERLAY_USERXATTR` is the same for
    mounts with the option `userxattr`, that keep their attributes under `user.overlay.`, as in a user namespace.
    """

    DIRECTORY = "directory"
    OVERLAY = "overlay"
    OVERLAY_USERXATTR = "overlay-userxattr"


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """Options of an index.

    Attributes:
        chain_id: The chain ID of the layers that the tree was unpacked from; None for any other tree, and for no layers.
        ids: What the ids of files are in the container.
        sha256: Give contents a sha256 beside the XXH3-128.
        stamps: Give what has not changed for some seconds the inode and change time that it has.
        cross_mounts: Let what is mounted in the tree count. Otherwise the index says only where it is.
        threads: Worker threads; 0 for as many as there are cores. The bytes do not depend on it.
    """

    chain_id: ChainID | None = None
    ids: IdMaps = field(default_factory=IdMaps)
    sha256: bool = False
    stamps: bool = False
    cross_mounts: bool = False
    threads: int = 0


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """Options of an apply.

    Attributes:
        same_owner: Give every entry its recorded owner and treat failure as an error. False: what may not be set is left
            out and counted, empty files stand for devices, and all is noted in the attribute
            `user.containers.override_stat` where the file system can. None: True for root.
        destination: What kind of tree the directory is.
        limits: What the layer may not pass.
        is_upper: The tar is that of an overlay's upper directory: devices 0/0 are whiteouts, attributes mark opaque
            directories, every directory has an entry before what is in it, and an end mark is needed.
        threads: Threads that write small files, besides those that read and hash; 0 for as many as there are cores.
    """

    same_owner: bool | None = None
    destination: Destination = Destination.DIRECTORY
    limits: Limits = field(default_factory=Limits)
    is_upper: bool = False
    threads: int = 0

    @property
    def restores_owners(self) -> bool:
        """True if every entry gets its recorded owner."""
        return os.geteuid() == 0 if self.same_owner is None else self.same_owner
