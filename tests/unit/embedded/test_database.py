"""The database: whole or not there, refused when it is not ours, and its failures told as the system's."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ocidiff.embedded.database import Database
from ocidiff.embedded.renewal import renew
from ocidiff.embedded.schema import VERSION, run_steps
from ocidiff.embedded.tables.content import labelled
from ocidiff.errors import BusyError, DocumentError, UnsupportedError


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ocidiff.db")


@pytest.fixture
def database(path: str) -> Iterator[Database]:
    opened = Database.open(path)
    yield opened
    opened.close()


def _put(database: Database, name: str) -> None:
    with database.transaction() as connection:
        connection.execute("INSERT INTO content VALUES (?, 1, 1)", (name,))


def _names(database: Database) -> list[str]:
    with database.reading() as connection:
        return [row[0] for row in connection.execute("SELECT digest FROM content ORDER BY digest")]


def test_a_new_database_is_whole_and_logs_ahead(database: Database, path: str, tmp_path: Path) -> None:
    assert database.damage() == database.broken_references() == []
    with database.reading() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
        tables = connection.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'").fetchall()
    assert {name for name, strict in tables if not strict and not name.startswith("sqlite_")} == set()
    assert {file.name for file in tmp_path.iterdir()} <= {"ocidiff.db", "ocidiff.db-wal", "ocidiff.db-shm"}


def test_a_transaction_is_kept_whole_or_undone_whole(database: Database) -> None:
    _put(database, "a")

    def fail() -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO content VALUES ('b', 1, 1)")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert _names(database) == ["a"]
    _put(database, "c")
    assert _names(database) == ["a", "c"]


def test_what_was_durable_is_there_for_the_next_one(path: str) -> None:
    first = Database.open(path)
    with first.transaction(durable=True) as connection:
        connection.execute("INSERT INTO content VALUES ('a', 1, 1)")
    first.close()
    second = Database.open(path)
    assert _names(second) == ["a"]
    second.close()


def test_a_newer_database_is_refused_and_left_as_it_is(database: Database, path: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(UnsupportedError, match="made by a newer ocidiff"):
        Database.open(path)


def test_an_older_database_is_brought_up_to_date(path: str, tmp_path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA application_id = 0x6F636964")
    database = Database.open(path)
    _put(database, "a")
    database.close()


def test_labels_of_a_store_from_before_the_index_are_found_by_it(path: str) -> None:
    digest = "sha256:" + "a" * 64
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA application_id = 0x6F636964")
        for number in range(2):
            run_steps(connection, number)
        connection.execute("INSERT INTO content VALUES (?, 1, 1)", (digest,))
        connection.execute("INSERT INTO content_label VALUES (?, 'name', 'value')", (digest,))
    database = Database.open(path)
    asked: list[str] = []
    with database.reading() as connection:
        connection.set_trace_callback(asked.append)
        assert labelled(connection, "name", "value") == [digest]
        connection.set_trace_callback(None)
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {asked[-1]}"))
    assert plan.startswith("SEARCH content_label"), plan
    database.close()


@pytest.mark.parametrize("content", [b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_refused(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
    with pytest.raises(DocumentError, match="not a database"):
        Database.open(path)
    assert Path(path).read_bytes() == content


def test_the_database_of_something_else_is_refused(path: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(DocumentError, match="not a database of ocidiff"):
        Database.open(path)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        Database.open(str(tmp_path / "missing" / "ocidiff.db"))
    (tmp_path / "ocidiff.db").mkdir()
    with pytest.raises(IsADirectoryError, match=r"ocidiff\.db"):
        Database.open(str(tmp_path / "ocidiff.db"))


def test_a_full_disk_is_told_as_one_and_undoes_the_transaction(database: Database) -> None:
    with database.reading() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    def fill() -> None:
        with database.transaction() as connection:
            connection.executemany("INSERT INTO content VALUES (?, 1, 1)", [("x" * 100 + str(n),) for n in range(1000)])

    with pytest.raises(OSError, match="No space left on device"):
        fill()
    assert _names(database) == []


def test_a_lock_that_is_held_too_long_is_told(database: Database, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocidiff.embedded.connection._LOCK_SECONDS", 0.05)
    other = Database.open(path)
    with database.transaction(), pytest.raises(BusyError, match="locked by another process"):
        _put(other, "a")
    other.close()


def test_readers_see_one_state_while_others_write(database: Database, path: str) -> None:
    other = Database.open(path)
    with database.reading():
        assert _names(database) == []
        _put(other, "a")
        assert _names(database) == []
    assert _names(database) == ["a"]
    other.close()


def test_threads_share_a_database(database: Database) -> None:
    threads = [threading.Thread(target=_put, args=(database, f"n{number:02}")) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_names(database)) == 20


def _open_and_put(path: str, name: str) -> None:
    database = Database.open(path)
    _put(database, name)
    database.close()


def test_processes_that_make_it_at_once_make_one(path: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_open_and_put, args=(path, f"n{number}")) for number in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    database = Database.open(path)
    assert len(_names(database)) == 6
    database.close()
    assert [file.name for file in tmp_path.iterdir()] == ["ocidiff.db"]


def _spoil(path: str, page: int) -> None:
    with open(path, "r+b") as file:
        file.seek(page * 4096)
        file.write(b"\xff" * 4096)


def _rootpage(database: Database, table: str) -> int:
    with database.reading() as connection:
        return int(connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0])


def test_a_malformed_database_says_what_to_do(path: str) -> None:
    Path(path).write_bytes(b"x" * 5000)
    with pytest.raises(DocumentError, match="run 'ocidiff verify --repair'"):
        Database.open(path)


def test_what_can_be_read_of_a_malformed_database_is_kept(path: str, tmp_path: Path) -> None:
    database = Database.open(path)
    with database.transaction() as connection:
        connection.executemany("INSERT INTO content VALUES (?, 1, 1)", [("x" * 100 + str(n),) for n in range(1000)])
        connection.execute("INSERT INTO snapshot VALUES (7, 'd', 'k', 'active', NULL, 1, 1, NULL)")
        connection.execute("INSERT INTO container VALUES ('work', 7, 'i', '{}', 1, NULL)")
    page = _rootpage(database, "content")
    database.close()
    _spoil(path, page - 1)
    before = Path(path).read_bytes()
    known: list[frozenset[int]] = []
    assert renew(path, str(tmp_path / "aside"), known.append) == ["content"]
    assert known == [frozenset({7})]
    assert (tmp_path / "aside").read_bytes() == before
    renewed = Database.open(path)
    assert renewed.damage() == renewed.broken_references() == []
    with renewed.reading() as connection:
        assert connection.execute("SELECT name FROM container").fetchall() == [("work",)]
    renewed.close()


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_set_aside(path: str, tmp_path: Path, content: bytes) -> None:
    Path(path).write_bytes(content)
    Path(path + "-wal").write_bytes(b"of another one")
    assert "container" in renew(path, str(tmp_path / "aside"), lambda _: None)
    assert (tmp_path / "aside").read_bytes() == content
    database = Database.open(path)
    _put(database, "a")
    database.close()
    assert {file.name for file in tmp_path.iterdir()} - {"aside-wal", "aside-shm"} == {"ocidiff.db", "aside"}


def test_rows_that_refer_to_lost_ones_are_lost_too(path: str, tmp_path: Path) -> None:
    Database.open(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO container VALUES ('work', 7, 'i', '{}', 1, NULL)")
        connection.commit()
    assert renew(path, str(tmp_path / "aside"), lambda _: None) == ["container"]
    database = Database.open(path)
    assert database.broken_references() == []
    database.close()


def test_whoever_has_a_database_open_that_is_replaced_writes_no_more(path: str, tmp_path: Path) -> None:
    database = Database.open(path)
    _put(database, "a")
    renew(path, str(tmp_path / "aside"), lambda _: None)
    with pytest.raises(BusyError, match="was removed or replaced while this call ran: run it again"):
        _put(database, "b")
    other = Database.open(path)
    _put(other, "c")
    # It must not take the log of the new one away.
    database.close()
    _put(other, "d")
    other.close()
    again = Database.open(path)
    assert _names(again) == ["a", "c", "d"]
    assert again.damage() == []
    again.close()


def test_the_log_of_a_database_that_was_removed_is_not_taken_for_that_of_the_next(path: str) -> None:
    database = Database.open(path)
    _put(database, "a")
    log = Path(path + "-wal").read_bytes()
    database.close()
    Path(path).unlink()
    Path(path + "-wal").write_bytes(log)
    again = Database.open(path)
    assert _names(again) == []
    assert again.damage() == []
    again.close()


def test_what_is_left_of_a_database_half_made_is_removed(path: str, tmp_path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}.{'a' * 16}{suffix}").touch()
    Database.open(path).close()
    assert [file.name for file in tmp_path.iterdir()] == ["ocidiff.db"]


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_the_umask_decides_no_mode(path: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        database = Database.open(path)
        _put(database, "a")
        assert {os.stat(path + suffix).st_mode & 0o777 for suffix in ("", "-wal", "-shm")} == {0o644}
        database.close()
    finally:
        os.umask(before)
