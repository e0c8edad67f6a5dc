"""`ocidiff gc`: remove what nothing needs."""

from __future__ import annotations

import click

import ocidiff
from ocidiff.cli.render import as_json
from ocidiff.cli.settings import Settings, common, pass_settings
from ocidiff.cli.streams import complain, emit
from ocidiff.embedded.gc import Collected
from ocidiff.output import naming
from ocidiff.printable import printable
from ocidiff.sizes import counted, size

_LEFTOVERS = 1


@click.command("gc", epilog="Example: ocidiff gc --dry-run")
@click.option("--dry-run", is_flag=True, help="Only say what would go; reading the store is enough.")
@common("store", "json", "quiet")
@pass_settings
@click.pass_context
def command(context: click.Context, settings: Settings, /, *, dry_run: bool) -> None:
    """Remove blobs and snapshots that no image, no working container and no running call needs.

    Others may go on reading and writing. Blobs that another tool wrote within the last hour are left alone. Prints the
    bytes that were freed. Exits with 1 if something cannot be removed, and names it.
    """
    place = settings.store_path()
    with naming(place), ocidiff.Store.open(place, create=False) as store:
        collected = store.collect(dry_run=dry_run)
    if not settings.quiet:
        complain(f"gc: {_line(collected)}")
    for unread in collected.unread:
        complain(printable(f"warning: gc: may not be read: {unread}"))
    for left in collected.leftovers:
        complain(printable(f"gc: cannot remove {left}"))
    document = {"dryRun": dry_run, **collected.to_dict()}
    emit(as_json(document) if settings.json else str(collected.freed_bytes))
    if collected.leftovers:
        context.exit(_LEFTOVERS)


def _line(collected: Collected) -> str:
    kept = f"; {counted(collected.young, 'young blob')} of other tools kept" if collected.young else ""
    return (
        f"{counted(collected.blobs, 'blob')} ({size(collected.blob_bytes)}), {counted(collected.snapshots, 'snapshot')} "
        f"({size(collected.snapshot_bytes)}), {counted(collected.ingests, 'ingest')}, "
        f"{counted(collected.leases, 'lease')}{kept}"
    )
