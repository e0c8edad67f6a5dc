"""How many examples the laws see, and the account of them at the end of a run."""

from __future__ import annotations

import os

import pytest
import strategies
from hypothesis import HealthCheck, settings

settings.register_profile(
    "ocidiff",
    max_examples=int(os.environ.get("OCIDIFF_EXAMPLES", "100")),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("ocidiff")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for law, count in sorted(strategies.RAN.items()):
        terminalreporter.write_line(f"{count} examples: {law}")
