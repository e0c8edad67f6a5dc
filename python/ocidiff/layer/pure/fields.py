"""The fields of a header block and of its records, as they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ocidiff.layer.pure import sentences
from ocidiff.oci.timestamp import NS_PER_SECOND

_MAX_DIGITS: Final = 19  # of what fits into 64 bits with a sign
_LEAST: Final = -(1 << 63)
_MOST: Final = (1 << 63) - 1


class FieldError(Exception):
    """A fault in a header, without the place."""


def string(text: bytes) -> bytes:
    """The bytes before the first NUL."""
    return text.split(b"\0", 1)[0]


def decimal(text: bytes) -> int | None:
    """Decimal digits with an optional minus, and nothing else; None for what is no such number of 64 bits."""
    digits = text.removeprefix(b"-")
    if not digits.isdigit():
        return None
    digits = digits.lstrip(b"0") or b"0"
    if len(digits) > _MAX_DIGITS:
        return None
    value = -int(digits) if text.startswith(b"-") else int(digits)
    return value if _LEAST <= value <= _MOST else None


def time(text: bytes) -> int | None:
    """Nanoseconds of decimal seconds with an optional fraction, of which nine digits count; None for what is no time."""
    seconds, _, fraction = text.partition(b".")
    whole = decimal(seconds)
    if whole is None or not (fraction + b"0").isdigit():
        return None
    nanoseconds = int(fraction[:9].ljust(9, b"0"))
    found = whole * NS_PER_SECOND + (-nanoseconds if seconds.startswith(b"-") else nanoseconds)
    return found if found >= _LEAST * NS_PER_SECOND else None


def number(text: bytes) -> int | None:
    """An octal field, or one in base 256 as GNU writes large and negative numbers; None for what is no number of 64 bits."""
    if text[0] & 0x80:
        value = int.from_bytes(bytes([text[0] & 0x7F]) + text[1:])
        if text[0] & 0x40:
            value -= 1 << (8 * len(text) - 1)
        return value if _LEAST <= value <= _MOST else None
    digits = string(text.strip(b" \0"))
    if digits.strip(b"01234567"):
        return None
    return int(digits or b"0", 8)


@dataclass(slots=True)
class Fields:
    """The numbers of a header block, and the directory part that its format adds to the name.

    Attributes:
        atime: Access time, which GNU tar and star can store in the block itself.
        device: Major and minor number; 0 in old tar, which has none.
        prefix: Directory part of the name; empty for none.
    """

    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    atime: int | None = None
    device: tuple[int, int] = (0, 0)
    prefix: bytes = b""


def read_fields(block: bytes) -> Fields:
    """The fields of a header block.

    Raises:
        FieldError: One is not what it must be.
    """

    def at(start: int, end: int, what: str) -> int:
        value = number(block[start:end])
        if value is None:
            raise FieldError(sentences.FIELD_IS_NO_NUMBER.format(field=what))
        return value

    fields = Fields(
        at(100, 108, "mode"), at(108, 116, "uid"), at(116, 124, "gid"), at(124, 136, "size"), at(136, 148, "mtime")
    )
    is_ustar, is_gnu = block[257:263] == b"ustar\0", block[257:265] == b"ustar  \0"
    if is_ustar or is_gnu:
        fields.device = (at(329, 337, "devmajor"), at(337, 345, "devminor"))
    if is_gnu:
        _read_gnu(fields, block)
    elif is_ustar and block[508:512] == b"tar\0":
        fields.prefix = string(block[345:476])
        fields.atime = at(476, 488, "atime")
        at(488, 500, "ctime")
    elif is_ustar:
        fields.prefix = string(block[345:500])
    return fields


def _read_gnu(fields: Fields, block: bytes) -> None:
    """Read what GNU tar has in the place of a prefix: two times.

    Go before 1.8, and with it Docker before 17.06, wrote a prefix there, which reads as no time. Go's `archive/tar` still
    reads those.
    """
    times = [0 if not block[start] else number(block[start : start + 12]) for start in (345, 357)]
    if None not in times:
        fields.atime = times[0] if block[345] else None
        return
    prefix = string(block[345:500])
    if prefix.isascii():
        fields.prefix = prefix
