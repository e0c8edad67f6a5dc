"""The command `ocidiff`: its subcommands, each imported when it is needed, and what becomes of their errors."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Final

import click

import ocidiff
from ocidiff.cli.settings import FAILED_STATUS, Settings, common
from ocidiff.cli.streams import complain
from ocidiff.errors import outcome_of, reason
from ocidiff.log import listen

if TYPE_CHECKING:
    import logging

_GROUPS: Final = {
    "Layers": ("diff", "changes", "apply", "index"),
    "Images": ("commit", "batch", "unpack", "images", "inspect", "history", "tag", "rmi"),
    "Working containers": ("create", "mount", "umount", "ps", "rm"),
    "Copies": ("copy", "pull", "push", "save", "load"),
    "Store": ("gc", "verify"),
    "containerd": ("serve", "commit-pod"),
    "This machine": ("bench",),
}
_COMMANDS: Final = tuple(name for names in _GROUPS.values() for name in names)
_FAILED: Final = 1


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"ocidiff.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what they are about, each with its first sentence whole."""
        for title, names in _GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, _first_sentence(self.get_command(ctx, name))) for name in names])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-"):
            from ocidiff.cli.usage import UnknownCommandError

            raise UnknownCommandError(name, _COMMANDS, ctx)
        return super().resolve_command(ctx, args)


def _first_sentence(command: click.Command | None) -> str:
    return ((command and command.help) or "").split("\n\n", 1)[0].replace("\n", " ").rstrip(".")


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


def _warnings(settings: Settings) -> logging.Handler:
    """Shows what the package logs, in all threads of a command: a context of click belongs to one of them."""
    import logging

    class Warnings(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not settings.quiet:
                complain(f"warning: {record.getMessage()}")

    return Warnings(logging.WARNING)


def run(words: list[str]) -> int:
    """The exit status of `ocidiff` with these arguments, once it is done or has said why not."""
    if "_OCIDIFF_COMPLETE" in os.environ:
        group.main(words, prog_name="ocidiff", complete_var="_OCIDIFF_COMPLETE")
    settings = Settings()
    listen(lambda: _warnings(settings))
    command = ""
    try:
        with group.make_context("ocidiff", words, obj=settings) as context:
            try:
                return _invoke(context)
            finally:
                command = context.invoked_subcommand or ""
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        from ocidiff.cli.usage import line

        complain(line(error, command))
        return error.exit_code


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
