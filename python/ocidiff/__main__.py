"""`python -m ocidiff` is `ocidiff`."""

from __future__ import annotations

from ocidiff.cli.main import run

run()
