"""`ocidiff serve`: the plugin that does containerd's diffs and unpacks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from ocidiff.cli.cache import cache_options
from ocidiff.cli.options import engine_option, reuse_option, size_option
from ocidiff.cli.settings import Settings, common, pass_settings
from ocidiff.cli.streams import complain, emit
from ocidiff.errors import reason

if TYPE_CHECKING:
    from ocidiff.layer.options import EngineName

_SOCKET = "/run/ocidiff/ocidiff.sock"
_ADDRESS = "/run/containerd/containerd.sock"


@click.command("serve", epilog="Example: ocidiff serve --print-config >/etc/containerd/conf.d/ocidiff.toml")
@click.option(
    "--socket", metavar="PATH", type=click.Path(), default=_SOCKET, show_default=True, help="Socket that containerd calls."
)
@click.option(
    "--slots", type=click.IntRange(1, 1024), metavar="N", help="Calls that run at once.  [default: the number of cores]"
)
@click.option(
    "--queue",
    type=click.IntRange(0, 4096),
    default=64,
    show_default=True,
    metavar="N",
    help="Calls that wait for a slot at most; more are refused.",
)
@size_option("--memory", "memory_bytes", "Memory that all calls share.  [default: 128MiB for each slot]")
@click.option("--metrics", metavar="HOST:PORT|FILE", help="Serve Prometheus metrics at an address, or keep them in a file.")
@click.option("--print-config", is_flag=True, help="Print what the configuration of containerd needs, and end.")
@click.option("--check", is_flag=True, help="Say what keeps containerd from using the plugin, and end.")
@reuse_option
@engine_option
@cache_options
@common("containerd", "address", "namespace")
@pass_settings
def command(
    settings: Settings,
    socket: str,
    slots: int | None,
    queue: int,
    memory_bytes: int | None,
    metrics: str | None,
    print_config: bool,
    check: bool,
    reuse: str,
    engine: EngineName | None,
) -> None:
    """Serve containerd's diffs and unpacks.

    Runs until SIGTERM. SIGHUP starts a new server with the same words, which takes over with no call lost. Needs root.
    """
    address, socket = settings.address or os.environ.get("CONTAINERD_ADDRESS") or _ADDRESS, os.path.abspath(socket)
    if print_config:
        emit(_configuration(address, socket))
    elif check:
        _check(address, socket)
    else:
        from ocidiff.containerd.segment_cache import CacheDirectory, default_directory
        from ocidiff.containerd.serve import server

        cache = (settings.cache or default_directory()) if reuse == "auto" else None
        if settings.cache and cache is not None:
            # On a full disk the server does without, and says so in its log.
            CacheDirectory(cache).fits()
        server.serve(
            server.Settings(
                address=address,
                namespace=settings.namespace,
                socket=socket,
                slots=slots,
                queue=queue,
                memory_bytes=memory_bytes,
                metrics=metrics,
                engine=engine,
                cache=cache,
                cache_bytes=settings.cache_bytes,
            )
        )


def _configuration(address: str, socket: str) -> str:
    from ocidiff.containerd.serve import config

    version = None
    try:
        version = config.version_of(address)
    except OSError as error:
        complain(f"warning: {reason(error)}; printed for containerd 2")
    return config.configuration_for(version, socket).rstrip()


def _check(address: str, socket: str) -> None:
    from ocidiff.containerd.serve.check import problems

    found = list(problems(address, socket))
    for problem in found:
        emit(problem)
    if found:
        click.get_current_context().exit(1)
    emit("containerd uses the plugin.")
