"""Printable: texts of others, such as names of files, made safe to show."""

from __future__ import annotations

from typing import Final

_SURROGATES: Final = range(0xDC80, 0xDD00)


def printable(text: str) -> str:
    """The text with every character escaped that would break the line or steer a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def shortened(text: str, longest: int) -> str:
    """The text as `printable` has it, without its middle if it has more characters than `longest`."""
    # Escaping makes a text longer, never shorter.
    if len(text) > 2 * longest:
        text = text[:longest] + text[-longest:]
    text = printable(text)
    return text if len(text) <= longest else f"{text[: longest // 2]}…{text[-(longest // 2) :]}"


def _escape(char: str) -> str:
    if ord(char) in _SURROGATES:
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")
