"""Answers of a registry byte for byte: slow ones, endless ones, and ones that come before the request was read."""

from __future__ import annotations

import re
import socket
import struct
import time
from itertools import chain, repeat

from support.registries import BLOB, Fault, Handler

SECONDS_BETWEEN_BYTES = 0.03
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

DRIPS = {
    "headers": (b"", HEAD),
    "body": (HEAD + b"\r\n", b""),
    "body of a connection that ends": (HEAD + b"Connection: close\r\n\r\n", b""),
    "chunks": (CHUNKED, b""),
}
"""What comes at once, and what comes byte by byte before an endless row of ones."""

FLOODS = {
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "103 Early Hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-More: %s\r\n" % (b"x" * 1000)),
    "a header without an end": (b"HTTP/1.1 200 OK\r\nX-More: ", b"x" * 1000),
    "a status without an end": (b"HTTP/1.1 200 ", b"x" * 1000),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"X-More: %s\r\n" % (b"x" * 1000)),
    "names of chunks": (CHUNKED, b"1;%s\r\nx\r\n" % (b"x" * 1000)),
}
"""What comes first, and what then comes without end."""


def _matches(handler: Handler, method: str, pattern: str) -> bool:
    return handler.command == method and re.search(pattern, handler.path) is not None


def drips(kind: str, method: str, pattern: str) -> Fault:
    """Send an answer byte by byte, without end."""
    first, slow = DRIPS[kind]

    def fault(handler: Handler) -> bool:
        if not _matches(handler, method, pattern):
            return False
        handler.close_connection = True
        blob = BLOB.fullmatch(handler.path)
        size = len(handler.registry.blobs[blob[1], blob[2]]) if blob else 1_000_000
        handler.connection.sendall(first.replace(b"%d", str(size).encode()))
        for byte in chain(slow.replace(b"%d", b"1000"), repeat(ord("1"))):
            handler.connection.sendall(bytes([byte]))
            time.sleep(SECONDS_BETWEEN_BYTES)
        return True

    return fault


def floods(kind: str, method: str, pattern: str) -> Fault:
    """Send more and more of what is no body, without end."""
    first, more = FLOODS[kind]

    def fault(handler: Handler) -> bool:
        if not _matches(handler, method, pattern):
            return False
        handler.close_connection = True
        handler.connection.sendall(first)
        while True:
            handler.connection.sendall(more * 64)

    return fault


def _reset(handler: Handler) -> None:
    """End the connection with a reset, as a server does that closes it with bytes unread."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def answers_early(status: int, method: str, pattern: str, times: int, *, wait: float, **headers: str) -> Fault:
    """Answer a request before its body was read, and reset the connection after a while."""
    left = [times]

    def fault(handler: Handler) -> bool:
        if not _matches(handler, method, pattern) or left[0] <= 0:
            return False
        left[0] -= 1
        handler.error(status, "FAULT", "on demand", **headers)
        handler.wfile.flush()
        time.sleep(wait)
        _reset(handler)
        return True

    return fault
