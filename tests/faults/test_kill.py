"""A call that is killed at any system call leaves a sound store, loses nothing, and succeeds when it is tried again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from faults.scenario import CALLS, Scenario, evenly

# For each call; `make soak-kill` asks for more.
MOMENTS = int(os.environ.get("OCIDIFF_KILLS", "3"))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", CALLS)
def test_kill(name: str, template: Path, tmp_path: Path) -> None:
    call = CALLS[name]
    steps = Scenario(template, tmp_path / "counted").steps(call)
    assert len(steps) > 10
    chosen = evenly(steps, MOMENTS)
    for step, number in chosen:
        scenario = Scenario(template, tmp_path / "killed")
        done = scenario.run(call, strace=("-e", f"trace={step}", "-e", f"inject={step}:signal=KILL:when={number}"))
        assert done.returncode in {0, 137, -9}, (step, number, done.stderr)
        try:
            scenario.check(call, done)
        except BaseException as error:
            error.add_note(f"killed at {step} number {number}")
            raise
    print(f"{name}: killed at {len(chosen)} of {len(steps)} system calls")
