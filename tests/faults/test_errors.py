"""A system call that fails, whichever it is, fails the call with one line; the store is sound, and the next try succeeds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from faults.scenario import CALLS, Scenario, evenly

# For each call and kind of error; `make soak-errors` asks for more.
STEPS = int(os.environ.get("OCIDIFF_ERRORS", "1"))

WRITING = {"write", "pwrite64", "writev", "ftruncate", "copy_file_range"}
MAKING = {"mkdir", "mkdirat", "rename", "renameat", "renameat2", "link", "linkat", "symlinkat", "mknodat"}
SYNCING = {"fsync", "fdatasync", "syncfs"}
# Errors, and the system calls that may fail with them.
ERRORS = {
    "ENOSPC": WRITING | MAKING,
    "EDQUOT": WRITING | MAKING,
    "EIO": WRITING | SYNCING | MAKING,
    "EMFILE": {"openat", "fsopen"},
}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", ["commit", "commit-container", "create", "create-committed", "gc", "rm"])
def test_errors(name: str, error: str, template: Path, tmp_path: Path) -> None:
    call = CALLS[name]
    steps = [step for step in Scenario(template, tmp_path / "counted").steps(call) if step[0] in ERRORS[error]]
    # The first ones may be optional: what is only tried.
    assert steps
    chosen = evenly(steps[len(steps) // 3 :] if STEPS == 1 else steps, STEPS)
    for step, number in chosen:
        scenario = Scenario(template, tmp_path / "failed")
        done = scenario.run(call, strace=("-e", f"trace={step}", "-e", f"inject={step}:error={error}:when={number}"))
        try:
            assert done.returncode in {0, 1}, done.stderr
            assert done.returncode == 0 or done.stderr.count("\n") == 1, done.stderr
            scenario.check(call, done)
        except BaseException as failure:
            failure.add_note(f"{error} from {step} number {number}")
            raise
    print(f"{name}: {error} at {len(chosen)} of {len(steps)} system calls")
