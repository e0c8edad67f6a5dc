"""The options that say how an image is run, and what its documents are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ocidiff.image.changes import ConfigChanges

_Command = TypeVar("_Command", bound=Callable[..., Any])


class KeyValue(click.ParamType[tuple[str, str]]):
    """A name and its value, which may be empty."""

    name = "K=V"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Split the text at its first `=`."""
        key, equals, text = str(value).partition("=")
        if not key or not equals:
            return self.fail(f"{str(value)[:100]!r}: must be K=V", param, ctx)
        return key, text


class _Change(click.ParamType[str]):
    """A Dockerfile instruction, whose name a shell can complete."""

    name = "INSTRUCTION"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002 - click's
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        from click.shell_completion import CompletionItem

        from ocidiff.image.instructions import NAMES

        return [CompletionItem(name) for name in NAMES if name.startswith(incomplete.upper())]


_OPTIONS: Final = (
    click.option(
        "-c",
        "--change",
        multiple=True,
        type=_Change(),
        help="Apply a Dockerfile instruction to the configuration: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, "
        "ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR.",
    ),
    click.option("--unset-env", multiple=True, metavar="NAME", help="Remove a variable, after --change."),
    click.option("--unset-label", multiple=True, metavar="NAME", help="Remove a label, after --change."),
    click.option("--unset-volume", multiple=True, metavar="PATH", help="Remove a volume, after --change."),
    click.option("--unset-port", multiple=True, metavar="PORT[/PROTOCOL]", help="Remove an exposed port, after --change."),
    click.option("--env", multiple=True, type=KeyValue(), help="Set a variable, after --unset-env; the value is literal."),
    click.option("--label", multiple=True, type=KeyValue(), help="Set a label, after --unset-label; the value is literal."),
    click.option("--cmd", metavar="COMMAND", help="Set the command: a JSON array, or a line for /bin/sh; empty for none."),
    click.option(
        "--entrypoint",
        metavar="COMMAND",
        help="Set the entrypoint, likewise. Drops the command of the base, unless a new one is given.",
    ),
    click.option("--workdir", metavar="DIR", help="Set the working directory; empty for none."),
    click.option("--user", metavar="USER[:GROUP]", help="Set the user; empty for none."),
)


def config_options(command: _Command) -> _Command:
    """Add the options that say how the image is run; the command gets all of them as `changes`."""

    @functools.wraps(command)
    def with_changes(*arguments: object, **options: Any) -> object:  # noqa: ANN401 - of as many types as click has
        own = {name: options.pop(name) for name in _NAMES}
        return command(*arguments, changes=_changes(**own), **options)

    # Help lists first what was added last.
    decorated: object = functools.reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), with_changes)
    return cast("_Command", decorated)


_NAMES: Final = (
    *("change", "unset_env", "unset_label", "unset_volume", "unset_port"),
    *("env", "label", "cmd", "entrypoint", "workdir", "user"),
)


def _changes(
    *,
    change: tuple[str, ...],
    unset_env: tuple[str, ...],
    unset_label: tuple[str, ...],
    unset_volume: tuple[str, ...],
    unset_port: tuple[str, ...],
    env: tuple[tuple[str, str], ...],
    label: tuple[tuple[str, str], ...],
    cmd: str | None,
    entrypoint: str | None,
    workdir: str | None,
    user: str | None,
) -> ConfigChanges:
    from ocidiff.image.changes import ConfigChanges

    return ConfigChanges(
        instructions=change,
        unset_env=unset_env,
        unset_labels=unset_label,
        unset_volumes=unset_volume,
        unset_ports=unset_port,
        env=dict(env),
        labels=dict(label),
        cmd=cmd,
        entrypoint=entrypoint,
        workdir=workdir,
        user=user,
    )
