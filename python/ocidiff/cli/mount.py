"""`ocidiff mount`: the root directory of a working container."""

from __future__ import annotations

import click

import ocidiff
from ocidiff.cli.names import CONTAINER
from ocidiff.cli.render import as_json
from ocidiff.cli.settings import Settings, common, pass_settings
from ocidiff.cli.streams import emit


@click.command("mount", epilog="Example: ocidiff mount work")
@click.argument("name", type=CONTAINER)
@common("store", "json")
@pass_settings
def command(settings: Settings, name: str) -> None:
    """Mount the working container NAME.

    Prints its root directory; one that is mounted already stays as it is.
    """
    with ocidiff.Store.open(settings.store_path(), create=False) as store:
        place = store.containers.mount(name)
    emit(as_json({"name": name, "mountPoint": place}) if settings.json else place)
