"""`ocidiff ps`: the working containers."""

from __future__ import annotations

import click

from ocidiff.cli.options import Settings, common, pass_settings
from ocidiff.cli.render import as_json, columns, container_document
from ocidiff.cli.streams import emit
from ocidiff.content.layout import Layout
from ocidiff.image.container import Container, Containers
from ocidiff.oci.timestamp import timestamp


@click.command("ps", epilog="Example: ocidiff ps --json")
@common("store", "json")
@pass_settings
def command(settings: Settings) -> None:
    """List the working containers."""
    containers = _containers(settings)
    if settings.json:
        for container in containers:
            emit(as_json(container_document(container)))
    else:
        for line in columns(("NAME", "IMAGE", "CREATED", "DRIVER", "MOUNTED AT"), map(_row, containers)):
            emit(line)


def _containers(settings: Settings) -> list[Container]:
    try:
        with Layout.open(settings.store_path(), create=False) as layout:
            return Containers(layout).list()
    except FileNotFoundError:
        # As in `images`: an empty list unless a store was named.
        if settings.chosen_store():
            raise
        return []


def _row(container: Container) -> tuple[str, ...]:
    return (
        container.name,
        container.image,
        timestamp(container.created_ns),
        container.driver,
        container.mount_point or "-",
    )
