"""Times are written as Go writes them."""

from __future__ import annotations

import pytest

from ocidiff.oci.timestamp import is_timestamp, timestamp


@pytest.mark.parametrize(
    ("time_ns", "expected"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_700_000_000_000_000_000, "2023-11-14T22:13:20Z"),
        (1_700_000_100_000_000_001, "2023-11-14T22:15:00.000000001Z"),
        (1_700_000_000_120_000_000, "2023-11-14T22:13:20.12Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (253_402_300_799 * 10**9, "9999-12-31T23:59:59Z"),
    ],
)
def test_a_time_has_gos_form(time_ns: int, expected: str) -> None:
    assert timestamp(time_ns) == expected
    assert is_timestamp(expected)


@pytest.mark.parametrize(
    "text",
    ["", "2023-11-14", "2023-11-14 22:13:20Z", "2023-11-14T22:13:20", "2023-11-14T24:00:00Z", "2023-11-14T22:13:20.Z"],
)
def test_what_is_no_rfc_3339_time_is_told_apart(text: str) -> None:
    assert not is_timestamp(text)
