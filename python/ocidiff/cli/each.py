"""Commands that take several names act on each, and fail at the end if one failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from ocidiff.cli.streams import complain, emit
from ocidiff.errors import OcidiffError, reason


def for_each(names: Sequence[str], act: Callable[[str], str]) -> None:
    """Call `act` with each name, print what it returns, and go on after a failure; exits with 1 if there was one."""
    command = click.get_current_context().info_name
    failed = False
    for name in names:
        try:
            emit(act(name))
        except BrokenPipeError:
            raise
        except (OcidiffError, OSError) as error:
            complain(f"{command}: {reason(error)}")
            failed = True
    if failed:
        click.get_current_context().exit(1)
