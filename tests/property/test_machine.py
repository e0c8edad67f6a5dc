"""The generated trees hold only what the machine can make; where everything is required, it can make everything."""

from __future__ import annotations

import os

import pytest

from support import probes


@pytest.mark.skipif(os.environ.get("OCIDIFF_REQUIRE") != "all", reason="not everything is required")
def test_the_machine_can_make_every_kind_of_file() -> None:
    assert all(probes.abilities().values()), probes.abilities()
