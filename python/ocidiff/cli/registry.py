"""The options that say how registries are reached."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

import ocidiff
from ocidiff.cli.options import size_type

_Command = TypeVar("_Command", bound=Callable[..., Any])

_REGISTRY_OPTIONS: Final = (
    click.option("--insecure", is_flag=True, help="Accept plain HTTP and any certificate, also of other machines."),
    click.option(
        "--cert-dir",
        metavar="DIR",
        type=click.Path(),
        help="Directory with certificates of registries.  [default: HOST in the certs.d of Docker and Podman]",
    ),
)
_CHUNKS: Final = click.option(
    "--chunk-size",
    "chunk_bytes",
    type=size_type,
    default=0,
    metavar="SIZE",
    help="Send blobs in requests of this size.  [default: one request a blob]",
)
_TAGS: Final = click.option(
    "--tag", "tags", multiple=True, metavar="TAG", help="Give the image this tag in the registry too; repeatable."
)


def registry_options(command: _Command, *, writing: bool = True) -> _Command:
    """Add the options that say how registries are reached; the command gets all of them as `registry`."""
    more = (_CHUNKS, _TAGS) if writing else ()

    @functools.wraps(command)
    def with_registry(
        *arguments: object,
        insecure: bool,
        cert_dir: str | None,
        chunk_bytes: int = 0,
        tags: tuple[str, ...] = (),
        **options: object,
    ) -> object:
        registry = ocidiff.Registry(insecure, cert_dir, chunk_bytes, tags)
        return command(*arguments, registry=registry, **options)

    return functools.reduce(lambda made, option: option(made), reversed((*more, *_REGISTRY_OPTIONS)), with_registry)  # type: ignore[return-value]
