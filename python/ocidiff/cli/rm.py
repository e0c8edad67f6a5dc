"""`ocidiff rm`: remove working containers."""

from __future__ import annotations

import click

import ocidiff
from ocidiff.cli.each import for_each
from ocidiff.cli.names import CONTAINER
from ocidiff.cli.settings import Settings, common, pass_settings


@click.command("rm", epilog="Example: ocidiff rm work")
@click.argument("names", metavar="NAME...", type=CONTAINER, nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Remove mounted containers too.")
@common("store")
@pass_settings
def command(settings: Settings, names: tuple[str, ...], *, force: bool) -> None:
    """Remove working containers with all their changes; images stay.

    Prints the name of each removed container. Goes on after a failure, and exits with 1 at the end.
    """
    with ocidiff.Store.open(settings.store_path(), create=False) as store:
        containers = store.containers

        def remove(name: str) -> str:
            containers.remove(name, force=force)
            return name

        for_each(names, remove)
