"""`ocidiff ps`: list the working containers."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

import click

import ocidiff
from ocidiff.cli.listing import Row, ago, listing_options, write_listing
from ocidiff.cli.settings import Settings, common, pass_settings
from ocidiff.image.reference import is_same
from ocidiff.oci.timestamp import timestamp

if TYPE_CHECKING:
    from ocidiff.embedded.containers import Container

_HEADS: Final = ("NAME", "IMAGE", "CREATED", "DRIVER", "MOUNTED AT")
_FILTERS: Final = ("name", "ancestor", "driver", "mounted")


@click.command("ps", epilog="Example: ocidiff ps --filter ancestor=app:v1")
@click.option("-a", "--all", "_all", is_flag=True, expose_value=False, help="Accepted for docker's sake: all are listed.")
@listing_options(_FILTERS)
@common("store", "json", without=("quiet",))
@pass_settings
def command(
    settings: Settings,
    /,
    *,
    only_ids: bool,
    no_trunc: bool,
    filters: list[tuple[str, str]],
    template: str | None,
) -> None:
    """List the working containers, the newest first."""
    containers = [container for container in _containers(settings) if all(_passes(container, *item) for item in filters)]
    containers.sort(key=lambda container: container.created_ns, reverse=True)
    write_listing(_HEADS, map(_row, containers), settings, only_ids=only_ids, no_trunc=no_trunc, template=template)


def _containers(settings: Settings) -> list[Container]:
    try:
        with ocidiff.Store.open(settings.store_path(), create=False) as store:
            return store.containers.list()
    except FileNotFoundError:
        # As in `images`: an empty list unless a store was named.
        if settings.chosen_store():
            raise
        return []


def _passes(container: Container, key: str, value: str) -> bool:
    if key == "name":
        return fnmatchcase(container.name, value)
    if key == "driver":
        return container.driver == value
    if key == "mounted":
        if value not in {"true", "false"}:
            raise click.UsageError(f"--filter mounted={value}: must be true or false")
        return (container.mount_point is not None) == (value == "true")
    return is_same(value, container.image) or container.manifest.digest == value


def _row(container: Container) -> Row:
    place = container.mount_point or "-"
    return Row(
        container.name,
        container.to_dict(),
        (container.name, container.image, ago(container.created_ns), container.driver, place),
        (container.name, container.image, timestamp(container.created_ns), container.driver, place),
    )
