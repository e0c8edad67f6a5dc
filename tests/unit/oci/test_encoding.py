"""JSON: ambiguous documents are refused, and what is written has Go's bytes."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocidiff.errors import DocumentError
from ocidiff.oci import encoding
from ocidiff.oci.encoding import MAX_DEPTH, MAX_DOCUMENT_BYTES, Members, compact, indented, parse_object


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b'{"a":1,"a":1}', "occurs twice"),
        (b'{"a":{"b":1,"c":2,"b":3}}', "'b' occurs twice"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":-Infinity}', "Infinity"),
        (b'{"a":1e999}', "too large"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"\\udfff":1}', "surrogate"),
        (b'\xef\xbb\xbf{"a":1}', "BOM"),
        (b'{"a":"\xff"}', "utf-8"),
        ('{"a":1}'.encode("utf-16"), "utf-8"),
        (b'{"a":1} {"b":2}', "Extra data"),
        (b'{"a":' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a":' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"}", "deep"),
        (b'{"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}", "deep"),
        (b'{"a":"' + b" " * MAX_DOCUMENT_BYTES + b'"}', "limit"),
    ],
)
def test_an_ambiguous_or_excessive_document_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(DocumentError, match=problem) as caught:
        parse_object(data, "index.json")
    assert str(caught.value).startswith("index.json: ")


class _Name(str):
    """A member name that counts how often it is compared."""

    __slots__ = ()
    __hash__ = str.__hash__
    compared = 0

    def __eq__(self, other: object) -> bool:
        _Name.compared += 1
        return str.__eq__(self, other)


def test_a_member_that_occurs_twice_is_found_in_linear_time() -> None:
    def comparisons(count: int) -> int:
        _Name.compared = 0
        with pytest.raises(ValueError, match="'z' occurs twice"):
            encoding._unique([(_Name(name), 0) for name in [*(f"k{number}" for number in range(count)), "z", "z"]])
        return _Name.compared

    assert comparisons(20_000) <= 11 * comparisons(2_000)


@pytest.mark.parametrize("twice", [str, str.upper])
def test_a_message_does_not_repeat_a_long_name(twice: Callable[[str], str]) -> None:
    def read(text: str) -> None:
        members = Members(parse_object(text.encode(), "it"), "it")
        members.size("k" * 100_000)
        members.rest()

    name = "k" * 100_000
    with pytest.raises(DocumentError) as caught:
        read(f'{{"{name}":1,"{twice(name)}":2}}')
    assert len(str(caught.value)) < 300


def test_a_document_of_the_greatest_depth_is_read() -> None:
    data = b'{"a":' + b"[" * (MAX_DEPTH - 2) + b"]" * (MAX_DEPTH - 2) + b"}"
    assert parse_object(data, "here") == json.loads(data)


def test_strings_are_escaped_as_go_does() -> None:
    text = '<a href="x">&</a>\u2028\u2029\x00\x1f\x7f\b\f\n\r\té€𝄞\\/'
    expected = (
        '{"k":"\\u003ca href=\\"x\\"\\u003e\\u0026\\u003c/a\\u003e\\u2028\\u2029\\u0000\\u001f\x7f\\b\\f\\n\\r\\té€𝄞\\\\/"}'
    )
    assert compact({"k": text}) == expected.encode()


def test_indented_documents_look_like_gos() -> None:
    assert indented({"a": [], "b": [1, {"c": "d"}], "e": {}}) == (
        b'{\n    "a": [],\n    "b": [\n        1,\n        {\n            "c": "d"\n        }\n    ],\n    "e": {}\n}'
    )


_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
_values = st.recursive(_scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(st.dictionaries(st.text(), _values))
def test_what_is_written_is_read_back_the_same(document: dict[str, object]) -> None:
    assert parse_object(compact(document), "it") == document
    assert parse_object(indented(document), "it") == document


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_as_a_document(data: bytes) -> None:
    try:
        parse_object(data, "it")
    except DocumentError:
        return
    json.loads(data)


@pytest.mark.parametrize("size", ["-1", "1.0", "1.5", "9223372036854775808", '"1"', "true", "null", "[]"])
def test_a_size_is_a_natural_number_of_63_bits(size: str) -> None:
    members = Members(parse_object(f'{{"size":{size}}}'.encode(), "it"), "it")
    with pytest.raises(DocumentError, match="size is not a size"):
        members.size("size")


def test_null_counts_as_absent() -> None:
    members = Members({"text": None, "list": None, "map": None, "other": None}, "it")
    assert (members.text("text"), members.texts("list"), dict(members.text_map("map"))) == ("", (), {})
    assert not members.rest()


def test_a_member_that_go_would_take_for_a_known_one_is_refused() -> None:
    members = Members({"layers": [], "Layers": []}, "it")
    members.texts("layers")
    with pytest.raises(DocumentError, match="'Layers' differs from a known member only by case"):
        members.rest()


@pytest.mark.parametrize(
    ("value", "take"),
    [
        (1, Members.text),
        ([1], Members.texts),
        ("a", Members.texts),
        ({"a": 1}, Members.text_map),
        ([], Members.text_map),
        (1, Members.flag),
        ([], Members.object_map),
        ("", Members.required_text),
    ],
)
def test_a_member_of_another_type_is_refused(value: object, take: object) -> None:
    with pytest.raises(DocumentError, match=r"^it: m "):
        take(Members({"m": value}, "it"), "m")  # type: ignore[operator]
