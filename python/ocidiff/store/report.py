"""The report on an image of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocidiff.image.image import Image
from ocidiff.image.lookup import find_image
from ocidiff.output import Output, naming, open_output, write_all
from ocidiff.report.page import page_of
from ocidiff.report.survey import Survey, survey
from ocidiff.services.home import reading
from ocidiff.store.call import call, platform_of

if TYPE_CHECKING:
    from typing import Unpack

    from ocidiff.layer.arguments import CallArguments
    from ocidiff.services.home import Home


def report(
    home: Home, image: str | Image, output: Output, platform: str | None, **arguments: Unpack[CallArguments]
) -> Survey:
    """See `Store.report`."""
    engine, monitor, limits = call(**arguments)
    with open_output(output) as sink, reading(home, engine, monitor) as found:
        if isinstance(image, str):
            image = find_image(found, image, platform_of(platform))
        # A store without a lease is read only.
        spool = None if found.lease is None else found.content.spool
        done = survey(found.content, image, spool, engine=engine, limits=limits, monitor=monitor)
        with naming(output):
            write_all(sink, page_of(done))
    return done
