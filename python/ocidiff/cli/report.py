"""The report of `commit --report` and `inspect --report`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import ocidiff
from ocidiff.cli.progress import shown
from ocidiff.cli.streams import complain
from ocidiff.output import naming
from ocidiff.sizes import counted, size

if TYPE_CHECKING:
    from ocidiff.cli.settings import Settings
    from ocidiff.layer.options import EngineName
    from ocidiff.output import Output


def write_report(
    settings: Settings,
    store: ocidiff.Store,
    image: str | ocidiff.Image,
    output: Output,
    name: str,
    *,
    limits: ocidiff.Limits,
    engine: EngineName | None,
    platform: str | None = None,
) -> None:
    """Write the report on an image, and say on a terminal what it tells.

    Args:
        settings: Say how progress is shown.
        store: The store with the image.
        image: The image or its name.
        output: Where the page goes.
        name: Name of the page, for people.
        limits: Limits of the layers.
        engine: What reads them.
        platform: Platform of the image, out of several.
    """
    with shown(settings, "report") as progress:
        found = store.report(image, output, platform=platform, limits=limits, engine=engine, progress=progress)
    if settings.verbose or (sys.stderr.isatty() and not settings.quiet):
        secrets, others = counted(found.files(secret=True), "secret"), found.files(secret=False)
        complain(f"{name}: {secrets}, {counted(others, 'suspicious file')}, {size(found.wasted_bytes)} wasted")


def report_commit(
    settings: Settings,
    store: ocidiff.Store,
    image: ocidiff.Image,
    page: int,
    name: str,
    *,
    limits: ocidiff.Limits,
    engine: EngineName | None,
) -> None:
    """Write the report on an image that was just committed to the descriptor `page`. A failure says that the image is there.

    Other arguments as in `write_report`.
    """
    try:
        with naming(name), open(page, "wb", closefd=False) as sink:
            write_report(settings, store, image, sink, name, limits=limits, engine=engine)
    except (OSError, ocidiff.OcidiffError) as error:
        error.add_note(f"image {image.name} is committed, and only the report is missing")
        raise
