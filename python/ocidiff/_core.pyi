"""The Rust engine's contract. Private: only `ocidiff.layer.rust` imports it.

`poll` is called about twenty times a second from the calling thread with (entries, bytes_plain, bytes_blob); a false answer
cancels, an exception cancels and is raised again. No thread outlives a call.
"""

from collections.abc import Callable
from typing import Final, TypeAlias, final

__all__ = [
    "ChangeStream",
    "__version__",
    "apply_layer",
    "measure_layer",
    "write_index",
    "write_index_of_layers",
    "write_layer",
]

_Poll: TypeAlias = Callable[[int, int, int], bool]
# Lower directories and data directories, top first; whether userxattr is set, if known; whether redirects are followed.
_Overlay: TypeAlias = tuple[list[bytes], list[bytes], bool | None, bool]
# Ranges of user ids and of group ids: first in the container, first on the host, how many.
_Ids: TypeAlias = tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]
# An `Automaton`, each row of bits as bytes, lowest first: `moves`, `other_moves`, and the others in order from `start` on.
_Patterns: TypeAlias = tuple[list[tuple[int, bytes]], bytes, list[bytes]]
# Compiled patterns, if there are any; whether sockets are left out; whether mounts are crossed.
_Scope: TypeAlias = tuple[_Patterns | None, bool, bool]
# Reasons, bytes in upper, bytes in lower.
_Explained: TypeAlias = tuple[list[str], int | None, int | None]
# Whether lower, and upper, is the path of an index.
_Indexes: TypeAlias = tuple[bool, bool]
# Bytes, entries, ratio, depth and header bytes.
_Limits: TypeAlias = tuple[int | None, int | None, int | None, int, int]

__version__: Final[str]

def write_layer(
    lower: bytes | None,
    upper: bytes,
    sink: int,
    *,
    overlay: _Overlay | None,
    ids: _Ids,
    scope: _Scope,
    indexes: _Indexes,
    compression: str,
    level: int | None,
    threads: int,
    memory_bytes: int | None,
    profile: str,
    lower_from_layers: bool,
    lower_lacks_fractions: bool,
    device_in_links: bool,
    lower_has_ids: bool,
    source_date_epoch: int | None,
    retry_on_change: bool,
    spool: bytes | None,
    poll: _Poll | None,
) -> tuple[str, int, str, int, int, int, int, int, dict[str, int], int, int]:
    """(digest, size, diff_id, uncompressed_size, added, modified, deleted, entries, skipped, retried, vanished)."""

def apply_layer(
    source: int,
    target: bytes,
    *,
    same_owner: bool,
    destination: str,
    is_upper: bool,
    limits: _Limits,
    poll: _Poll | None,
) -> tuple[str, int, str, int, int, bool, int, int, dict[str, int], int]:
    """(digest, size, diff_id, uncompressed_size, holes, has_root, entries, whiteouts, skipped, recorded)."""

def write_index(
    tree: bytes,
    sink: int,
    *,
    chain_id: str | None,
    ids: _Ids,
    sha256: bool,
    stamps: bool,
    cross_mounts: bool,
    threads: int,
    poll: _Poll | None,
) -> tuple[str, int, int, int, dict[str, int]]:
    """(digest, size, entries, file_bytes, skipped)."""

def write_index_of_layers(
    sources: list[int], chain_id: str | None, sink: int, *, sha256: bool, limits: _Limits, poll: _Poll | None
) -> tuple[tuple[str, int, int, int, dict[str, int]], list[tuple[str, int, str, int, int, int]]]:
    """What `write_index` tells, and for each layer what `measure_layer` does."""

def measure_layer(source: int, *, limits: _Limits, poll: _Poll | None) -> tuple[str, int, str, int, int, int]:
    """(digest, size, diff_id, uncompressed_size, holes, entries)."""

@final
class ChangeStream:
    """Batches of (kind, path, bytes in the layer, explanation) in layer order; dropping it stops the walk."""

    def __new__(
        cls,
        lower: bytes | None,
        upper: bytes,
        *,
        overlay: _Overlay | None,
        ids: _Ids,
        scope: _Scope,
        indexes: _Indexes,
        threads: int,
        profile: str,
        lower_from_layers: bool,
        lower_lacks_fractions: bool,
        lower_has_ids: bool,
        source_date_epoch: int | None,
        explain: bool,
        retry_on_change: bool,
    ) -> ChangeStream: ...
    def __iter__(self) -> ChangeStream: ...
    def __next__(self) -> list[tuple[str, bytes, int, _Explained | None]]: ...
    def skipped(self) -> dict[str, int]: ...
    def close(self) -> None: ...
