"""The command `ocidiff`: its subcommands, each imported when it is needed, and what becomes of their errors."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Final

import click

import ocidiff
from ocidiff.cli.options import FAILED_STATUS, Settings, common
from ocidiff.cli.streams import complain
from ocidiff.errors import outcome_of, reason
from ocidiff.log import listen

if TYPE_CHECKING:
    import logging

_COMMANDS: Final = (
    *("diff", "changes", "apply", "index"),
    *("commit", "create", "mount", "umount", "ps", "rm"),
    *("unpack", "images", "inspect", "history", "tag", "rmi"),
    *("copy", "pull", "push", "save", "load"),
    *("gc", "verify", "serve"),
)
_FAILED: Final = 1
_CLOSE_OPTION: Final = 0.75

# What people type who know other tools.
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


class _UnknownCommandError(click.UsageError):
    """There is no such command; the message says which ones come close, or where the list is."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"ocidiff.cli.{cmd_name}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-"):
            raise _UnknownCommandError(f"no such command {name!r}{_hint(name)}", ctx)
        return super().resolve_command(ctx, args)


def _hint(name: str) -> str:
    if name in _USE_INSTEAD:
        return f": {_USE_INSTEAD[name]}"
    from difflib import get_close_matches

    close = get_close_matches(name, _COMMANDS, n=2)
    return f": did you mean {' or '.join(close)}?" if close else "; `ocidiff --help` lists them"


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Example: ocidiff diff lower upper -o layer.tar.gz",
)
@common("store", "json", "quiet", "progress", "verbose")
@click.version_option(ocidiff.__version__, message="ocidiff %(version)s")
def group() -> None:
    """Turn a changed file system into an OCI image.

    Results go to stdout, everything else to stderr. Exit status: 0 done, 1 failed, 2 wrong usage, 3 more than
    --fail-above, 130 interrupted.
    """


def _warnings() -> logging.Handler:
    """Shows what the package logs."""
    import logging

    class Warnings(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            context = click.get_current_context(silent=True)
            settings = context and context.find_object(Settings)
            if not (settings and settings.quiet):
                complain(f"warning: {record.getMessage()}")

    return Warnings(logging.WARNING)


def run(words: list[str]) -> int:
    """The exit status of `ocidiff` with these arguments, once it is done or has said why not."""
    if "_OCIDIFF_COMPLETE" in os.environ:
        group.main(words, prog_name="ocidiff", complete_var="_OCIDIFF_COMPLETE")
    listen(_warnings)
    command = ""
    try:
        with group.make_context("ocidiff", words) as context:
            try:
                return _invoke(context)
            finally:
                command = context.invoked_subcommand or ""
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        complain(_line(error, command))
        return error.exit_code


def _line(error: click.ClickException, command: str) -> str:
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
        if isinstance(error, _UnknownCommandError) or type(error) is click.BadParameter:
            return where + message
        hint = ""
    return where + message + (hint or f"; see `{' '.join(filter(None, ('ocidiff', command)))} --help`")


def _close_options(error: click.NoSuchOption) -> str:
    """Return a question for the option that was meant; empty if none of those that the help lists comes close."""
    from difflib import get_close_matches

    parameters = error.ctx.command.params if error.ctx else []
    listed = [name for one in parameters if not getattr(one, "hidden", False) for name in one.opts if name.startswith("--")]
    close = get_close_matches(error.option_name, listed, n=2, cutoff=_CLOSE_OPTION)
    return f": did you mean {' or '.join(close)}?" if close else ""


def _invoke(context: click.Context) -> int:
    try:
        group.invoke(context)
    except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
        raise
    except Exception as error:  # noqa: BLE001 - the boundary: users get one line, never a traceback
        # Python 3.11 wraps what interrupts the making of a class.
        if isinstance(error.__cause__, KeyboardInterrupt):
            raise error.__cause__ from None
        complain(f"{context.invoked_subcommand}: {reason(error)}")
        return _status(error, context)
    return 0


def _status(error: Exception, context: click.Context) -> int:
    status = outcome_of(error).status
    return int(context.meta.get(FAILED_STATUS, status)) if status == _FAILED else status
