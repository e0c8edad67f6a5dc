"""Sizes: how numbers of bytes and of things are written for people."""

from __future__ import annotations


def size(count: int) -> str:
    """Return a number of bytes for people, in powers of 1000."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.95 or unit == "TB":
            break
        value /= 1000
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def size_and_bound(count: int, bound: int) -> tuple[str, str]:
    """Return a size and the bound that it passes: in bytes where both would look the same."""
    texts = size(count), size(bound)
    return texts if texts[0] != texts[1] else (f"{count} B", f"{bound} B")


def counted(count: int, one: str, many: str = "") -> str:
    """Return a number of things: `1 layer`, `2 layers`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
