"""`ocidiff mount`: the root directory of a working container."""

from __future__ import annotations

import click

from ocidiff.cli.options import Settings, common, pass_settings
from ocidiff.cli.render import as_json
from ocidiff.cli.streams import emit
from ocidiff.content.layout import Layout
from ocidiff.image.container import Containers


@click.command("mount", epilog="Example: ocidiff mount work")
@click.argument("name")
@common("store", "json")
@pass_settings
def command(settings: Settings, name: str) -> None:
    """Mount the working container NAME.

    Prints its root directory; one that is mounted already stays as it is.
    """
    with Layout.open(settings.store_path(), create=False) as layout:
        place = Containers(layout).mount(name)
    emit(as_json({"name": name, "mountPoint": place}) if settings.json else place)
