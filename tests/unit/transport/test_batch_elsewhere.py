"""Batches whose images go to a registry: shards on several machines give the digests of one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ocidiff
from support.registries import Registry, answers


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for number in range(6):
        Path("uppers", str(number)).mkdir(parents=True)
        Path("uppers", str(number), "new").write_text(f"new {number}")
    return tmp_path / "lines"


def write(lines: Path, name: str) -> None:
    lines.write_text(
        "".join(json.dumps({"upper": f"uppers/{number}", "name": f"{name}:{number}"}) + "\n" for number in range(6))
    )


def run(store: ocidiff.EmbeddedStore, lines: Path, base: str, shard: str | None = None) -> dict[int, ocidiff.BatchResult]:
    found: dict[int, ocidiff.BatchResult] = {}
    store.batch(lines, lambda result: found.update({result.line: result}), base=base, shard=shard)
    return found


def test_two_shards_and_a_registry_give_the_digests_of_one_process(
    store: ocidiff.EmbeddedStore, registry: Registry, lines: Path, tmp_path: Path
) -> None:
    base = f"docker://{registry.address}/base:v1"
    store.copy("app:v1", base)
    write(lines, "app")
    whole = {number: result.digest for number, result in run(store, lines, "app:v1").items()}
    write(lines, f"docker://{registry.address}/app")
    for index in range(2):
        with ocidiff.Store.open(tmp_path / f"machine{index}") as other:
            results = run(other, lines, base, f"{index}/2")
            assert {number: result.digest for number, result in results.items()} == {
                number: digest for number, digest in whole.items() if (number - 1) % 2 == index
            }
            assert all(result.status == "made" for result in results.values())
            assert other.images() == []
    assert {tag for repository, tag in registry.manifests if repository == "app" and ":" not in tag} == set("012345")


def test_a_registry_that_refuses_an_image_fails_its_line_alone(
    store: ocidiff.EmbeddedStore, registry: Registry, lines: Path
) -> None:
    write(lines, f"docker://{registry.address}/app")
    registry.faults.append(answers(403, "PUT", "/v2/app/manifests/3", times=100))
    results = run(store, lines, "app:v1")
    assert [number for number, result in results.items() if result.status == "failed"] == [4]
    assert "403" in results[4].error or "denied" in results[4].error.lower() or "refuse" in results[4].error
    # What is there is not sent again.
    registry.faults.clear()
    registry.requests.clear()
    again = run(store, lines, "app:v1")
    assert all(result.status == "made" for result in again.values())
    assert registry.asked("PUT", "/uploads/") == []
