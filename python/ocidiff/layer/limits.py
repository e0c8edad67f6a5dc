"""Limits of what a layer may hold, so that reading one is bounded."""

from __future__ import annotations

from dataclasses import replace

from ocidiff.errors import LimitExceededError, UsageError
from ocidiff.values import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a layer. The defaults are more than any honest layer takes.

    Attributes:
        max_bytes: Largest uncompressed size; None for no limit.
        max_entries: Largest number of entries; None for no limit.
        max_ratio: Most bytes of tar for each byte of blob, from 64 MiB of tar on; None for no limit. The default is one that
            gzip cannot reach.
        max_depth: Most components in the name of an entry. Larger than any tree seen in practice.
        max_header_bytes: Largest PAX or GNU header.

    Raises:
        UsageError: A value is outside its range.
    """

    max_bytes: int | None = 1 << 40
    max_entries: int | None = 10_000_000
    max_ratio: int | None = 1100
    max_depth: int = 16_384
    max_header_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        for name, least in (
            ("max_bytes", 0),
            ("max_entries", 0),
            ("max_ratio", 1),
            ("max_depth", 1),
            ("max_header_bytes", 1),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value < 1 << 63:
                raise UsageError(f"{name} {value}: takes {least} or more")

    def less(self, bytes_plain: int, entries: int) -> Limits:
        """Return what is left of them once a layer has taken so much.

        Raises:
            LimitExceededError: It has taken more.
        """
        for name, value, most in (("max_bytes", bytes_plain, self.max_bytes), ("max_entries", entries, self.max_entries)):
            if most is not None and value > most:
                raise LimitExceededError(f"limit {name} exceeded: {value} is more than the {most} left by the layers before")
        return self.after(bytes_plain, entries)

    def after(self, bytes_plain: int, entries: int) -> Limits:
        """Return the limits that are left after a layer."""
        return replace(
            self,
            max_bytes=None if self.max_bytes is None else max(0, self.max_bytes - bytes_plain),
            max_entries=None if self.max_entries is None else max(0, self.max_entries - entries),
        )
