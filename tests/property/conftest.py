"""How many examples the laws see, and the account of them."""

from __future__ import annotations

import os
from collections.abc import Generator

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Put what a law has seen into the report of its test, which comes from whichever process ran it."""
    strategies.RAN.clear()
    try:
        return (yield)
    finally:
        item.user_properties += strategies.RAN.items()
