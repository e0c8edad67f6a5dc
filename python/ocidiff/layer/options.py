"""Options of diff, and what an engine is told of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass as extended_dataclass
from dataclasses import field, fields, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeGuard, TypeVar, cast

from ocidiff.errors import UsageError
from ocidiff.layer.idmap import IdMaps
from ocidiff.layer.scope import Scope
from ocidiff.values import dataclass

if TYPE_CHECKING:
    from ocidiff.layer.arguments import DiffArguments

EngineName: TypeAlias = Literal["rust", "pure"]
ENGINES: Final[tuple[EngineName, ...]] = ("rust", "pure")


class Compression(StrEnum):
    """The compression of a layer's blob."""

    GZIP = "gzip"
    ZSTD = "zstd"
    NONE = "none"

    @classmethod
    def of_name(cls, name: str) -> Compression:
        """Return the compression that the name of a file stands for: `.tar`, `.tar.zst`; gzip for every other name."""
        if name.endswith(".tar"):
            return cls.NONE
        return cls.ZSTD if name.endswith((".tar.zst", ".tzst")) else cls.GZIP


class Profile(StrEnum):
    """The rules that decide what a layer says.

    `CONTAINERD` gives byte for byte the tar of containerd's walking differ. `OCI` gives the same bytes, except that `user.*`
    xattrs and POSIX ACLs are compared and stored too, that a real name beginning with `.wh.` is refused, that two inodes of
    different devices are never taken for hard links, and that fractions of a second that an unpacked tree has lost do not
    count.
    """

    OCI = "oci"
    CONTAINERD = "containerd"


class OverlayMode(StrEnum):
    """Says if the layers of an overlay are read instead of what it shows.

    `AUTO` does it where it is known to give the same bytes, and says why where it is not; `REQUIRE` fails there.
    """

    AUTO = "auto"
    NEVER = "never"
    REQUIRE = "require"


class Reuse(StrEnum):
    """Says if a commit may copy compressed segments of older layers in its store."""

    AUTO = "auto"
    NEVER = "never"


class OnChange(StrEnum):
    """The treatment of a file that changes while it is read.

    `RETRY` reads it again until it rests for as long as that takes, and takes what is gone as absent: each file of the layer
    is one that existed. `FAIL` ends the call.
    """

    FAIL = "fail"
    RETRY = "retry"


_Choice = TypeVar("_Choice", bound=StrEnum)

LEVELS: Final[Mapping[Compression, range]] = MappingProxyType(
    {Compression.GZIP: range(1, 10), Compression.ZSTD: range(1, 20), Compression.NONE: range(0)}
)
DEFAULT_LEVELS: Final[Mapping[Compression, int]] = {Compression.GZIP: 6, Compression.ZSTD: 3}
MOST_LAYERS: Final = 16
"""Most layers that one change is written as."""


@dataclass(frozen=True, slots=True)
class DiffOptions:
    """The options that `diff`, `changes`, `Store.commit` and their commands have in common: the one list of them.

    `changes` makes no blob: `compression`, `level`, `memory_bytes`, `source_date_epoch` and `fail_above` do nothing there.
    Words stand for the members of the enumerations: `"zstd"` for `Compression.ZSTD`.

    Attributes:
        compression: `gzip`, `zstd` or `none`; None for what the name of the output says (`.tar`, `.tar.gz`, `.tar.zst`),
            else gzip.
        level: Level of the compressor (gzip 1-9, zstd 1-19); None for its default (gzip 6, zstd 3).
        threads: Worker threads; 0 for as many as there are cores. The bytes do not depend on it.
        memory_bytes: Memory of the process, kept by fewer threads: a call that cannot keep it fails at once. None for
            128 MiB (192 MiB for zstd). The pure engine has one thread, and no bound.
        profile: `oci` or `containerd`: the rules that decide what a layer says.
        overlay: What to do where the upper tree is a mounted overlay and the lower tree is below it: `auto` reads the upper
            directory in place of both trees, which gives the same bytes, and compares the trees where it cannot; `never`
            compares them; `require` fails where the upper directory cannot be read.
        source_date_epoch: Later modification times are set to this (seconds since 1970), and it is the time of a commit.
            None for what the environment variable `SOURCE_DATE_EPOCH` says, else for no bound.
        uid_map: User ids of the trees in the container: each `CONTAINER:HOST:COUNT`, or the name of a user, whose ranges in
            /etc/subuid are ids of the container from 0 on. Without any, ids stay. A base that is unpacked keeps its ids.
        gid_map: The same of groups, and of /etc/subgid.
        userns: Process whose user namespace has both maps, in their place.
        exclude: Patterns of paths that do not count, as in a gitignore file, or `@runtime` for what a container engine puts
            into a running container. They come after those of a file `.ocidiffignore` in the root of the upper tree. At most
            1000 patterns with 64 KiB together, as in the file.
        ignore_file: Read the patterns in `.ocidiffignore` of the upper tree, if there is one. Without, the file is an
            ordinary one.
        cross_mounts: Let what is mounted in the trees count. Otherwise mount points do not.
        fail_above: Largest uncompressed size of the layer in bytes; the call fails as soon as that is passed. None for no
            limit.
        on_change: What becomes of a file that changes while it is read: `retry` reads it again until it rests, and takes
            what is gone as absent, so that each file of the layer is one that existed; `fail` ends the call.
        engine: `rust` or `pure`; None for what `OCIDIFF_ENGINE` says, or the best there is.

    Raises:
        UsageError: A value is of another type, or outside its range.
    """

    compression: Compression | None = None
    level: int | None = None
    threads: int = 0
    memory_bytes: int | None = None
    profile: Profile = Profile.OCI
    overlay: OverlayMode = OverlayMode.AUTO
    source_date_epoch: int | None = None
    uid_map: Sequence[str] = ()
    gid_map: Sequence[str] = ()
    userns: int | None = None
    exclude: Sequence[str] = ()
    ignore_file: bool = True
    cross_mounts: bool = False
    fail_above: int | None = None
    on_change: OnChange = OnChange.RETRY
    engine: EngineName | None = None

    @classmethod
    def of(cls, options: DiffOptions | None, arguments: DiffArguments) -> DiffOptions:
        """Return the options of a call that takes `options=`, or each of them by its name.

        Raises:
            UsageError: It was given both, or a value is refused.
        """
        if options is None:
            return DiffOptions(**cast("dict[str, Any]", arguments))
        if arguments:
            raise UsageError(f"options: cannot be combined with {', '.join(sorted(arguments))}")
        return options

    def __post_init__(self) -> None:
        if self.compression is not None:
            self._set("compression", choice(Compression, "compression", self.compression))
        self._set("profile", choice(Profile, "profile", self.profile))
        self._set("overlay", choice(OverlayMode, "overlay", self.overlay))
        self._set("on_change", choice(OnChange, "on_change", self.on_change))
        for name in ("uid_map", "gid_map", "exclude"):
            self._set(name, texts(name, getattr(self, name)))
        for name in ("ignore_file", "cross_mounts"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} {_shown(getattr(self, name))}: must be True or False")
        for name, (most, words) in _RANGES.items():
            _check_range(name, getattr(self, name), most, words)
        if self.engine is not None and self.engine not in ENGINES:
            raise UsageError(f"engine {_shown(self.engine)}: there are {' and '.join(ENGINES)}")
        if self.level is not None:
            self._check_level(self.level)

    def _check_level(self, level: int) -> None:
        if not _is_number(level):
            raise UsageError(f"level {_shown(level)}: takes a number")
        levels = range(0) if self.compression is None else LEVELS[self.compression]
        if self.compression is not None and level not in levels:
            allowed = f"{levels.start} to {levels.stop - 1}" if levels else "no level"
            raise UsageError(f"level {level}: {self.compression} takes {allowed}")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def compared(self, output_compression: Compression = Compression.GZIP) -> LayerOptions:
        """Return what an engine is told of a call: the options, with their words read.

        Args:
            output_compression: The compression if none is asked for.

        Raises:
            UsageError: A map or a pattern is not understood, or the level is none of this compression.
            FileNotFoundError: There is no such process as `userns`.
        """
        return LayerOptions(
            **{
                **{name: getattr(self, name) for name in _FIELDS},
                "compression": self.compression or output_compression,
                "ids": IdMaps.of(self.uid_map, self.gid_map, self.userns),
                "scope": Scope.of(self.exclude, cross_mounts=self.cross_mounts),
            }
        )


@dataclass(frozen=True, slots=True)
class Segments:
    """Segments that a layer may copy from older blobs in place of compressing them.

    Attributes:
        sources: Descriptors of tables, each with that of its blob; the first that has a segment wins.
        tables: Descriptors that take the tables of the new layers.
        proves_all: Decompress and compare every segment that is copied, and not only one in 64.
    """

    sources: tuple[tuple[int, int], ...]
    tables: tuple[int, ...]
    proves_all: bool = False


@extended_dataclass(frozen=True, slots=True)
class LayerOptions(DiffOptions):
    """The options of a call, and what is found out about its trees: what an engine is told.

    Attributes:
        compression: How the blob is compressed.
        lower_has_layer_times: True if the lower tree was unpacked from layers. `lower_lacks_fractions` then holds, and times
            of the upper tree are bounded by `source_date_epoch` before they are compared, as those of the layers were.
        lower_lacks_fractions: True if a lower time without a fraction of a second does not decide, and contents do.
            Otherwise only two times without fractions leave it to the contents.
        lower_lacks_owners: The lower tree was unpacked from layers without the right to set owners: what has no note of its
            owner has one of the host.
        ids: What `uid_map`, `gid_map` and `userns` say. A lower tree from layers has ids of the container already, unless it
            lacks owners.
        scope: What `exclude`, `ignore_file` and `cross_mounts` say: the paths that count.
        links_by_device: Two inodes of different devices are never one file, in the profile `containerd` too.
        spool: Directory where large files that may change are put aside, in files without a name; None for that of
            temporary files (`$TMPDIR`).
        reuse: Says if a store may copy segments of older layers.
        proves_reuse: Decompress and compare every segment that is copied.
        segments: What a store offers to copy; None for nothing. The bytes of the layer do not depend on it.
        copy: File descriptor of a pipe that gets the tar too; None for none. Its reader may stop at any time. It has to
            check the digest, since a layer that is begun again is there twice.
    """

    compression: Compression = Compression.GZIP
    lower_has_layer_times: bool = False
    lower_lacks_fractions: bool = False
    lower_lacks_owners: bool = False
    ids: IdMaps = field(default_factory=IdMaps)
    scope: Scope = field(default_factory=Scope)
    links_by_device: bool = False
    spool: str | None = None
    reuse: Reuse = Reuse.AUTO
    proves_reuse: bool = False
    segments: Segments | None = None
    copy: int | None = None

    @property
    def lower_has_ids(self) -> bool:
        """True if the lower tree has ids of the container already."""
        return self.lower_has_layer_times and not self.lower_lacks_owners

    @property
    def device_in_links(self) -> bool:
        """True if two names are one file only if their device is the same too."""
        return self.links_by_device or self.profile is Profile.OCI

    @property
    def of_lower(self) -> LayerOptions:
        """The options for reading the lower tree, or the lower directories of an overlay."""
        return replace(self, ids=IdMaps()) if self.lower_has_ids else self


_FIELDS: Final = tuple(one.name for one in fields(DiffOptions))

_RANGES: Final[Mapping[str, tuple[int, str]]] = MappingProxyType(
    {
        "threads": (1024, "1 to 1024, or 0 for all cores"),
        "memory_bytes": ((1 << 64) - 1, "bytes, 0 or more"),
        "source_date_epoch": ((1 << 33) - 1, f"seconds from 0 to {(1 << 33) - 1}"),
        "userns": ((1 << 31) - 1, "the number of a process"),
        "fail_above": ((1 << 63) - 1, "bytes, 0 or more"),
    }
)
"""The largest value of each number, and what an error says of the range."""


def _check_range(name: str, value: object, most: int, words: str) -> None:
    if value is None and name != "threads":
        return
    if not _is_number(value) or not 0 <= value <= most:
        raise UsageError(f"{name.replace('_bytes', '').replace('_', ' ')} {_shown(value)}: takes {words}")


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def texts(name: str, value: object) -> tuple[str, ...]:
    """Return a list of texts as a tuple.

    Raises:
        UsageError: It is none. One text alone would be a list of its characters.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise UsageError(f"{name} {_shown(value)}: must be a list: [{_shown(value)}]")
    found = tuple(value)
    for text in found:
        if not isinstance(text, str):
            raise UsageError(f"{name} {_shown(text)}: must be text")
    return found


def choice(kind: type[_Choice], name: str, value: str) -> _Choice:
    """Return the member of an enumeration that an option names.

    Raises:
        UsageError: There is no such member.
    """
    try:
        return kind(value)
    except ValueError:
        raise UsageError(f"{name} {_shown(value)}: takes {', '.join(kind)}") from None


def _shown(value: object) -> str:
    return str(value)[:100] if isinstance(value, int) else repr(value)[:100]
