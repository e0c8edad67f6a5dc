"""Leases last exactly as long as their owner, whatever clocks and process numbers say."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocidiff import workspace
from ocidiff.embedded.database import Database
from ocidiff.embedded.leases import Lease, Leases, protect, require_lease
from ocidiff.errors import NotFoundError
from ocidiff.services.leases import CONTENT
from support import probes


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(str(tmp_path / "ocidiff.db"))
    yield opened
    opened.close()


@pytest.fixture
def leases(database: Database) -> Leases:
    return Leases(lambda: database)


def _end(database: Database) -> int:
    with database.transaction() as connection:
        return Leases(lambda: database).end(connection)[0]


def test_ids_are_random_and_long(leases: Leases) -> None:
    ids = set()
    for _ in range(20):
        with leases.hold() as lease:
            ids.add(lease.id)
    assert len(ids) == 20
    assert all(len(lease_id) == 32 and int(lease_id, 16) >= 0 for lease_id in ids)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, SystemExit])
def test_a_held_lease_ends_with_its_block(
    leases: Leases, error: type[BaseException] | None, database: Database, tmp_path: Path
) -> None:
    def work() -> None:
        with leases.hold() as lease:
            assert leases.leases() == [lease]
            assert not lease.is_over()
            assert _end(database) == 0
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(error):
            work()
    assert leases.leases() == []
    assert os.listdir(tmp_path / "leases") == []


def test_what_a_lease_protects_goes_with_it(leases: Leases, database: Database) -> None:
    with leases.hold() as lease:
        with database.transaction() as connection:
            protect(connection, lease.id, CONTENT, "b")
            protect(connection, lease.id, CONTENT, "a")
            protect(connection, lease.id, CONTENT, "a")
        assert leases.resources(lease) == [(CONTENT, "a"), (CONTENT, "b")]
    assert leases.resources(lease) == []
    with database.transaction() as connection, pytest.raises(NotFoundError, match=r"has ended.*run it again"):
        protect(connection, lease.id, CONTENT, "a")


@pytest.mark.parametrize("jump", [-(10**10), 10**10])
def test_a_clock_that_jumps_ends_no_lease(
    leases: Leases, database: Database, jump: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now)
    with leases.hold() as lease:
        monkeypatch.setattr(time, "time_ns", lambda: now + jump * 10**9)
        with database.transaction() as connection:
            connection.execute("UPDATE lease SET created_ns = created_ns + ?", (-jump * 10**8,))
        assert _end(database) == 0
        with database.transaction() as connection:
            require_lease(connection, lease.id)


_OWNER = """
import functools, os, sys
from ocidiff.embedded.database import Database
from ocidiff.embedded.leases import Leases
held = Leases(functools.cache(lambda: Database.open(sys.argv[1]))).hold()
held.__enter__()
print(flush=True)
sys.stdin.read()
os._exit(9)
"""
_LOOKER = """
import sys
from ocidiff.embedded.database import Database
from ocidiff.embedded.leases import Leases
database = Database.open(sys.argv[1])
with database.transaction() as connection:
    print(Leases(lambda: database).end(connection)[0])
"""


def _start(database: Database, *before: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [*before, sys.executable, "-c", _OWNER, database.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"\n"
    return process


def _wait_for_the_end(database: Database) -> None:
    deadline = time.monotonic() + 10
    while _end(database) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_lease_ends_with_its_process_and_not_while_that_is_stopped(
    leases: Leases, database: Database, tmp_path: Path
) -> None:
    with _start(database) as process:
        assert _end(database) == 0
        process.send_signal(signal.SIGSTOP)
        assert _end(database) == 0
        process.kill()
        # Dead and not yet waited for counts as dead.
        _wait_for_the_end(database)
    assert leases.leases() == []
    assert os.listdir(tmp_path / "leases") == []


@pytest.mark.root
@pytest.mark.parametrize(
    "namespace", [["--pid", "--fork"], ["--time", "--boottime", "5000000"], ["--time", "--monotonic", "5000000"]]
)
def test_a_lease_is_judged_across_namespaces(database: Database, namespace: list[str]) -> None:
    if shutil.which("unshare") is None:
        probes.missing("needs unshare")
    look = [sys.executable, "-c", _LOOKER, database.path]
    for owner, looker in (([], namespace), (namespace, [])):
        inside = ["unshare", *owner] if owner else []
        with _start(database, *inside) as process:
            beside = ["unshare", *looker] if looker else []
            assert subprocess.run([*beside, *look], capture_output=True, check=True).stdout == b"0\n"
            assert process.stdin is not None
            process.stdin.close()
        _wait_for_the_end(database)


def test_a_file_without_a_lease_goes_and_one_about_to_be_a_lease_stays(
    leases: Leases, database: Database, tmp_path: Path
) -> None:
    with leases.hold():
        (tmp_path / "leases" / "left").touch()
        with leases._directory() as place:
            name, file = workspace.create_file(place)
        _end(database)
        assert set(os.listdir(tmp_path / "leases")) == {name, leases.leases()[0].id}
        os.close(file)


def test_leases_of_many_threads_are_never_taken_for_dead(leases: Leases, database: Database) -> None:
    ended: list[int] = []

    def work() -> None:
        for _ in range(30):
            with leases.hold() as lease:
                ended.append(_end(database))
                with database.transaction() as connection:
                    require_lease(connection, lease.id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == [0] * 120


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_other_users_can_look_at_leases_whatever_the_umask_is(leases: Leases, tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with leases.hold() as lease:
            assert os.stat(lease.path).st_mode & 0o777 == 0o644
            assert os.stat(tmp_path / "leases").st_mode & 0o777 == 0o755
    finally:
        os.umask(before)


def test_a_lease_that_cannot_be_looked_at_is_not_over(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert not Lease("loop", 0, str(tmp_path / "loop")).is_over()
    assert Lease("gone", 0, str(tmp_path / "gone")).is_over()


def test_a_lease_that_cannot_be_released_is_no_failure_and_ends_nevertheless(
    leases: Leases, database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = database.transaction

    def fail(**_: object) -> None:
        raise OSError(28, "No space left on device")

    with leases.hold() as lease:
        monkeypatch.setattr(database, "transaction", fail)
    monkeypatch.setattr(database, "transaction", real)
    assert "could not be released" in caplog.text
    assert lease.is_over()
    assert _end(database) == 1
