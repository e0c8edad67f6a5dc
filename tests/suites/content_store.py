"""What every content store promises. A subclass gives the store and says how to look at and damage what it keeps."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ocidiff.errors import BusyError, DigestMismatchError, DocumentError, NotFoundError, UsageError
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest
from ocidiff.oci.encoding import MAX_DOCUMENT_BYTES
from ocidiff.services.content import ContentStore

KIND = "application/octet-stream"
DATA = b"some bytes"
DESCRIPTOR = Descriptor(KIND, Digest.of(DATA), len(DATA))


def _ingest(store: ContentStore, size: int, digest: Digest) -> None:
    with store.ingest() as ingest:
        ingest.write(DATA)
        ingest.commit(size, digest)


class ContentStoreSuite:
    """The promises, as tests."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> ContentStore:
        raise NotImplementedError

    def unfinished(self, store: ContentStore) -> list[str]:
        """What is on its way into the store."""
        raise NotImplementedError

    def test_a_written_blob_is_read_back(self, store: ContentStore) -> None:
        assert store.write(DATA, KIND) == DESCRIPTOR
        assert store.contains(DESCRIPTOR.digest)
        assert store.read(DESCRIPTOR) == DATA
        with store.open_blob(DESCRIPTOR) as blob:
            assert blob.read() == DATA
        assert self.unfinished(store) == []

    def test_an_empty_blob_is_a_blob(self, store: ContentStore) -> None:
        assert store.read(store.write(b"", KIND)) == b""

    def test_blobs_are_found_by_a_label(self, store: ContentStore) -> None:
        other = store.write(b"other", KIND, {"a/label": "x y", "more": "1"})
        store.write(DATA, KIND, {"a/label": "x", "another": "x y"})
        assert store.labelled("a/label", "x y") == [other.digest]
        assert store.labelled("a/label", "x") == [DESCRIPTOR.digest]
        assert store.labelled("a/label", "y") == []
        assert store.labelled("label", "x") == []

    def test_a_blob_is_invisible_until_it_is_committed(self, store: ContentStore) -> None:
        large = DATA * ((2 << 20) // len(DATA))
        digest = Digest.of(large)
        with store.ingest() as ingest:
            ingest.write(large)
            assert not store.contains(digest)
            assert len(self.unfinished(store)) == 1
            ingest.commit(len(large), digest)
            assert store.contains(digest)
        assert self.unfinished(store) == []

    def test_bytes_may_go_straight_to_the_file_descriptor(self, store: ContentStore) -> None:
        with store.ingest() as ingest:
            os.write(ingest.fileno(), DATA)
            ingest.commit(DESCRIPTOR.size, DESCRIPTOR.digest)
        assert store.read(DESCRIPTOR) == DATA

    def test_an_ingest_that_is_restarted_begins_anew(self, store: ContentStore) -> None:
        with store.ingest() as ingest:
            ingest.write(b"other bytes")
            ingest.restart()
            assert ingest.offset == 0
            ingest.write(DATA)
            ingest.commit(DESCRIPTOR.size, DESCRIPTOR.digest)
        assert store.read(DESCRIPTOR) == DATA

    def test_an_ingest_that_is_left_is_dropped(self, store: ContentStore) -> None:
        with store.ingest() as ingest:
            ingest.write(DATA)
        assert self.unfinished(store) == []
        assert not store.contains(DESCRIPTOR.digest)

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_an_exception_drops_the_ingest(self, store: ContentStore, error: type[BaseException]) -> None:
        def fail() -> None:
            with store.ingest() as ingest:
                ingest.write(DATA)
                raise error

        with pytest.raises(error):
            fail()
        assert self.unfinished(store) == []

    def test_a_wrong_size_is_refused(self, store: ContentStore) -> None:
        with pytest.raises(DigestMismatchError, match="10 bytes written, expected 11"):
            _ingest(store, 11, DESCRIPTOR.digest)
        assert self.unfinished(store) == []
        assert not store.contains(DESCRIPTOR.digest)

    def test_a_wrong_digest_is_refused(self, store: ContentStore) -> None:
        other = Digest.of(b"other")
        with pytest.raises(DigestMismatchError, match=f"{other}: {DESCRIPTOR.digest} written"):
            _ingest(store, len(DATA), other)
        assert self.unfinished(store) == []
        assert not store.contains(other)

    def test_writers_of_one_blob_all_succeed(self, store: ContentStore) -> None:
        results: list[Descriptor] = []
        threads = [threading.Thread(target=lambda: results.append(store.write(DATA, KIND))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [DESCRIPTOR] * 8
        assert self.unfinished(store) == []

    def test_a_missing_blob_is_not_found(self, store: ContentStore) -> None:
        assert not store.contains(DESCRIPTOR.digest)
        with pytest.raises(NotFoundError, match=DESCRIPTOR.digest):
            store.read(DESCRIPTOR)
        with pytest.raises(NotFoundError, match=DESCRIPTOR.digest):
            store.open_blob(DESCRIPTOR)

    def test_a_blob_of_another_size_than_described_is_refused(self, store: ContentStore) -> None:
        store.write(DATA, KIND)
        with pytest.raises(DigestMismatchError, match="has 10 bytes, expected 9"):
            store.open_blob(replace(DESCRIPTOR, size=9))

    def test_a_blob_too_large_for_a_document_is_not_read_whole(self, store: ContentStore) -> None:
        with pytest.raises(DocumentError, match="limit"):
            store.read(replace(DESCRIPTOR, size=MAX_DOCUMENT_BYTES + 1))

    def test_an_ingest_with_a_ref_is_resumed_where_it_stopped(self, store: ContentStore) -> None:
        with store.ingest("layer 1") as ingest:
            assert ingest.offset == 0
            ingest.write(DATA[:4])
        assert [(status.ref, status.offset) for status in store.statuses()] == [("layer 1", 4)]
        assert not store.contains(DESCRIPTOR.digest)
        with store.ingest("layer 1") as ingest:
            assert ingest.offset == 4
            ingest.write(DATA[4:])
            ingest.commit(DESCRIPTOR.size, DESCRIPTOR.digest)
        assert store.read(DESCRIPTOR) == DATA
        assert store.statuses() == []
        assert self.unfinished(store) == []

    def test_what_was_resumed_is_hashed_from_its_beginning(self, store: ContentStore) -> None:
        with store.ingest("r") as ingest:
            ingest.write(b"other")
        with store.ingest("r") as ingest:
            ingest.write(DATA[5:])
            with pytest.raises(DigestMismatchError, match="written"):
                ingest.commit(DESCRIPTOR.size, DESCRIPTOR.digest)
        assert not store.contains(DESCRIPTOR.digest)

    def test_a_ref_has_one_writer(self, store: ContentStore) -> None:
        with store.ingest("r"):
            with pytest.raises(BusyError, match="'r'"):
                store.ingest("r")
            with pytest.raises(BusyError, match="'r'"):
                store.abort("r")
            with store.ingest("s"):
                pass
        with store.ingest("r"):
            pass

    def test_an_aborted_ref_begins_anew(self, store: ContentStore) -> None:
        with store.ingest("r") as ingest:
            ingest.write(DATA)
        store.abort("r")
        assert self.unfinished(store) == []
        with pytest.raises(NotFoundError, match="'r'"):
            store.abort("r")
        with store.ingest("r") as ingest:
            assert ingest.offset == 0

    @pytest.mark.parametrize("ref", ["", "a\nb", "x" * 5000])
    def test_a_ref_is_printable_and_not_too_long(self, store: ContentStore, ref: str) -> None:
        with pytest.raises(UsageError):
            store.ingest(ref)

    def test_labels_are_kept_merged_and_taken_away(self, store: ContentStore) -> None:
        before = time.time_ns()
        with store.ingest() as ingest:
            ingest.write(DATA)
            ingest.commit(DESCRIPTOR.size, DESCRIPTOR.digest, {"a": "1", "b": "1"})
        info = store.info(DESCRIPTOR.digest)
        assert (info.digest, info.size, info.labels) == (DESCRIPTOR.digest, DESCRIPTOR.size, {"a": "1", "b": "1"})
        assert before <= info.created_ns <= time.time_ns()
        store.update_labels(DESCRIPTOR.digest, {"b": "2", "a": "", "c": "3"})
        assert store.info(DESCRIPTOR.digest).labels == {"b": "2", "c": "3"}

    def test_a_blob_that_is_there_already_gets_the_labels_too(self, store: ContentStore) -> None:
        store.write(DATA, KIND, {"a": "1"})
        store.write(DATA, KIND, {"b": "2"})
        assert store.info(DESCRIPTOR.digest).labels == {"a": "1", "b": "2"}

    def test_labels_of_a_missing_blob_and_labels_too_long_are_refused(self, store: ContentStore) -> None:
        with pytest.raises(NotFoundError):
            store.update_labels(DESCRIPTOR.digest, {"a": "1"})
        with pytest.raises(NotFoundError):
            store.info(DESCRIPTOR.digest)
        store.write(DATA, KIND)
        with pytest.raises(UsageError, match="4096"):
            store.update_labels(DESCRIPTOR.digest, {"a": "x" * 4096})
        assert store.info(DESCRIPTOR.digest).labels == {}

    def test_a_deleted_blob_is_gone_with_its_labels(self, store: ContentStore) -> None:
        store.write(DATA, KIND, {"a": "1"})
        assert list(store.walk()) == [DESCRIPTOR.digest]
        store.delete(DESCRIPTOR.digest)
        assert list(store.walk()) == []
        with pytest.raises(NotFoundError):
            store.delete(DESCRIPTOR.digest)
        store.write(DATA, KIND)
        assert store.info(DESCRIPTOR.digest).labels == {}


class BlobFilesSuite(ContentStoreSuite):
    """The promises of stores that keep a file for each blob, as tests."""

    def blob_path(self, store: ContentStore, digest: Digest) -> Path:
        """The file of a blob."""
        raise NotImplementedError

    def test_a_blob_that_is_there_already_is_a_success(self, store: ContentStore) -> None:
        store.write(DATA, KIND)
        before = self.blob_path(store, DESCRIPTOR.digest).stat().st_ino
        assert store.write(DATA, KIND) == DESCRIPTOR
        assert self.blob_path(store, DESCRIPTOR.digest).stat().st_ino == before
        assert self.unfinished(store) == []

    def test_a_blob_cut_short_by_a_power_failure_is_replaced(self, store: ContentStore) -> None:
        store.write(DATA, KIND)
        path = self.blob_path(store, DESCRIPTOR.digest)
        path.chmod(0o644)
        path.write_bytes(b"")
        store.write(DATA, KIND)
        assert store.read(DESCRIPTOR) == DATA

    @pytest.mark.parametrize("damaged", [b"some bytez", b"some byte", b"some bytes and more"])
    def test_a_damaged_blob_is_never_read_as_the_one_named(self, store: ContentStore, damaged: bytes) -> None:
        store.write(DATA, KIND)
        path = self.blob_path(store, DESCRIPTOR.digest)
        path.chmod(0o644)
        path.write_bytes(damaged)
        with pytest.raises(DigestMismatchError, match=DESCRIPTOR.digest):
            store.read(DESCRIPTOR)

    @pytest.mark.parametrize("kind", ["symlink", "directory", "fifo"])
    def test_what_is_no_file_is_no_blob(self, store: ContentStore, kind: str, tmp_path: Path) -> None:
        store.write(DATA, KIND)
        path = self.blob_path(store, DESCRIPTOR.digest)
        aside = tmp_path / "aside"
        path.rename(aside)
        if kind == "symlink":
            path.symlink_to(aside)
        elif kind == "directory":
            path.mkdir()
        else:
            os.mkfifo(path)
        with pytest.raises(DigestMismatchError, match=f"{path}: not a regular file"):
            store.read(DESCRIPTOR)
