"""Many processes at once on one store: no error but the expected conflicts, nothing lost, nothing leaked."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from faults.scenario import driver, make_template
from ocidiff.embedded.leases import Leases
from ocidiff.errors import AlreadyExistsError, InUseError, NotFoundError
from ocidiff.mounts import mountinfo
from ocidiff.store import Store
from ocidiff.store.embedded import EmbeddedStore

SECONDS = float(os.environ.get("OCIDIFF_PROCESSES_SECONDS", "8"))
PROCESSES = int(os.environ.get("OCIDIFF_PROCESSES", "4"))

# Errors that other processes may have caused in between.
CONFLICTS = (AlreadyExistsError, InUseError, NotFoundError)


def _act(store: EmbeddedStore, place: Path, worker: int, turn: random.Random) -> str:
    """Do one thing, and say what."""
    what = turn.choice(("commit", "commit", "create", "change", "rm", "gc", "verify", "tag", "rmi", "unpack"))
    number = turn.randrange(4)
    mine = f"w{worker}-{number}"
    # Half of the names are everybody's.
    name = mine if turn.random() < 0.5 else f"shared{number}"
    if what == "commit":
        tree = place / f"tree{worker}"
        (tree / "etc" / "mine").write_text(str(turn.random()))
        store.commit(tree, f"{name}:1", base="base:1")
    elif what == "create":
        store.create(turn.choice((f"{name}:1", "base:1")), name, driver=driver())
    elif what == "change":
        root = store.containers.mount(mine)
        (Path(root) / "etc" / f"change{turn.randrange(5)}").write_text(str(turn.random()))
        store.containers.umount(mine)
        store.commit(store.containers.get(mine), f"{mine}:2")
        if turn.random() < 0.5:
            store.containers.remove(mine)
        store.create(f"{mine}:2", mine, driver=driver())
    elif what == "rm":
        store.containers.remove(name)
    elif what == "gc":
        store.collect()
    elif what == "verify":
        faults = store.verify().faults
        assert faults == (), faults
    elif what == "tag":
        store.tag("base:1", f"{name}:3")
    elif what == "rmi":
        store.untag(f"{name}:1")
    else:
        out = place / f"out{worker}-{time.monotonic_ns()}"
        store.unpack("base:1", out)
        assert (out / "etc" / "second").read_text() == "2"
    return what


def _work(place: Path, worker: int, until: float, report: Path) -> None:
    turn = random.Random(worker)
    counts: Counter[str] = Counter()
    errors: list[str] = []
    while time.time() < until:
        try:
            # As many processes would: each call opens the store anew.
            with Store.open(place / "store", create=False) as store:
                counts[_act(store, place, worker, turn)] += 1
        except CONFLICTS as error:
            counts[f"conflict: {type(error).__name__}"] += 1
        except Exception as error:  # noqa: BLE001 - all of them are told at the end
            errors.append(f"{type(error).__name__}: {error}")
    report.write_text(json.dumps([counts, errors]))


@pytest.mark.timeout(3600)
def test_processes(tmp_path: Path) -> None:
    place = tmp_path / "place"
    make_template(place)
    for worker in range(PROCESSES):
        tree = place / f"tree{worker}" / "etc"
        tree.mkdir(parents=True)
        for number in range(20):
            (tree / f"file{number}").write_text(str(number) * 2000)
    context = multiprocessing.get_context("spawn")
    until = time.time() + SECONDS
    reports = [tmp_path / f"report{worker}" for worker in range(PROCESSES)]
    processes = [context.Process(target=_work, args=(place, worker, until, reports[worker])) for worker in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    counts: Counter[str] = Counter()
    errors: list[str] = []
    for report in reports:
        some, other = json.loads(report.read_text())
        counts.update(some)
        errors += other
    print(f"{PROCESSES} processes, {SECONDS:.0f} s: {dict(sorted(counts.items()))}")
    assert errors == []
    assert sum(counts.values()) > PROCESSES
    with Store.open(place / "store", create=False) as store:
        assert store.verify().faults == ()
        assert Leases(store._layout.database).leases() == []
        assert not [point for point in mountinfo.mount_points() if point.startswith(str(place))]
        for container in store.containers.list():
            store.containers.remove(container.name)
        for record in store.images():
            assert record.name is not None
            store.untag(record.name)
        store.collect()
        assert store.verify().snapshots == 0
    for directory in ("ingest", "snapshots", "blobs/sha256", "mounts"):
        assert os.listdir(place / "store" / directory) == [], directory
