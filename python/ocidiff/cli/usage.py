"""Wrong usage: what click has to say of a command line, in the one line that all errors have."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

import click

_CLOSE_OPTION: Final = 0.75
# Words of other tools that people type.
_USE_INSTEAD: Final = {
    "build": "ocidiff builds no Dockerfiles; commit a directory or a working container instead",
    "export": "use `ocidiff unpack IMAGE DIR`",
    "help": "use `ocidiff --help` or `ocidiff COMMAND --help`",
    "import": "use `ocidiff commit ./DIR NAME`",
    "ls": "use `ocidiff images` or `ocidiff ps`",
    "prune": "use `ocidiff gc`",
    "run": "ocidiff runs no containers; use `ocidiff create` and `ocidiff mount`, and run the program there",
    "version": "use `ocidiff --version`",
}


class UnknownCommandError(click.UsageError):
    """There is no such command; the message says which ones come close, or where the list is."""

    def __init__(self, name: str, commands: Sequence[str], context: click.Context) -> None:
        super().__init__(f"no such command {name!r}{_hint(name, commands)}", context)


def line(error: click.ClickException, command: str) -> str:
    """Return what click has to say of a command line in the one line that all errors have.

    Args:
        error: Its error.
        command: Name of the command; empty if it was not found.
    """
    where = f"{command}: " if command else ""
    if isinstance(error, click.NoSuchOption):
        message, hint = f"no such option {error.option_name!r}", _close_options(error)
    else:
        message = error.format_message().rstrip(".")
        message = message[:1].lower() + message[1:]
        # These say what to write.
        if isinstance(error, UnknownCommandError) or type(error) is click.BadParameter:
            return where + message
        hint = ""
    return where + message + (hint or f"; see `{' '.join(filter(None, ('ocidiff', command)))} --help`")


def _close_options(error: click.NoSuchOption) -> str:
    """Return a question for the option that was meant; empty if none of those that the help lists comes close."""
    parameters = error.ctx.command.params if error.ctx else []
    listed = [name for one in parameters if not getattr(one, "hidden", False) for name in one.opts if name.startswith("--")]
    close = get_close_matches(error.option_name, listed, n=2, cutoff=_CLOSE_OPTION)
    return f": did you mean {' or '.join(close)}?" if close else ""


def _hint(name: str, commands: Sequence[str]) -> str:
    if name in _USE_INSTEAD:
        return f": {_USE_INSTEAD[name]}"
    close = get_close_matches(name, commands, n=2)
    return f": did you mean {' or '.join(close)}?" if close else "; `ocidiff --help` lists them"
