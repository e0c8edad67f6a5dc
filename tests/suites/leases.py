"""The promises of every lease manager. A subclass gives the services."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocidiff.errors import NotFoundError
from ocidiff.oci.digest import Digest
from ocidiff.services.bundle import Services
from ocidiff.services.leases import CONTENT, snapshots_of


class LeasesSuite:
    """The promises, as tests."""

    @pytest.fixture
    def services(self, tmp_path: Path) -> Services:
        raise NotImplementedError

    @pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
    def test_a_lease_ends_with_its_block(self, services: Services, error: type[BaseException] | None) -> None:
        def work() -> None:
            with services.leases.hold() as lease:
                assert services.leases.held() == [lease.id]
                if error is not None:
                    raise error

        if error is None:
            work()
        else:
            with pytest.raises(error):
                work()
        assert services.leases.held() == []

    def test_a_lease_keeps_what_is_added(self, services: Services) -> None:
        with services.leases.hold() as lease:
            keys = [str(Digest.of(data)) for data in (b"2", b"1", b"1")]
            for key in keys:
                services.leases.add(lease, CONTENT, key)
            assert services.leases.resources(lease) == sorted((CONTENT, key) for key in set(keys))
        assert services.leases.resources(lease) == []

    def test_nothing_is_added_to_a_lease_that_has_ended(self, services: Services) -> None:
        with services.leases.hold() as lease:
            pass
        with pytest.raises(NotFoundError, match="has ended"):
            services.leases.add(lease, CONTENT, Digest.of(b"1"))

    def test_what_is_written_under_a_lease_belongs_to_it(self, services: Services) -> None:
        with services.leased() as leased:
            assert leased.lease is not None
            blob = leased.content.write(b"data", "text/plain")
            snapshots = leased.snapshotter(None)
            snapshots.prepare("active", None)
            expected = {(CONTENT, str(blob.digest)), (snapshots_of(snapshots.name), "active")}
            assert expected <= set(leased.leases.resources(leased.lease))

    def test_what_is_there_is_kept_too(self, services: Services) -> None:
        blob = services.content.write(b"data", "text/plain")
        snapshots = services.snapshotter(None)
        snapshots.prepare("active", None)
        snapshots.commit("one", "active")
        with services.leased() as leased:
            assert leased.lease is not None
            leased.keep_blob(blob.digest)
            assert leased.keep_snapshot(leased.snapshotter(None), "one")
            assert not leased.keep_snapshot(leased.snapshotter(None), "none")
            kept = leased.leases.resources(leased.lease)
            assert (CONTENT, str(blob.digest)) in kept
            assert (snapshots_of(snapshots.name), "one") in kept

    def test_a_blob_refers_to_a_snapshot(self, services: Services) -> None:
        blob = services.content.write(b"data", "text/plain")
        snapshots = services.snapshotter(None)
        services.add_gc_reference(Digest(blob.digest), snapshots, "one")
        labels = services.content.info(blob.digest).labels
        assert labels == {f"containerd.io/gc.ref.snapshot.{snapshots.name}": "one"}
