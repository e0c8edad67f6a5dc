"""`ocidiff umount`: take the mount of a working container away."""

from __future__ import annotations

import click

from ocidiff.cli.options import Settings, common, pass_settings
from ocidiff.cli.streams import emit
from ocidiff.content.layout import Layout
from ocidiff.image.container import Containers


@click.command("umount", epilog="Example: ocidiff umount work")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--lazy", is_flag=True, help="Also while files in it are open: it ends when the last one is closed.")
@common("store")
@pass_settings
def command(settings: Settings, names: tuple[str, ...], *, lazy: bool) -> None:
    """Unmount working containers; one that is not mounted is left as it is.

    Prints their names.
    """
    with Layout.open(settings.store_path(), create=False) as layout:
        containers = Containers(layout)
        for name in names:
            containers.umount(name, lazily=lazy)
            emit(name)
