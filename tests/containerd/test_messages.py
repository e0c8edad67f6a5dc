"""The table of messages says what containerd's own descriptors say."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ocidiff.containerd import messages
from support import probes

pytestmark = pytest.mark.interop

REFDIFF = Path(__file__).parents[1] / "interop/refdiff"
NUMBERS = {"TYPE_ENUM": "TYPE_INT32"}  # the same on the wire


@pytest.fixture(scope="session")
def published() -> dict[str, Any]:
    """The descriptors in the module of containerd's API, by full name of their message, and of their methods."""
    from google.protobuf import descriptor_pb2, text_format

    words = ["go", "mod", "download", "-json", "github.com/containerd/containerd/api"]
    done = subprocess.run(words, cwd=REFDIFF, capture_output=True, text=True, check=False)
    if done.returncode:
        probes.missing(f"go cannot fetch the module of containerd's API: {done.stderr[-1000:]}")
    text = next(Path(json.loads(done.stdout)["Dir"]).glob("next.*")).read_text()
    found: dict[str, Any] = {}
    files = text_format.Parse(
        text, descriptor_pb2.FileDescriptorSet(), allow_unknown_extension=True, allow_unknown_field=True
    )
    for file in files.file:
        for one in file.message_type:
            found[f"{file.package}.{one.name}"] = one
            found |= {f"{file.package}.{one.name}.{inner.name}": inner for inner in one.nested_type}
        for service in file.service:
            found |= {f"{file.package}.{service.name}/{method.name}": method for method in service.method}
    return found


def fields(one: Any) -> dict[str, tuple[object, ...]]:
    """What goes over the wire of a message, by the names of its fields."""
    kinds = type(one).DESCRIPTOR.fields_by_name["field"].message_type.enum_types_by_name["Type"].values_by_number
    named: dict[str, tuple[object, ...]] = {}
    for field in one.field:
        kind = kinds[field.type].name
        named[field.name] = (
            field.number,
            field.label,
            NUMBERS.get(kind, kind),
            field.type_name if kind == "TYPE_MESSAGE" else "",
        )
    return named


def test_every_field_is_one_of_the_published_message(published: dict[str, Any]) -> None:
    from google.protobuf import descriptor_pb2

    for section in messages.SCHEMA.strip().split("\n\n"):
        package, *lines = section.split("\n")
        for line in lines:
            name = f"{package}.{line.split()[0]}"
            own = descriptor_pb2.DescriptorProto()
            messages.message(name).DESCRIPTOR.CopyToProto(own)
            theirs = fields(published[name])
            assert {field: theirs.get(field) for field in fields(own)} == fields(own), name


def test_every_method_takes_and_gives_what_is_published(published: dict[str, Any]) -> None:
    for method in messages.METHODS:
        theirs = published[f"containerd.services.{method}"]
        assert [f".{one.DESCRIPTOR.full_name}" for one in messages.types_of(method)] == [
            theirs.input_type,
            theirs.output_type,
        ]
