"""The options that several commands share, declared once."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Final, cast

import click

import ocidiff
from ocidiff.cli.settings import Command, Decorator, decorated


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


def size_gate(explanation: str) -> Decorator[Any]:
    """The option `--fail-above`."""
    return size_option("--fail-above", "fail_above", explanation)


def size_option(name: str, variable: str, explanation: str) -> Decorator[Any]:
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


def id_options(command: Command) -> Command:
    """Add the options that map ids of files to ids in the container."""
    return decorated(command, *_IDS)


def comparison_options(command: Command) -> Command:
    """Add the options that say how two trees are compared."""
    return decorated(command, *_COMPARISON, engine_option)


def layer_options(command: Command, compression: str = "gzip") -> Command:
    """Add the options of `ocidiff.DiffOptions`."""
    chosen = click.option(
        "--compression",
        type=click.Choice(("gzip", "zstd", "none")),
        help=f"Compression of the layer.  [default: {compression}]",
    )
    gate = size_gate("Fail, and leave nothing, when the layer takes more than this uncompressed, as 500MB.")
    return decorated(command, chosen, *_BLOB, gate, *_COMPARISON, engine_option)


def upper_tar_option(command: Command) -> Command:
    """Add the option that names a tar in place of the changed tree: see `upper_tar_of`."""
    return decorated(
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


def limit_options(command: Command) -> Command:
    """Add the options of `ocidiff.Limits`; the command gets them as `limits`."""

    @functools.wraps(command)
    def with_limits(*arguments: object, **options: Any) -> object:  # noqa: ANN401 - of as many types as click has
        from ocidiff.layer.limits import Limits

        given = {name: options.pop(f"limit_{name}") for name in ("bytes", "entries", "ratio", "depth", "header_bytes")}
        limits: dict[str, Any] = {
            f"max_{name}": None if value == _UNLIMITED else value for name, value in given.items() if value is not None
        }
        return command(*arguments, limits=Limits(**limits), **options)

    return cast("Command", decorated(with_limits, *_LIMITS))
