"""Docstrings and doc comments say what a thing is or does: they open with no question word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPENING = r"(?:Whether|What|Who|Which|Where|How|That)\b"
FILES = sorted([*(ROOT / "python").rglob("*.py"), *(ROOT / "rust").glob("ocidiff-*/src/**/*.rs")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_docstring_opens_with_a_question_word(path: Path) -> None:
    text = path.read_text()
    if path.suffix == ".py":
        assert re.findall(rf'"""{OPENING}.*', text) == []
        return
    # The first line of each doc comment.
    assert re.findall(rf"^(?! *///).*\n *(/// {OPENING}.*)|\A(//! {OPENING}.*)", text, re.MULTILINE) == []
