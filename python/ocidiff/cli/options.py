"""The options that several commands share, declared once."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

import ocidiff

if TYPE_CHECKING:
    from ocidiff.mounts.layers import OverlayLayers

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Decorator = Callable[[_Command], _Command]

FAILED_STATUS: Final = "ocidiff.failed"
"""Key of `click.Context.meta`: exit status of a failure, if the command has its own."""

CONTAINERD: Final = "containerd:"
"""Before the name of an image or a container: it is in containerd."""

PROGRESS: Final = ("auto", "tty", "plain", "json", "none")


class Settings:
    """Options of every command, given before it or after it.

    Attributes:
        store: Directory of the local store, as given.
        json: True if the result is written as JSON.
        quiet: True if stderr is for errors only.
        progress: How progress is shown: one of `PROGRESS`.
        verbose: True if a summary goes to stderr.
        containerd: True if the images are in containerd.
        cache: Directory of the cache of segments, as given.
        cache_bytes: Its size at most, as given.
        address: Path of its socket, as given.
        namespace: Its namespace, as given.
        snapshotter: Its snapshotter, as given.
    """

    __slots__ = (
        "address",
        "cache",
        "cache_bytes",
        "containerd",
        "json",
        "namespace",
        "progress",
        "quiet",
        "snapshotter",
        "store",
        "verbose",
    )

    def __init__(
        self,
        *,
        store: str | None = None,
        json: bool = False,
        quiet: bool = False,
        progress: str = "auto",
        verbose: bool = False,
    ) -> None:
        self.store = store
        self.json = json
        self.quiet = quiet
        self.progress = progress
        self.verbose = verbose
        self.containerd = False
        self.address: str | None = None
        self.namespace: str | None = None
        self.snapshotter: str | None = None
        self.cache: str | None = None
        self.cache_bytes: int | None = None

    def is_containerd(self, *names: str) -> bool:
        """True if an option or these names say that the images are in containerd.

        Raises:
            UsageError: Some of the names say so, others do not.
        """
        named = [name.startswith(CONTAINERD) for name in names]
        is_chosen = self.containerd or bool(self.address or self.namespace or self.snapshotter)
        if any(named) and not all(named) and not is_chosen:
            raise click.UsageError("names in the local store and in containerd cannot be mixed in one command")
        return is_chosen or any(named)

    def check_new_name(self, name: str, *, in_containerd: bool) -> None:
        """Refuse a new name in containerd for what is in the local store.

        Raises:
            UsageError: It is one.
        """
        if name.startswith(CONTAINERD) and not in_containerd:
            raise click.UsageError(
                f"{name}: an image of the local store cannot get a name in containerd; use `ocidiff copy`"
            )

    def open_store(self, *names: str, create: bool = False) -> ocidiff.Store:
        """Open the store in which these images or containers are.

        Raises:
            UsageError: It is the local one, and an option is for containerd only.
        """
        if self.is_containerd(*names):
            cache, size = self.cache, self.cache_bytes
            return ocidiff.Store.containerd(
                self.address, self.namespace, snapshotter=self.snapshotter, cache=cache, cache_bytes=size
            )
        if self.cache is not None or self.cache_bytes is not None:
            raise click.UsageError("--cache and --cache-size are for images in containerd")
        return ocidiff.Store.open(self.store_path(), create=create)

    def chosen_store(self) -> str | None:
        """The directory that an option or the environment names; None for the default one."""
        return self.store or os.environ.get("OCIDIFF_STORE") or None

    def store_path(self) -> str:
        """The directory of the local store. Spec: XDG base directories, "a relative path is to be ignored"."""
        if self.is_containerd():
            raise click.UsageError("containerd: not supported by this command, which works on the local store")
        if chosen := self.chosen_store():
            return chosen
        data = os.environ.get("XDG_DATA_HOME", "")
        return os.path.join(data if os.path.isabs(data) else os.path.expanduser("~/.local/share"), "ocidiff")


pass_settings = click.make_pass_decorator(Settings, ensure=True)


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    # A default must not undo what was given before the command.
    if value:
        setattr(context.ensure_object(Settings), parameter.name or "", value)


_COMMON: Final[dict[str, Callable[..., _Decorator[Any]]]] = {
    "store": functools.partial(
        click.option,
        "--store",
        metavar="DIR",
        type=click.Path(),
        help="The local store: an OCI image layout.  [default: $OCIDIFF_STORE, else $XDG_DATA_HOME/ocidiff]",
    ),
    "containerd": functools.partial(click.option, "--containerd", is_flag=True, help="The images of containerd."),
    "address": functools.partial(
        click.option,
        "--address",
        metavar="SOCKET",
        help="The socket of containerd.  [default: $CONTAINERD_ADDRESS, else /run/containerd/containerd.sock]",
    ),
    "namespace": functools.partial(
        click.option,
        "--namespace",
        metavar="NAME",
        help="Its namespace.  [default: $CONTAINERD_NAMESPACE, else default; commit-pod: k8s.io; serve: the caller's]",
    ),
    "snapshotter": functools.partial(
        click.option,
        "--snapshotter",
        metavar="NAME",
        help="Its snapshotter for images of directories.  [default: overlayfs]",
    ),
    "json": functools.partial(click.option, "--json", is_flag=True, help="Write the result as JSON."),
    "quiet": functools.partial(click.option, "-q", "--quiet", is_flag=True, help="No progress and no warnings."),
    "progress": functools.partial(
        click.option,
        "--progress",
        type=click.Choice(PROGRESS),
        help="How progress is shown on stderr.  [default: auto, a bar on a terminal and none elsewhere]",
    ),
    "verbose": functools.partial(click.option, "-v", "--verbose", is_flag=True, help="Say on stderr what was done."),
}


def common(*shown: str, without: Sequence[str] = ()) -> Callable[[_Command], _Command]:
    """Add the options that every command takes.

    Args:
        shown: Options that its help lists; the others are taken too.
        without: Options that mean something else to this command.
    """
    options = [
        option(expose_value=False, callback=_keep, hidden=name not in shown)
        for name, option in _COMMON.items()
        if name not in without
    ]
    return lambda command: _with(command, *options)


class _Size(click.ParamType[int]):
    """Bytes, with a unit of powers of 1000 (k, kB, MB) or of 1024 (KiB, MiB), or none."""

    name = "SIZE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        parts = re.fullmatch(_SIZE, str(value), re.ASCII)
        power = parts and _UNITS.get(parts[2].lower())
        if not parts or power is None:
            return self.fail(f"{value!r}: invalid size; examples: 500MB, 1.5G, 2GiB", param, ctx)
        # No float: a size of many digits stays exact.
        whole, _, fraction = parts[1].partition(".")
        smaller = int(fraction or 0) * power // int("1" + "0" * len(fraction))
        return int(whole) * power + smaller


size_type: Final = _Size()
_SIZE: Final = r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)"
_UNITS: Final[Mapping[str, int]] = {
    "": 1,
    "b": 1,
    **{letter + unit: 1000**power for power, letter in enumerate("kmgt", 1) for unit in ("", "b")},
    **{letter + "ib": 1024**power for power, letter in enumerate("kmgt", 1)},
}
_IDS: Final = (
    click.option(
        "--uid-map",
        multiple=True,
        metavar="C:H:N|USER",
        help="Map N user ids from H on in the trees to those from C on in the layer; USER takes the ranges of /etc/subuid.",
    ),
    click.option(
        "--gid-map",
        multiple=True,
        metavar="C:H:N|USER",
        help="Map group ids likewise; USER takes the ranges of /etc/subgid.",
    ),
    click.option(
        "--userns",
        type=click.IntRange(min=1),
        metavar="PID",
        help="Take both maps from the user namespace of this process.",
    ),
)
cross_mounts_option: Final = click.option("--cross-mounts", is_flag=True, help="Include what is mounted in the trees.")
threads_option: Final = click.option(
    "--threads", type=int, default=0, metavar="N", help="Number of threads; 0 for as many as there are cores."
)
_COMPARISON: Final = (
    click.option(
        "--profile",
        type=click.Choice(("oci", "containerd")),
        default="oci",
        show_default=True,
        help="Choose the rules: oci also keeps user attributes and ACLs; containerd writes containerd's bytes.",
    ),
    click.option(
        "--overlay",
        type=click.Choice(("auto", "never", "require")),
        default="auto",
        show_default=True,
        help="Read the upper directory of an overlay mount in place of the whole tree.",
    ),
    *_IDS,
    click.option(
        "--exclude",
        multiple=True,
        metavar="PATTERN",
        help="Paths that do not count, as in a gitignore file; @runtime for what engines put into a running container.",
    ),
    click.option(
        "--no-ignore-file",
        "ignore_file",
        is_flag=True,
        flag_value=False,
        default=True,
        help="Do not read the patterns in .ocidiffignore of the changed tree.",
    ),
    cross_mounts_option,
    click.option(
        "--on-change",
        type=click.Choice(("fail", "retry")),
        default="retry",
        show_default=True,
        help="If a file changes while it is read: fail, or read it again until it rests.",
    ),
    threads_option,
)
_BLOB: Final = (
    click.option(
        "--level", type=int, metavar="N", help="Compression level: gzip 1-9, zstd 1-19.  [default: 6 for gzip, 3 for zstd]"
    ),
    click.option(
        "--memory",
        "memory_bytes",
        type=_Size(),
        metavar="SIZE",
        help="Limit the memory of the process by using fewer threads.  [default: 128MiB, 192MiB for zstd]",
    ),
    click.option(
        "--source-date-epoch",
        type=int,
        metavar="SECONDS",
        help="Lower later modification times to this (seconds since 1970).  [default: $SOURCE_DATE_EPOCH, else none]",
    ),
)
_LAYERS: Final = (
    click.option(
        "--upperdir",
        metavar="DIR",
        type=click.Path(),
        help="Read an overlay's changes from DIR, in place of LOWER and UPPER.",
    ),
    click.option("--lowerdir", metavar="DIR:…", help="Name the directories below --upperdir, top first."),
)


class _Limit(click.ParamType[int]):
    """A number, or the word for no limit, which is told as -1."""

    name = "N|none"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == "none":
            return _UNLIMITED
        try:
            number = int(str(value))
        except ValueError:
            number = -1
        return number if number >= 0 else self.fail(f"{value!r}: must be a number or 'none'", param, ctx)


_UNLIMITED: Final = -1
# The defaults are those of `ocidiff.Limits`; a test compares the words.
_LIMITS: Final = (
    click.option("--limit-bytes", type=_Limit(), help="Largest uncompressed size.  [default: 1 TiB]"),
    click.option("--limit-entries", type=_Limit(), help="Largest number of entries.  [default: 10000000]"),
    click.option(
        "--limit-ratio",
        type=_Limit(),
        help="Most bytes of tar for each byte of blob, from 64 MiB of tar on.  [default: 1100]",
    ),
    click.option("--limit-depth", type=int, metavar="N", help="Most components of a name.  [default: 16384]"),
    click.option("--limit-header-bytes", type=int, metavar="N", help="Largest PAX or GNU header.  [default: 1048576]"),
)
engine_option: Final = click.option(
    "--engine",
    type=click.Choice(("rust", "pure")),
    help="Who does the work.  [default: $OCIDIFF_ENGINE, else the fastest there is]",
)

reuse_option: Final = click.option(
    "--reuse",
    type=click.Choice(("auto", "never")),
    default="auto",
    show_default=True,
    help="Copy what older layers have compressed already. The bytes are the same.",
)


def size_gate(explanation: str) -> _Decorator[Any]:
    """The option `--fail-above`."""
    return size_option("--fail-above", "fail_above", explanation)


def size_option(name: str, variable: str, explanation: str) -> _Decorator[Any]:
    """An option that takes a size."""
    return click.option(name, variable, type=_Size(), metavar="SIZE", help=explanation)


def refuse_dash(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse stdout for a file that is not the result."""
    if value == "-":
        raise click.BadParameter("must be a file, since stdout takes the result")
    return value


report_option: Final = click.option(
    "--report",
    metavar="FILE",
    type=click.Path(),
    callback=refuse_dash,
    help="Write an HTML page on the image to this file: sizes, wasted bytes, secrets and suspicious files.",
)
platform_option: Final = click.option(
    "--platform",
    metavar="OS/ARCH[/VARIANT]",
    help="Which image of several platforms.  [default: this machine's]",
)

everything_option: Final = click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Take the images of all platforms, and what refers to them, such as signatures.",
)


def id_options(command: _Command) -> _Command:
    """Add the options that map ids of files to ids in the container."""
    return _with(command, *_IDS)


def comparison_options(command: _Command) -> _Command:
    """Add the options that say how two trees are compared."""
    return _with(command, *_COMPARISON, engine_option)


def compared_trees(command: _Command) -> _Command:
    """LOWER and UPPER, or the layers of an overlay: see `trees_of`."""
    from ocidiff.cli.names import ANY_OPERAND

    arguments = (
        click.argument("lower", type=ANY_OPERAND, required=False),
        click.argument("upper", type=ANY_OPERAND, required=False),
    )
    return _with(command, *arguments, *_LAYERS)


def trees_of(
    lower: str | None, upper: str | None, upperdir: str | None, lowerdir: str | None
) -> tuple[str | None, str | OverlayLayers]:
    """The two trees that a command line names.

    Raises:
        UsageError: It does not name two trees, or names them twice.
    """
    if upperdir is None and lowerdir is None:
        if lower is None or upper is None:
            raise click.UsageError("missing argument: give LOWER and UPPER, or --upperdir and --lowerdir")
        return lower, upper
    if upperdir is None or lowerdir is None or lower is not None:
        raise click.UsageError("--upperdir and --lowerdir: give both of them, and no LOWER and UPPER")
    from ocidiff.mounts.mount import split_lowerdir

    below, data = split_lowerdir(os.fsencode(lowerdir))
    if b"" in below + data:
        raise click.UsageError(f"--lowerdir: {lowerdir!r} names an empty directory")
    return None, ocidiff.overlay_layers(upperdir, list(map(os.fsdecode, below)), datadirs=list(map(os.fsdecode, data)))


def layer_options(command: _Command, compression: str = "gzip") -> _Command:
    """Add the options of `ocidiff.DiffOptions`."""
    chosen = click.option(
        "--compression",
        type=click.Choice(("gzip", "zstd", "none")),
        help=f"Compression of the layer.  [default: {compression}]",
    )
    gate = size_gate("Fail, and leave nothing, when the layer takes more than this uncompressed, as 500MB.")
    return _with(command, chosen, *_BLOB, gate, *_COMPARISON, engine_option)


def upper_tar_option(command: _Command) -> _Command:
    """Add the option that names a tar in place of the changed tree: see `upper_tar_of`."""
    return _with(
        command,
        click.option(
            "--upper-tar",
            metavar="FILE",
            type=click.Path(allow_dash=True),
            help="Read an overlay's upper directory from a tar, as `runsc tar rootfs-upper` writes it; - for stdin.",
        ),
    )


def upper_tar_of(file: str, limits: ocidiff.Limits) -> ocidiff.UpperTar:
    """Return the tar that `--upper-tar` names."""
    from ocidiff.cli.streams import source_of

    return ocidiff.UpperTar(source_of(file), limits)


def limit_options(command: _Command) -> _Command:
    """Add the options of `ocidiff.Limits`; the command gets them as `limits`."""

    @functools.wraps(command)
    def with_limits(*arguments: object, **options: Any) -> object:  # noqa: ANN401 - of as many types as click has
        from ocidiff.layer.options import Limits

        given = {name: options.pop(f"limit_{name}") for name in ("bytes", "entries", "ratio", "depth", "header_bytes")}
        limits: dict[str, Any] = {
            f"max_{name}": None if value == _UNLIMITED else value for name, value in given.items() if value is not None
        }
        return command(*arguments, limits=Limits(**limits), **options)

    return cast("_Command", _with(with_limits, *_LIMITS))


def _with(command: _Command, *options: _Decorator[Any]) -> _Command:
    # Help lists first what was added last.
    return functools.reduce(lambda decorated, option: option(decorated), reversed(options), command)
