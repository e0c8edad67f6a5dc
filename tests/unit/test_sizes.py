"""Sizes for people."""

from __future__ import annotations

import pytest

from ocidiff.sizes import size, size_and_bound


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (5 * 10**15, "5000.0 TB")],
)
def test_a_size_has_a_unit(count: int, text: str) -> None:
    assert size(count) == text


def test_a_size_is_told_from_the_bound_that_it_passes() -> None:
    assert size_and_bound(328_797, 5000) == ("328.8 kB", "5.0 kB")
    assert size_and_bound(5001, 5000) == ("5001 B", "5000 B")
