"""The one table of errors: every variant of the core, every exception, every code and every exit status stands in it."""

from __future__ import annotations

import inspect
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click
import pytest

import ocidiff
from ocidiff import errors
from ocidiff.cli import group, main
from ocidiff.errors import OUTCOMES, OcidiffError, Outcome, class_of, outcome_of
from ocidiff.layer.engine import Engine
from ocidiff.layer.layer import IndexPath
from ocidiff.layer.monitor import Cancellation, Monitor, Progress
from ocidiff.layer.options import Compression, LayerOptions, OnChange, Profile
from ocidiff.mounts.layers import OverlayLayers
from support import verbs
from support.archives import directory, file, tar

ROOT = Path(__file__).parents[2]
# https://grpc.io/docs/guides/status-codes/
GRPC_CODES = {
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
}
LARGE_BYTES = 400 << 20


def variants() -> list[str]:
    """The variants of the core's `Error`, as its source has them."""
    source = (ROOT / "rust/ocidiff-core/src/error.rs").read_text()
    body = source.split("pub enum Error {", 1)[1].split("\n}\n", 1)[0]
    return re.findall(r"^    ([A-Z]\w+)", body, re.MULTILINE)


def write(engine: Engine, upper: Path | IndexPath, monitor: Monitor, **options: OnChange) -> None:
    """Write the layer of all that is in a tree to nowhere."""
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        tree = upper if isinstance(upper, IndexPath) else os.fsencode(upper)
        engine.write_layer(None, tree, sink, LayerOptions(compression=Compression.NONE, **options), monitor)  # type: ignore[arg-type]
    finally:
        os.close(sink)


def change_while_read(engine: Engine, place: Path) -> None:
    with (place / "f").open("wb") as large:
        large.truncate(LARGE_BYTES)

    def progress(now: Progress) -> None:
        if now.bytes_plain:
            os.truncate(place / "f", 10)

    write(engine, place, Monitor(progress), on_change=OnChange.FAIL)


def cancel(engine: Engine, place: Path) -> None:
    with (place / "f").open("wb") as large:
        large.truncate(LARGE_BYTES)
    stop = Cancellation()
    stop.cancel()
    write(engine, place, Monitor(cancel=stop))


def read_no_index(engine: Engine, place: Path) -> None:
    (place / "f").write_bytes(b"no index")
    verbs.changes(engine, IndexPath(os.fsencode(place / "f")), place, Profile.OCI)


def write_layer_of_index(engine: Engine, place: Path) -> None:
    with verbs.saved_index(verbs.index(engine, place)) as index:
        write(engine, index, Monitor())


def write_whiteout_name(engine: Engine, place: Path) -> None:
    (place / ".wh.f").touch()
    verbs.diff(engine, None, place)


def read_strange_overlay(engine: Engine, place: Path) -> None:
    for name in ("lower", "upper/d"):
        (place / name).mkdir(parents=True)
    (place / "upper/.wh.a").touch()
    os.setxattr(place / "upper/d", "user.containers.override_stat", b"0:0:755")
    verbs.diff(engine, place / "lower", OverlayLayers(os.fsencode(place / "upper"), (os.fsencode(place / "lower"),)))


# Inputs that make an engine fail in each way.
FAILURES: dict[str, Callable[[Engine, Path], object]] = {
    "Io": lambda engine, place: verbs.diff(engine, None, place / "missing"),
    "MalformedLayer": lambda engine, place: verbs.apply(engine, b"x" * 512, place),
    "MalformedCompression": lambda engine, place: verbs.apply(engine, b"\x1f\x8b\x08\0\0\0\0\0\0\0", place),
    "UnsafeEntry": lambda engine, place: verbs.apply(engine, tar(file(b".")), place),
    "LimitExceeded": lambda engine, place: verbs.apply(engine, tar(directory(b"a"), file(b"b")), place, max_entries=1),
    "SourceChanged": change_while_read,
    "Unsupported": lambda engine, place: verbs.apply(engine, b"\xfd7zXZ\0" + bytes(600), place),
    "Unrepresentable": write_whiteout_name,
    "Overlay": read_strange_overlay,
    "IndexFile": read_no_index,
    "Usage": write_layer_of_index,
    "Cancelled": cancel,
}


@pytest.mark.parametrize("variant", variants())
def test_every_variant_of_the_core_becomes_the_exception_of_the_table(engine: Engine, variant: str, tmp_path: Path) -> None:
    with pytest.raises(class_of(variant)) as caught:
        FAILURES[variant](engine, tmp_path)
    assert outcome_of(caught.value) == OUTCOMES[class_of(variant)]
    assert "\n" not in str(caught.value)


def test_every_variant_stands_in_the_table_once() -> None:
    assert Counter(variant for outcome in OUTCOMES.values() for variant in outcome.core) == Counter(variants())
    assert FAILURES.keys() == set(variants())


def test_every_exception_stands_in_the_table() -> None:
    classes = {value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, OcidiffError)}
    assert OUTCOMES.keys() == {*classes, OSError, ConnectionError, TimeoutError, KeyboardInterrupt}
    assert all(outcome.grpc in GRPC_CODES for outcome in OUTCOMES.values())


def test_only_what_another_differ_may_do_sends_containerd_to_the_next_one() -> None:
    found = {kind for kind, outcome in OUTCOMES.items() if outcome.grpc == "UNIMPLEMENTED"}
    assert found == {ocidiff.UnsupportedError, ocidiff.OverlayError}
    assert not issubclass(ocidiff.UnrepresentableError, ocidiff.UnsupportedError)


def test_a_subclass_has_the_outcome_of_its_class_and_a_stranger_that_of_the_base() -> None:
    assert outcome_of(FileNotFoundError()) == OUTCOMES[OSError]
    assert outcome_of(ocidiff.ChangeTooLargeError()).status == 3
    assert outcome_of(ZeroDivisionError()) == OUTCOMES[OcidiffError]


@pytest.mark.parametrize("kind", [kind for kind in OUTCOMES if issubclass(kind, Exception)])
def test_a_command_exits_with_the_status_of_the_table(kind: type[Exception]) -> None:
    context = click.Context(group.group)
    assert group._status(kind("failed"), context) == OUTCOMES[kind].status


def test_an_interrupt_exits_with_the_status_of_the_table() -> None:
    assert OUTCOMES[KeyboardInterrupt].status == main._INTERRUPTED


def test_the_page_on_the_architecture_has_the_table() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\|(.*)\| `(\w+)` \| `([A-Z_]+)` \| (\d+) \|$", page, re.MULTILINE)
    told = {kind: Outcome(tuple(re.findall(r"`(\w+)`", core)), code, int(status)) for core, kind, code, status in rows}
    assert told == {kind.__name__: outcome for kind, outcome in OUTCOMES.items()}
