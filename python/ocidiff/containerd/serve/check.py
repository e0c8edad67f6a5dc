"""Check: what keeps containerd from using the plugin, in sentences."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any, Final

from ocidiff.containerd.channel import DEFAULT_NAMESPACE, Channel
from ocidiff.containerd.serve.config import (
    DIFF_SERVICE,
    OWN_DIFFER,
    PLUGIN,
    TRANSFER,
    loaded_configuration,
    numbers_of,
    version_of,
)
from ocidiff.containerd.serve.health import is_serving
from ocidiff.errors import OcidiffError, reason

_FIRST: Final = (1, 7, 4)


def problems(address: str, plugin_socket: str) -> Iterator[str]:
    """Yield what is wrong, the most important first.

    Args:
        address: Socket of containerd.
        plugin_socket: Path of the plugin's socket.
    """
    yield from _of_server(plugin_socket)
    try:
        version = version_of(address)
    except (OcidiffError, OSError) as error:
        yield f"containerd does not answer: {reason(error)}."
        return
    numbers = numbers_of(version)
    if numbers < _FIRST:
        yield f"containerd {version} takes no differs from outside: 1.7.4 or newer is needed."
        return
    found = loaded_configuration(address)
    if found is None:
        yield "The configuration of containerd cannot be seen from here: run the check where containerd runs, as root."
    else:
        yield from _of_configuration(*found, plugin_socket)
    yield from _of_plugins(address, found is not None and PLUGIN in _plugins(found[1], plugin_socket))


def _of_server(plugin_socket: str) -> Iterator[str]:
    try:
        mode = os.lstat(plugin_socket).st_mode
    except OSError as error:
        yield f"The server does not run: {plugin_socket}: {error.strerror}. Start it: ocidiff serve --socket {plugin_socket}"
        return
    if stat.S_IMODE(mode) & 0o077:
        yield f"Others than the owner may use {plugin_socket}, and so read any directory: chmod 600 {plugin_socket}"
    if not is_serving(plugin_socket):
        yield f"The server at {plugin_socket} does not answer: start it again, and look into its log."


def _of_configuration(path: str, document: dict[str, Any], plugin_socket: str) -> Iterator[str]:
    if not _plugins(document, plugin_socket):
        others = [one.get("address") for one in document.get("proxy_plugins", {}).values() if one.get("type") == "diff"]
        there = f" (it has {', '.join(map(str, others))})" if others else ""
        yield (
            f"{path} has no [proxy_plugins.{PLUGIN}] of type diff with the address {plugin_socket}{there}: "
            "add what `ocidiff serve --print-config` prints."
        )
        return
    name = next(iter(_plugins(document, plugin_socket)))
    plugins = document.get("plugins", {})
    order = plugins.get(DIFF_SERVICE, {}).get("default", [])
    if name not in order:
        yield f'{path}: `default` of "{DIFF_SERVICE}" is {order} and lacks {name!r}: clients do not use the plugin.'
    elif order[0] != name:
        yield f'{path}: `default` of "{DIFF_SERVICE}" asks {order[0]!r} first, so that {name!r} is hardly ever asked.'
    elif OWN_DIFFER not in order:
        yield f'{path}: `default` of "{DIFF_SERVICE}" lacks {OWN_DIFFER!r}: what the plugin leaves to others fails.'
    disabled = document.get("disabled_plugins", [])
    unpacks = plugins.get(TRANSFER, {}).get("unpack_config") or []
    if TRANSFER not in disabled and name not in [one.get("differ") for one in unpacks]:
        yield f'{path}: no `unpack_config` of "{TRANSFER}" has differ = "{name}": pulls inside containerd do not use it.'
    root = document.get("root", "/")
    try:
        os.stat(root)
    except OSError as error:
        yield f"{root}: {error.strerror}: the plugin must see containerd's directories under the same paths."


def _of_plugins(address: str, is_configured: bool) -> Iterator[str]:
    channel = Channel.connect(address, DEFAULT_NAMESPACE)
    try:
        loaded = [one.id for one in channel.call("introspection.v1.Introspection/Plugins").plugins if "differ" in one.type]
    except (OcidiffError, OSError) as error:
        yield f"containerd does not tell its plugins: {reason(error)}."
        return
    finally:
        channel.close()
    if is_configured and PLUGIN not in loaded:
        yield "containerd has not loaded the plugin: restart it, since its configuration was changed after its start."


def _plugins(document: dict[str, Any], plugin_socket: str) -> list[str]:
    """Return the names of the proxy plugins that lead to the socket."""
    found = document.get("proxy_plugins", {}).items()
    return [
        name
        for name, one in found
        if one.get("type") == "diff" and one.get("address", "").removeprefix("unix://") == plugin_socket
    ]
