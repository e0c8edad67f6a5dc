"""Every hostile layer, in both engines and by both ways to a directory: what must come of it, and nothing elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cases
import pytest
from cases import Case

from ocidiff.layer.engine import Engine
from support import probes, verbs, verdicts

MAX_BYTES = 10_000_000


@pytest.mark.parametrize("case", cases.ALL, ids=str)
def test_a_hostile_layer_does_what_it_must(engine: Engine, target: Path, case: Case) -> None:
    if case.error is None:
        verbs.apply(engine, case.layer(), target, max_bytes=MAX_BYTES)
    else:
        with pytest.raises(case.error):
            verbs.apply(engine, case.layer(), target, max_bytes=MAX_BYTES)
    assert case.check(target)


@pytest.mark.parametrize("case", cases.ALL, ids=str)
def test_both_engines_say_and_leave_the_same(rust: Engine, pure: Engine, case: Case) -> None:
    verdicts.assert_same(rust, pure, case.layer(), scans=case.name != "path-of-5000-bytes", max_bytes=MAX_BYTES)


def test_names_of_cases_are_not_shared() -> None:
    assert len({case.name for case in cases.ALL}) == len(cases.ALL)


# Where openat2 is answered with "no such system call" (seccomp, on this thread and all it starts), by its number 437.
_WITHOUT_OPENAT2 = """
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 437), (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(program)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(filter_), 0, 0) == 0, ctypes.get_errno()
assert libc.syscall(437, -100, b".", 0, 0) == -1 and ctypes.get_errno() == 38
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-k", "does_what_it_must and rust", sys.argv[1]]))
"""


def test_the_same_holds_where_the_kernel_knows_no_openat2(tmp_path: Path) -> None:
    if not probes.has_rust():
        probes.missing("ocidiff._core is not built")
    # Its temporary directories are its own: those of the run around it are swept by every run that starts.
    env = {**os.environ, "PYTEST_DEBUG_TEMPROOT": str(tmp_path)}
    command = [sys.executable, "-c", _WITHOUT_OPENAT2, __file__]
    run = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
