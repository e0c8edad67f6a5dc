"""Notify: tells systemd what state a service is in. Spec: sd_notify(3)."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(*lines: str) -> None:
    """Send lines such as `READY=1` to systemd, if it started this process and waits for them."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one:
        # A name that begins with @ is one of the abstract ones, which begin with NUL.
        one.sendto("\n".join(lines).encode(), "\0" + path[1:] if path.startswith("@") else path)
