"""Quantities: the ports, signals and durations that instructions name, read as Docker reads them. Pure."""

from __future__ import annotations

import re
from typing import Final

from ocidiff.errors import UsageError
from ocidiff.image.dockerfile import upper
from ocidiff.oci.timestamp import NS_PER_SECOND

_PROTOCOLS: Final = ("tcp", "udp", "sctp")
_MAX_PORT: Final = 65535
_MAX_INT64: Final = (1 << 63) - 1
_MAX_RETRIES: Final = (1 << 31) - 1
_NS_PER_MS: Final = 10**6
_UNITS: Final = {
    "ns": 1,
    "us": 10**3,
    "\xb5s": 10**3,
    "\u03bcs": 10**3,
    "ms": 10**6,
    "s": NS_PER_SECOND,
    "m": 60 * NS_PER_SECOND,
    "h": 3600 * NS_PER_SECOND,
}
# The names of Linux; the numbers differ by architecture, and only the name is stored.
_SIGNALS: Final = frozenset(
    {
        *(
            "ABRT",
            "ALRM",
            "BUS",
            "CHLD",
            "CLD",
            "CONT",
            "FPE",
            "HUP",
            "ILL",
            "INT",
            "IO",
            "IOT",
            "KILL",
            "PIPE",
            "POLL",
            "PROF",
        ),
        *("PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2"),
        *("VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX"),
        *(f"RTMIN+{number}" for number in range(1, 16)),
        *(f"RTMAX-{number}" for number in range(1, 15)),
    }
)


def port_keys(text: str) -> list[str]:
    """Return the keys of the ports that `[[IP:]HOST:]PORT[-PORT][/PROTOCOL]` names: those of the container.

    Raises:
        UsageError: The text has another form, or a port is larger than 65535.
    """
    host, _, port = text.rpartition(":")
    ports, _, protocol = port.partition("/")
    protocol = (protocol or "tcp").lower()
    if protocol not in _PROTOCOLS:
        raise UsageError(f"port {text[:100]!r}: protocol must be {', '.join(_PROTOCOLS)}")
    first, last = _port_range(ports, text)
    address, _, host_ports = host.rpartition(":")
    if host_ports:
        host_first, host_last = _port_range(host_ports.partition("/")[0], text)
        if last != first and last - first != host_last - host_first:
            raise UsageError(f"port {text[:100]!r}: ranges of different lengths")
    if address:
        _check_address(address, text)
    return [f"{number}/{protocol}" for number in range(first, last + 1)]


def _port_range(text: str, where: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    numbers = [_port(first, where), _port(last if dash else first, where)]
    if numbers[1] < numbers[0]:
        raise UsageError(f"port {where[:100]!r}: the range begins above its end")
    return numbers[0], numbers[1]


def _port(text: str, where: str) -> int:
    digits = text.lstrip("0")
    if not text.isascii() or not text.isdecimal() or len(digits) > 5 or int(digits or "0") > _MAX_PORT:
        raise UsageError(f"port {where[:100]!r}: must be a number up to {_MAX_PORT}, or a range")
    return int(digits or "0")


def _check_address(text: str, where: str) -> None:
    from ipaddress import ip_address

    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        ip_address(inner)
    except ValueError:
        raise UsageError(f"port {where[:100]!r}: invalid IP address") from None


def check_signal(text: str) -> str:
    """Return the name or number of a signal as it is.

    Raises:
        UsageError: There is no such signal.
    """
    if re.fullmatch(r"[+-]?[0-9]{1,30}", text):
        known = int(text) != 0 and -_MAX_INT64 - 1 <= int(text) <= _MAX_INT64
    else:
        known = upper(text).removeprefix("SIG") in _SIGNALS
    if not known:
        raise UsageError(f"invalid signal: {text[:100]!r}")
    return text


def duration(name: str, text: str) -> int:
    """Return the nanoseconds that `1h30m`, `500ms` or `0` stand for.

    Args:
        name: The option, for messages.
        text: Numbers, each with its unit: ns, us, ms, s, m, h.

    Raises:
        UsageError: The text has another form, or is less than 1 ms and not 0.
    """
    match = re.fullmatch(r"([+-]?)(0|(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)[^0-9.]+)+)", text, re.ASCII)
    if match is None:
        raise UsageError(f"option --{name}: invalid duration: {text[:100]!r}")
    total = 0
    for whole, fraction, unit in re.findall(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]+)", match[2], re.ASCII):
        if unit not in _UNITS:
            raise UsageError(f"option --{name}: invalid unit: {unit[:20]!r}: must be one of {', '.join(_UNITS)}")
        # Of more digits than these the duration is too long anyway; of a fraction they are less than a nanosecond.
        count, digits = whole.lstrip("0")[:20], fraction[:18]
        total += int(count or "0") * _UNITS[unit] + int(digits or "0") * _UNITS[unit] // 10 ** len(digits)
    if total > _MAX_INT64:
        raise UsageError(f"option --{name}: too long: {text[:100]!r}")
    if total and (match[1] == "-" or total < _NS_PER_MS):
        raise UsageError(f"option --{name}: must be 0 or at least 1ms")
    return total


def retries(text: str) -> int:
    """Return the number of retries.

    Raises:
        UsageError: It is not a number from 0 to 2147483647.
    """
    if not re.fullmatch(r"[+-]?[0-9]{1,30}", text) or not 0 <= int(text) <= _MAX_RETRIES:
        raise UsageError(f"option --retries: {text[:100]!r}: must be a number from 0 to {_MAX_RETRIES}")
    return int(text)
