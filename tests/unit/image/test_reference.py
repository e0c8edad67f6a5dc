"""References: what users may write, and what the layout gets."""

from __future__ import annotations

import pytest

from ocidiff.errors import UsageError
from ocidiff.image.reference import Reference, is_same, spelling

HEX = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "name", "tag", "digest"),
    [
        ("app", "app", "", None),
        ("app:v1", "app", "v1", None),
        ("host/app", "host/app", "", None),
        ("host:5000/app", "host:5000/app", "", None),
        ("host:5000/team/app:v1.2-rc1", "host:5000/team/app", "v1.2-rc1", None),
        ("Registry.Example/app:V1", "Registry.Example/app", "V1", None),
        ("localhost/app", "localhost/app", "", None),
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
        "app:" + "v" * 129,
        "Img:V1",
        "team/App",
        "Team/app",
        "app:v1+build",
        "a+b",
        "team/a:b/c",
        "host:port/app",
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


def test_upper_case_is_answered_with_the_name_to_write() -> None:
    with pytest.raises(UsageError, match="no registry takes upper case in a name; write 'team/img:V1'"):
        Reference.parse("Team/Img:V1")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("foo:1", "docker.io/library/foo:1"),
        ("foo:1", "library/foo:1"),
        ("foo:1", "docker.io/foo:1"),
        ("foo", "index.docker.io/library/foo:latest"),
        ("team/foo:1", "docker.io/team/foo:1"),
        ("foo:latest", "foo"),
    ],
)
def test_names_that_a_registry_client_takes_for_one_are_one(one: str, other: str) -> None:
    assert is_same(one, other)
    assert is_same(other, one)
    assert set(Reference.parse(one).spellings) == set(Reference.parse(other).spellings)
    assert spelling(one, []) == spelling(other, [])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("foo:1", "foo:2"),
        ("foo:1", "quay.io/library/foo:1"),
        ("foo:1", "docker.io/team/foo:1"),
        ("localhost/foo:1", "docker.io/localhost/foo:1"),
        ("quay.io/foo:1", "docker.io/quay.io/foo:1"),
        ("foo", "foo:1"),
        ("foo", None),
    ],
)
def test_names_of_other_images_stay_apart(one: str, other: str | None) -> None:
    assert not is_same(one, other)


@pytest.mark.parametrize(
    ("text", "taken", "kept"),
    [
        ("app", [], "app:latest"),
        ("docker.io/library/app:v1", [], "app:v1"),
        ("app:v1", ["docker.io/library/app:v1"], "docker.io/library/app:v1"),
        ("docker.io/library/app:v1", ["app:v1", "docker.io/library/app:v1"], "docker.io/library/app:v1"),
        ("app:v1", ["app:v1", "docker.io/library/app:v1"], "app:v1"),
        ("v10", ["v8", "v9"], "v10"),
        ("v10:latest", ["v8", "v9"], "v10:latest"),
        ("v9", ["v9"], "v9"),
        ("v9:latest", ["v9"], "v9"),
        ("v10", ["v9", "app:v1"], "v10:latest"),
        ("app:v1", ["v9"], "app:v1"),
        ("team/app", ["v9"], "team/app:latest"),
    ],
)
def test_a_layout_keeps_its_spelling(text: str, taken: list[str], kept: str) -> None:
    assert spelling(text, taken) == kept


def test_each_spelling_of_a_name_is_a_name() -> None:
    for name in ("foo:1", "team/foo", "localhost/foo", "host:5000/team/foo:1"):
        for one in Reference.parse(name).spellings:
            assert spelling(one, []) == spelling(name, [])
