"""Leases end with their owner, by time or by word, and are renewed while it works."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ocidiff import lease as leasing
from ocidiff.errors import NotFoundError, UsageError
from ocidiff.lease import CONTENT, Leases, Owner, end_leases, protect
from ocidiff.metadata import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(str(tmp_path / "ocidiff.db"))
    yield opened
    opened.close()


@pytest.fixture
def leases(database: Database) -> Leases:
    return Leases(database)


def _end(database: Database) -> int:
    with database.transaction() as connection:
        return end_leases(connection)


def test_ids_are_random_and_long(leases: Leases) -> None:
    ids = {leases.create(60).id for _ in range(20)}
    assert len(ids) == 20
    assert all(len(lease_id) == 32 and int(lease_id, 16) >= 0 for lease_id in ids)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, SystemExit])
def test_a_held_lease_ends_with_its_block(leases: Leases, error: type[BaseException] | None) -> None:
    def work() -> None:
        with leases.hold() as lease:
            assert [found.id for found in leases.leases()] == [lease.id]
            assert not lease.is_over()
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(error):
            work()
    assert leases.leases() == []


def test_a_lease_lasts_an_hour_unless_it_is_told_else(leases: Leases) -> None:
    with leases.hold() as lease:
        assert lease.expires_ns - lease.created_ns == 3600 * 10**9
    with leases.hold(5) as lease:
        assert lease.expires_ns - lease.created_ns == 5 * 10**9
    for seconds in (0, -1, float("nan"), 1e12):
        with pytest.raises(UsageError):
            leases.create(seconds)


def test_a_lease_is_renewed_while_its_owner_works(leases: Leases) -> None:
    with leases.hold(1) as lease:
        deadline = time.monotonic() + 10
        while leases.leases()[0].expires_ns == lease.expires_ns:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not leases.leases()[0].is_over()


def test_what_a_lease_protects_goes_with_it(leases: Leases, database: Database) -> None:
    lease = leases.create(60)
    with database.transaction() as connection:
        protect(connection, lease.id, CONTENT, "b")
        protect(connection, lease.id, CONTENT, "a")
        protect(connection, lease.id, CONTENT, "a")
    assert leases.resources(lease.id) == [(CONTENT, "a"), (CONTENT, "b")]
    leases.release(lease.id)
    leases.release(lease.id)
    assert leases.resources(lease.id) == []
    with database.transaction() as connection, pytest.raises(NotFoundError, match="has ended"):
        protect(connection, lease.id, CONTENT, "a")
    with pytest.raises(NotFoundError):
        leases.renew(lease.id, 60)


def test_a_lease_ends_by_time(leases: Leases, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = leases.create(60)
    assert _end(database) == 0
    monkeypatch.setattr(time, "time_ns", lambda: lease.expires_ns)
    assert lease.is_over()
    assert _end(database) == 1


def test_a_lease_ends_with_its_process(leases: Leases, database: Database) -> None:
    program = (
        "import os, sys\nfrom ocidiff.metadata import Database\nfrom ocidiff.lease import Leases\n"
        "Leases(Database.open(sys.argv[1])).create(3600)\nprint(flush=True)\nsys.stdin.read()\nos._exit(9)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, database.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        assert _end(database) == 0
        process.kill()
        # Dead and not yet waited for counts as dead.
        deadline = time.monotonic() + 10
        while _end(database) == 0:
            assert time.monotonic() < deadline
    assert leases.leases() == []


def test_who_is_dead_and_who_only_cannot_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    me = Owner.of_this_process()
    assert not me.is_dead()
    assert replace(me, boot_id="another").is_dead()
    assert replace(me, started_ticks=me.started_ticks - 1).is_dead()
    assert replace(me, pid=1 << 22).is_dead()
    assert not replace(me, pid=1 << 22, pid_namespace=me.pid_namespace + 1).is_dead()
    assert me.pid == os.getpid()


def test_a_lease_that_cannot_be_released_is_no_failure(
    leases: Leases, database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(leasing.Leases, "release", fail)
    with leases.hold():
        pass
    assert "could not be released" in caplog.text
