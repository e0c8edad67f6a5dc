"""Configuration of containerd: the part that makes it use the plugin, and the whole that a running one has.

Spec: containerd, docs/man/containerd-config.toml.5.md, docs/PLUGINS.md, docs/transfer.md.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
import tomllib
from typing import Any, Final

from ocidiff.containerd.channel import DEFAULT_NAMESPACE, Channel
from ocidiff.oci.platform import Platform

PLUGIN: Final = "ocidiff"
DIFF_SERVICE: Final = "io.containerd.service.v1.diff-service"
TRANSFER: Final = "io.containerd.transfer.v1.local"
OWN_DIFFER: Final = "walking"

_DEFAULT_FILE: Final = "/etc/containerd/config.toml"
_SECONDS: Final = 30.0
# Process, user and group at the other end of a socket. Spec: unix(7), SO_PEERCRED.
_CREDENTIALS: Final = struct.Struct("3i")


def version_of(address: str) -> str:
    """Return the version of the containerd at this socket, as it tells it.

    Raises:
        OSError: None answers there.
    """
    channel = Channel.connect(address, DEFAULT_NAMESPACE)
    try:
        return str(channel.call("version.v1.Version/Version").version)
    finally:
        channel.close()


def numbers_of(version: str) -> tuple[int, int, int]:
    """Return the numbers of a version; zeros for one that is not understood."""
    found = re.match(r"v?([0-9]{1,9})\.([0-9]{1,9})\.([0-9]{1,9})", version)
    return (int(found[1]), int(found[2]), int(found[3])) if found else (0, 0, 0)


def configuration_for(version: str | None, plugin_socket: str) -> str:
    """Return what the configuration of containerd needs.

    Args:
        version: Its version; None for one that is not known, which counts as 2.
        plugin_socket: Path of the plugin's socket.
    """
    form = 2 if version is not None and numbers_of(version)[0] == 1 else 3
    return f"""\
# For containerd {version or "2"}. Save it as a file that `imports` in {_DEFAULT_FILE} names, and restart containerd.
version = {form}

[proxy_plugins.{PLUGIN}]
  type = "diff"
  address = "{plugin_socket}"

# Commits and unpacks of clients: ocidiff is asked first, and containerd's own differ where ocidiff does not do it.
[plugins."{DIFF_SERVICE}"]
  default = ["{PLUGIN}", "{OWN_DIFFER}"]

# Pulls and unpacks inside containerd (the transfer service), which ask one differ only. Encrypted layers then fail:
# leave this out if there are any.
[[plugins."{TRANSFER}".unpack_config]]
  platform = "{Platform.of_machine()}"
  snapshotter = "overlayfs"
  differ = "{PLUGIN}"
"""


def loaded_configuration(address: str) -> tuple[str, dict[str, Any]] | None:
    """Return the path of the configuration that the containerd at this socket uses, and what is in it, imports included.

    None if its process or its file cannot be seen from here.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.connect(address.removeprefix("unix://"))
        process, _, _ = _CREDENTIALS.unpack(one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if not process:
        return None
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            words = list(map(os.fsdecode, file.read().rstrip(b"\0").split(b"\0")))
        path = _file_of(words)
        # The program that runs, also where another one was installed since.
        dumped = subprocess.run(  # noqa: S603 - containerd, as root started it
            [f"/proc/{process}/exe", "--config", path, "config", "dump"],
            capture_output=True,
            timeout=_SECONDS,
            check=True,
        )
        return path, tomllib.loads(dumped.stdout.decode())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _file_of(words: list[str]) -> str:
    """Return the configuration file that the words of a command name."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in {"--config", "-config", "-c", "--c"}:
            return value if equals else following
    return _DEFAULT_FILE
