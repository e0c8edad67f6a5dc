"""The arguments that many calls of a store share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Cancellation, Monitor, ProgressCallback
from ocidiff.oci.platform import Platform

if TYPE_CHECKING:
    from ocidiff.layer.engine import Engine
    from ocidiff.layer.options import EngineName


def call(
    limits: Limits | None = None,
    engine: EngineName | None = None,
    progress: ProgressCallback | None = None,
    cancel: Cancellation | None = None,
) -> tuple[Engine, Monitor, Limits]:
    """Return what `CallArguments` ask for."""
    from ocidiff.layer.engine import select_engine

    return select_engine(engine), Monitor(progress, cancel), limits or Limits()


def platform_of(text: str | None) -> Platform | None:
    """Return the platform of an argument; errors as in `Platform.of_text`."""
    return None if text is None else Platform.of_text(text)
