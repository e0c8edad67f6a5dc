"""Labels that stores and collectors understand. Spec: containerd, docs/garbage-collection.md, docs/remote-snapshotter.md."""

from __future__ import annotations

from typing import Final

UNCOMPRESSED: Final = "containerd.io/uncompressed"
"""On a layer: its diff ID."""
REFERS_CONTENT: Final = "containerd.io/gc.ref.content"
"""On a blob: another blob that it needs."""
REFERS_SNAPSHOT: Final = "containerd.io/gc.ref.snapshot"
"""On a blob, with `.` and a snapshotter's name: a snapshot that it needs."""
ROOT: Final = "containerd.io/gc.root"
"""On anything: a collection keeps it."""
SNAPSHOT_REF: Final = "containerd.io/snapshot.ref"
"""Of `prepare`: chain ID of the committed snapshot that is wanted. A snapshotter that has it, or can make it without the
layer, answers `AlreadyExistsError`."""
