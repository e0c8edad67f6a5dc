"""`ocidiff rm`: remove working containers."""

from __future__ import annotations

import click

from ocidiff.cli.options import Settings, common, pass_settings
from ocidiff.cli.streams import emit
from ocidiff.content.layout import Layout
from ocidiff.image.container import Containers


@click.command("rm", epilog="Example: ocidiff rm work")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Also one that is mounted.")
@common("store")
@pass_settings
def command(settings: Settings, names: tuple[str, ...], *, force: bool) -> None:
    """Remove working containers, with all that was changed in them.

    Images stay. Prints the names of what was removed.
    """
    with Layout.open(settings.store_path(), create=False) as layout:
        containers = Containers(layout)
        for name in names:
            containers.remove(name, force=force)
            emit(name)
