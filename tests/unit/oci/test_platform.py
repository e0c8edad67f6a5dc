"""Platform: what a machine is called, and which image serves it."""

from __future__ import annotations

import os

import pytest

from ocidiff.errors import UsageError
from ocidiff.oci.platform import Platform, best_match


@pytest.mark.parametrize(
    ("machine", "expected"),
    [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64"), ("armv7l", "linux/arm/v7"), ("riscv64", "linux/riscv64")],
)
def test_a_machine_has_gos_name(machine: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", "6", "1", machine)))
    assert str(Platform.of_machine()) == expected


def test_a_platform_is_the_text_that_names_it() -> None:
    for text in ("linux/amd64", "linux/arm/v7", "windows/amd64"):
        assert str(Platform.of_text(text)) == text


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "Linux/amd64", "linux/amd64\n", "a b/c"]
)
def test_text_of_another_form_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="takes OS/ARCH"):
        Platform.of_text(text)


@pytest.mark.parametrize(
    ("there", "wanted", "expected"),
    [
        (["linux/arm64", "linux/amd64"], "linux/amd64", "linux/amd64"),
        (["linux/arm64/v8"], "linux/arm64", "linux/arm64/v8"),
        (["linux/arm64"], "linux/arm64/v8", "linux/arm64"),
        (["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], "linux/arm/v7", "linux/arm/v7"),
        (["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", "linux/arm/v6"),
        (["linux/arm/v7"], "linux/arm/v6", None),
        (["linux/arm"], "linux/arm/v7", "linux/arm"),
        (["linux/amd64/v3"], "linux/amd64", None),
        (["windows/amd64"], "linux/amd64", None),
        ([], "linux/amd64", None),
    ],
)
def test_the_best_image_is_chosen(there: list[str], wanted: str, expected: str | None) -> None:
    best = best_match([None, *map(Platform.of_text, there)], Platform.of_text(wanted))
    assert (None if best is None else there[best - 1]) == expected
