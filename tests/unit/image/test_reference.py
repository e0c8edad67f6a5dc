"""References: what users may write, and what the layout gets."""

from __future__ import annotations

import pytest

from ocidiff.errors import UsageError
from ocidiff.image.reference import Reference

HEX = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "name", "tag", "digest"),
    [
        ("app", "app", "", None),
        ("app:v1", "app", "v1", None),
        ("host/app", "host/app", "", None),
        ("host:5000/app", "host:5000/app", "", None),
        ("host:5000/team/app:v1.2-rc+1", "host:5000/team/app", "v1.2-rc+1", None),
        (f"app@{HEX}", "app", "", HEX),
        (f"host:5000/app:v1@{HEX}", "host:5000/app", "v1", HEX),
        (HEX, "", "", HEX),
    ],
)
def test_a_reference_has_name_tag_and_digest(text: str, name: str, tag: str, digest: str | None) -> None:
    assert Reference.parse(text) == Reference(name, tag, digest)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "app:",
        ":v1",
        "/app",
        "app/",
        "a//b",
        "a b",
        "app\n",
        "a__b",
        "-a",
        "a-",
        "a..b",
        "docker://host/app",
        "é",
        ".",
        "@",
        "app@",
        "@" + HEX,
        "app@sha256:abc",
        "app@md5:00",
        "sha256:abc",
        HEX + "0",
        f"a@{HEX}@{HEX}",
        "a" * 256,
        "../x",
    ],
)
def test_text_of_another_form_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Reference.parse(text)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "stored"), [("app", "app:latest"), ("app:v1", "app:v1"), ("h:1/a", "h:1/a:latest")])
def test_a_stored_name_always_has_a_tag(text: str, stored: str) -> None:
    assert Reference.parse(text).stored_name == stored


def test_with_a_digest_any_tag_of_the_name_serves_if_none_is_given() -> None:
    assert [Reference.parse(f"app@{HEX}").covers(name) for name in ("app", "app:v1", "apple:v1")] == [True, True, False]
    assert [Reference.parse(f"app:v1@{HEX}").covers(name) for name in ("app", "app:v1")] == [False, True]
