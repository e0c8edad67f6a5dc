"""`ocidiff umount`: unmount working containers."""

from __future__ import annotations

import click

import ocidiff
from ocidiff.cli.each import for_each
from ocidiff.cli.names import CONTAINER
from ocidiff.cli.settings import Settings, common, pass_settings


@click.command("umount", epilog="Example: ocidiff umount work")
@click.argument("names", metavar="NAME...", type=CONTAINER, nargs=-1, required=True)
@click.option("--lazy", is_flag=True, help="Unmount even if files are open; the mount ends when the last one is closed.")
@common("store")
@pass_settings
def command(settings: Settings, names: tuple[str, ...], *, lazy: bool) -> None:
    """Unmount working containers; a container that is not mounted is left as it is.

    Prints the name of each container. Goes on after a failure, and exits with 1 at the end.
    """
    with ocidiff.Store.open(settings.store_path(), create=False) as store:
        containers = store.containers

        def unmount(name: str) -> str:
            containers.umount(name, lazily=lazy)
            return name

        for_each(names, unmount)
