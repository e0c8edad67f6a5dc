"""The settings of every command: the options that all of them take, and the store that they name."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click

import ocidiff

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]

FAILED_STATUS: Final = "ocidiff.failed"
"""Key of `click.Context.meta`: exit status of a failure, if the command has its own."""

CONTAINERD: Final = "containerd:"
"""Before the name of an image or a container: it is in containerd."""

PROGRESS: Final = ("auto", "tty", "plain", "json", "none")


class Settings:
    """Options of every command, given before it or after it.

    Attributes:
        store: Directory of the local store, as given.
        json: True if the result is written as JSON.
        quiet: True if stderr is for errors only.
        progress: How progress is shown: one of `PROGRESS`.
        verbose: True if a summary goes to stderr.
        containerd: True if the images are in containerd.
        cache: Directory of the cache of segments, as given.
        cache_bytes: Its size at most, as given.
        address: Path of its socket, as given.
        namespace: Its namespace, as given.
        snapshotter: Its snapshotter, as given.
    """

    __slots__ = (
        "address",
        "cache",
        "cache_bytes",
        "containerd",
        "json",
        "namespace",
        "progress",
        "quiet",
        "snapshotter",
        "store",
        "verbose",
    )

    def __init__(
        self,
        *,
        store: str | None = None,
        json: bool = False,
        quiet: bool = False,
        progress: str = "auto",
        verbose: bool = False,
    ) -> None:
        self.store = store
        self.json = json
        self.quiet = quiet
        self.progress = progress
        self.verbose = verbose
        self.containerd = False
        self.address: str | None = None
        self.namespace: str | None = None
        self.snapshotter: str | None = None
        self.cache: str | None = None
        self.cache_bytes: int | None = None

    def is_containerd(self, *names: str) -> bool:
        """True if an option or these names say that the images are in containerd.

        Raises:
            UsageError: Some of the names say so, others do not.
        """
        named = [name.startswith(CONTAINERD) for name in names]
        is_chosen = self.containerd or bool(self.address or self.namespace or self.snapshotter)
        if any(named) and not all(named) and not is_chosen:
            raise click.UsageError("names in the local store and in containerd cannot be mixed in one command")
        return is_chosen or any(named)

    def check_new_name(self, name: str, *, in_containerd: bool) -> None:
        """Refuse a new name in containerd for what is in the local store.

        Raises:
            UsageError: It is one.
        """
        if name.startswith(CONTAINERD) and not in_containerd:
            raise click.UsageError(
                f"{name}: an image of the local store cannot get a name in containerd; use `ocidiff copy`"
            )

    def open_store(self, *names: str, create: bool = False) -> ocidiff.Store:
        """Open the store in which these images or containers are.

        Raises:
            UsageError: It is the local one, and an option is for containerd only.
        """
        if self.is_containerd(*names):
            cache, size = self.cache, self.cache_bytes
            return ocidiff.Store.containerd(
                self.address, self.namespace, snapshotter=self.snapshotter, cache=cache, cache_bytes=size
            )
        if self.cache is not None or self.cache_bytes is not None:
            raise click.UsageError("--cache and --cache-size are for images in containerd")
        return ocidiff.Store.open(self.store_path(), create=create)

    def chosen_store(self) -> str | None:
        """The directory that an option or the environment names; None for the default one."""
        return self.store or os.environ.get("OCIDIFF_STORE") or None

    def store_path(self) -> str:
        """The directory of the local store. Spec: XDG base directories, "a relative path is to be ignored"."""
        if self.is_containerd():
            raise click.UsageError("containerd: not supported by this command, which works on the local store")
        if chosen := self.chosen_store():
            return chosen
        data = os.environ.get("XDG_DATA_HOME", "")
        return os.path.join(data if os.path.isabs(data) else os.path.expanduser("~/.local/share"), "ocidiff")


pass_settings = click.make_pass_decorator(Settings, ensure=True)


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    # A default must not undo what was given before the command.
    if value:
        setattr(context.ensure_object(Settings), parameter.name or "", value)


_COMMON: Final[dict[str, Callable[..., Decorator[Any]]]] = {
    "store": functools.partial(
        click.option,
        "--store",
        metavar="DIR",
        type=click.Path(),
        help="The local store: an OCI image layout.  [default: $OCIDIFF_STORE, else $XDG_DATA_HOME/ocidiff]",
    ),
    "containerd": functools.partial(click.option, "--containerd", is_flag=True, help="The images of containerd."),
    "address": functools.partial(
        click.option,
        "--address",
        metavar="SOCKET",
        help="The socket of containerd.  [default: $CONTAINERD_ADDRESS, else /run/containerd/containerd.sock]",
    ),
    "namespace": functools.partial(
        click.option,
        "--namespace",
        metavar="NAME",
        help="Its namespace.  [default: $CONTAINERD_NAMESPACE, else default; commit-pod: k8s.io; serve: the caller's]",
    ),
    "snapshotter": functools.partial(
        click.option,
        "--snapshotter",
        metavar="NAME",
        help="Its snapshotter for images of directories.  [default: overlayfs]",
    ),
    "json": functools.partial(click.option, "--json", is_flag=True, help="Write the result as JSON."),
    "quiet": functools.partial(click.option, "-q", "--quiet", is_flag=True, help="No progress and no warnings."),
    "progress": functools.partial(
        click.option,
        "--progress",
        type=click.Choice(PROGRESS),
        help="How progress is shown on stderr.  [default: auto, a bar on a terminal and none elsewhere]",
    ),
    "verbose": functools.partial(click.option, "-v", "--verbose", is_flag=True, help="Say on stderr what was done."),
}


def common(*shown: str, without: Sequence[str] = ()) -> Callable[[Command], Command]:
    """Add the options that every command takes.

    Args:
        shown: Options that its help lists; the others are taken too.
        without: Options that mean something else to this command.
    """
    options = [
        option(expose_value=False, callback=_keep, hidden=name not in shown)
        for name, option in _COMMON.items()
        if name not in without
    ]
    return lambda command: decorated(command, *options)


def decorated(command: Command, *options: Decorator[Any]) -> Command:
    """Return the command with these options, which its help lists in this order."""
    # Help lists first what was added last.
    return functools.reduce(lambda decorated, option: option(decorated), reversed(options), command)
