"""`ocidiff umount`: take the mount of a working container away."""

from __future__ import annotations

import click

import ocidiff
from ocidiff.cli.options import Settings, common, pass_settings
from ocidiff.cli.streams import emit


@click.command("umount", epilog="Example: ocidiff umount work")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--lazy", is_flag=True, help="Also while files in it are open: it ends when the last one is closed.")
@common("store")
@pass_settings
def command(settings: Settings, names: tuple[str, ...], *, lazy: bool) -> None:
    """Unmount working containers; one that is not mounted is left as it is.

    Prints their names.
    """
    with ocidiff.Store.open(settings.store_path(), create=False) as store:
        for name in names:
            store.containers.umount(name, lazily=lazy)
            emit(name)
