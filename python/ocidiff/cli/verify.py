"""`ocidiff verify`: read the whole store again, and report every fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import ocidiff
from ocidiff.cli.options import engine_option, limit_options
from ocidiff.cli.progress import shown
from ocidiff.cli.render import as_json
from ocidiff.cli.settings import Settings, common, pass_settings
from ocidiff.cli.streams import complain, emit
from ocidiff.embedded.verified import Verified
from ocidiff.output import naming
from ocidiff.printable import printable
from ocidiff.sizes import counted, size

_FAULTY = 1

if TYPE_CHECKING:
    from ocidiff.layer.options import EngineName


@click.command("verify", epilog="Example: ocidiff verify --repair")
@click.option("--repair", is_flag=True, help="Repair what can be repaired, and say for each fault what was done.")
@limit_options
@engine_option
@common("store", "json", "quiet", "progress")
@pass_settings
@click.pass_context
def command(
    context: click.Context, settings: Settings, /, *, repair: bool, limits: ocidiff.Limits, engine: EngineName | None
) -> None:
    """Read every blob, image, snapshot and working container in the store, and compare them.

    Prints a line for each fault. Exits with 1 if a fault was not repaired. A store that may not be written to
    is read as far as that goes; what may not be read is named, and is no fault.
    """
    place = settings.store_path()
    with (
        naming(place),
        ocidiff.Store.open(place, create=False) as store,
        shown(settings, "verify") as progress,
    ):
        verified = store.verify(repair=repair, limits=limits, engine=engine, progress=progress)
    if settings.json:
        emit(as_json(verified.to_dict()))
    else:
        for fault in verified.faults:
            emit(printable(f"{fault.kind} {fault.where}: {fault.problem}"))
    for unread in verified.unread:
        complain(printable(f"warning: verify: may not be read: {unread}"))
    if not settings.quiet:
        complain(f"verify: {_line(verified)}")
    if any(not fault.repaired for fault in verified.faults):
        context.exit(_FAULTY)


def _line(verified: Verified) -> str:
    return (
        f"{counted(verified.blobs, 'blob')} ({size(verified.blob_bytes)}), {counted(verified.images, 'image')}, "
        f"{counted(verified.snapshots, 'snapshot')}, {counted(verified.containers, 'container')}; "
        f"{counted(len(verified.faults), 'fault')}"
    )
