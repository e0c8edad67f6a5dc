"""Index: entries that are not understood are kept byte for byte, and disturb nobody."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocidiff.errors import DocumentError
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest
from ocidiff.oci.encoding import MAX_DOCUMENT_BYTES, indented
from ocidiff.oci.index import REF_NAME, Index
from ocidiff.oci.references import mentioned

GOOD = Descriptor(media_type.MANIFEST, Digest("sha256:" + "1" * 64), 7, {REF_NAME: "good:1"})
OTHER = Descriptor(media_type.MANIFEST, Digest("sha256:" + "2" * 64), 7)
SHA512 = "sha512:" + "3" * 128

# Source texts of entries that are not understood, with the name that can be told all the same.
FOREIGN = [
    (f'{{"mediaType":"a/b","digest":"{SHA512}","size":3,"annotations":{{"{REF_NAME}":"theirs"}}}}', "theirs"),
    ('{"mediaType": "a/b", "digest": "blake3:abc", "size": 3}', None),
    ('{"mediaType":"a/b","size":3}', None),
    (f'{{"digest":"{GOOD.digest}","size":3}}', None),
    (f'{{"mediaType":"a/b","digest":"{GOOD.digest}","size":-1}}', None),
    (f'{{"mediaType":"a/b","digest":"{GOOD.digest}","size":3.0}}', None),
    (f'{{"mediaType":"a/b","digest":"{GOOD.digest}","size":3,"annotations":[]}}', None),
    (f'{{"mediaType":"a/b","digest":"{GOOD.digest}","size":3,"annotations":{{"{REF_NAME}":1}}}}', None),
    (f'{{"mediaType":"a/b","digest":"{GOOD.digest}","size":3,"annotations":{{"k":"\\ud800"}}}}', None),
    (f'{{"mediaType":"a/b","digest":"{GOOD.digest}","size":3,"size":4}}', None),
    (f'{{"mediaType":"a/b","digest":"{GOOD.digest}","size":3,"Size":4}}', None),
    (f'{{"mediaType":"a/b","digest":"{GOOD.digest}","size":3,"x":NaN}}', None),
    (f'{{"mediaType":"a/b","digest":"{GOOD.digest}","size":{"9" * 5000}}}', None),
    (f'{{"digest":"{GOOD.digest}","x":{"[" * 100}{"]" * 100}}}', None),
    (f'{{"digest":"{GOOD.digest}","x":{"[" * 5000}"]\\"["{"]" * 5000}}}', None),
    ("null", None),
    ("5", None),
    ('"text"', None),
    ("[]", None),
    ("{}", None),
]


def _index(*entries: str, **members: object) -> bytes:
    rest = "".join(f", {json.dumps(name)} : {json.dumps(value)}" for name, value in members.items())
    return f'{{"schemaVersion":2 , "manifests" : [ {" , ".join(entries)} ]{rest}}}'.encode()


@pytest.mark.parametrize(("text", "name"), FOREIGN)
def test_an_entry_that_is_not_understood_disturbs_nothing(text: str, name: str | None) -> None:
    good = json.dumps(GOOD.document())
    index = Index.parse(_index(good, text, good), media_type.INDEX, "it")
    assert index.manifests == (GOOD, GOOD)
    foreign = index.entries[1]
    assert (foreign.text, foreign.name, foreign.descriptor) == (text, name, None)
    assert "manifests[1]" in foreign.problem
    after = Index.parse(index.with_name("new:1", OTHER).encode(), media_type.INDEX, "it")
    assert [entry.text for entry in after.entries[:3]] == [good, text, good]
    assert after.entries[3].name == "new:1"
    assert Index.parse(after.without(foreign).encode(), media_type.INDEX, "it").manifests[:2] == (GOOD, GOOD)


def test_bytes_that_are_not_utf8_are_kept() -> None:
    text = b'{"mediaType":"a/b","annotations":{"k":"\xff"}}'
    index = Index.parse(_index("@").replace(b"@", text), media_type.INDEX, "it")
    assert index.entries[0].descriptor is None
    assert text in index.with_name("new:1", OTHER).encode()


def test_a_name_moves_away_from_an_entry_that_is_not_understood() -> None:
    index = Index.parse(_index(FOREIGN[0][0]), media_type.INDEX, "it")
    assert [entry.descriptor is None for entry in index.with_name("theirs", OTHER).entries] == [False]


def test_what_we_write_looks_like_gos() -> None:
    index = Index().with_name("a:1", GOOD).with_name("b:1", OTHER)
    document = {"schemaVersion": 2, "mediaType": media_type.INDEX, "manifests": [d.document() for d in index.manifests]}
    assert index.encode() == indented(document)
    assert Index().encode() == indented({**document, "manifests": []})
    assert Index.parse(index.encode(), media_type.INDEX, "it") == index


def test_other_members_are_kept_as_they_are_where_they_are() -> None:
    data = b'{"x": 1e2, "schemaVersion":2,"manifests": null,"annotations":{"b":"\\u00e9","a":[]},"subject":{"x" : 1}}'
    after = Index.parse(data, media_type.INDEX, "it").with_name("a:1", GOOD).encode()
    assert list(json.loads(after)) == ["x", "schemaVersion", "manifests", "annotations", "subject"]
    for kept in (b'"x": 1e2', b'"annotations": {"b":"\\u00e9","a":[]}', b'"subject": {"x" : 1}'):
        assert kept in after


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b'{"schemaVersion":2,', "not JSON"),
        (b'{"schemaVersion":2,"manifests":[{]}', "not JSON"),
        (b'{"schemaVersion":2,"manifests":[{} {}]}', "not JSON"),
        (b'{"schemaVersion":2,"manifests":[{},]}', "not JSON"),
        (b'{"schemaVersion":2,"manifests":[]} x', "Extra data"),
        (b'{"schemaVersion":2,"manifests":[],}', "not JSON"),
        (b'{schemaVersion:2,"manifests":[]}', "not JSON"),
        (b'{"schemaVersion" 2,"manifests":[]}', "not JSON"),
        (b'{"schemaVersion":2,"manifests":{}}', "manifests is not a list"),
        (b'{"schemaVersion":2,"manifests":[],"manifests":[]}', "'manifests' occurs twice"),
        (b'{"schemaVersion":2,"manifests":[],"x":1,"y":1,"x":1}', "'x' occurs twice"),
        (b'{"schemaVersion":2,"manifests":[],"Manifests":[]}', "only by case"),
        (b'{"schemaVersion":2,"manifests":[],"layers":[]}', "another kind of document"),
        (b'{"schemaVersion":1,"manifests":[]}', "schemaVersion is not 2"),
        (b'{"manifests":[]}', "schemaVersion is not a size"),
        (b'{"schemaVersion":2,"mediaType":"x","manifests":[]}', "mediaType is 'x'"),
        (b'{"schemaVersion":2,"x":' + b"[" * 5000 + b'"' + b'\\"' * 1000, "unexpected end"),
        (b" " * (MAX_DOCUMENT_BYTES + 1), "limit"),
    ],
)
def test_what_is_no_index_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(DocumentError, match=problem) as caught:
        Index.parse(data, media_type.INDEX, "it")
    assert str(caught.value).startswith("it: ")


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["digest", "size", "mediaType"]) | st.text(), inner),
    max_leaves=10,
)


@given(st.lists(_values), st.booleans())
def test_any_entries_survive_any_number_of_changes(values: list[object], escaped: bool) -> None:
    texts = [json.dumps(value, ensure_ascii=escaped, indent=2) for value in values]
    index = Index.parse(_index(*texts), media_type.INDEX, "it")
    for number in range(2):
        assert [entry.text for entry in index.entries[: len(texts)]] == texts
        index = Index.parse(index.with_name(f"n:{number}", GOOD).encode(), media_type.INDEX, "it")


@given(st.binary(max_size=200))
def test_any_bytes_are_an_index_or_refused_as_a_document(data: bytes) -> None:
    try:
        Index.parse(data, media_type.INDEX, "it")
    except DocumentError:
        return
    assert data.strip().startswith(b"{")


@pytest.mark.parametrize(("text", "_name"), FOREIGN)
def test_a_collection_sees_every_digest_of_an_entry(text: str, _name: str | None) -> None:
    found = mentioned(text.encode())
    assert (GOOD.digest in found) == (GOOD.digest in text)
    assert (SHA512 in found) == (SHA512 in text)
