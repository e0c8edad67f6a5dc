"""The command as an installed wheel has it: with its modules compiled, which a build in the source tree does not do."""

from __future__ import annotations

import compileall
import sys
from pathlib import Path

import ocidiff


def compiled_command() -> Path:
    """The path of `ocidiff` beside this interpreter, once the bytecode of all its modules is up to date."""
    compileall.compile_dir(Path(ocidiff.__file__).parent, quiet=1)
    return Path(sys.executable).with_name("ocidiff")
