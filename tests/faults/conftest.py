"""The store that calls are disturbed in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from faults.scenario import make_template
from support import probes


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("strace") is None:
        probes.missing("needs strace")
    place = tmp_path_factory.mktemp("template")
    make_template(place)
    return place
