"""Options of the commands that write layers into containerd: the cache of segments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ocidiff.cli.options import size_type
from ocidiff.cli.settings import Settings

_Command = TypeVar("_Command", bound=Callable[..., Any])


def cache_options(command: _Command) -> _Command:
    """Add the options of the cache, which go to `Settings`."""
    for option in (
        click.option(
            "--cache-size",
            "cache_bytes",
            metavar="SIZE",
            type=size_type,
            expose_value=False,
            callback=_keep,
            help="Bytes that the cache takes at most, with layers that containerd has removed.  [default: 1GiB]",
        ),
        click.option(
            "--cache",
            metavar="DIR",
            type=click.Path(),
            expose_value=False,
            callback=_keep,
            help="Where to note what layers in containerd hold, for later ones to copy.  "
            "[default: $OCIDIFF_CACHE_DIR, else /var/cache/ocidiff for root, $XDG_CACHE_HOME/ocidiff for others]",
        ),
    ):
        command = option(command)
    return command


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    setattr(context.ensure_object(Settings), parameter.name or "", value)
