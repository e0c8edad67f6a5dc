"""Write `docs/reference/commands.md` from the help of the commands: `python docs/commands.py [--check]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from ocidiff.cli.group import group

PAGE: Final = Path(__file__).with_name("reference") / "commands.md"
HEAD: Final = """# Commands

What `ocidiff COMMAND --help` prints. Results go to stdout; progress, warnings and errors go to stderr.

| exit status | meaning |
|---|---|
| 0 | done |
| 1 | failed: one line on stderr says what, where and why. `changes --exit-code`: the trees differ |
| 2 | wrong usage. `changes --exit-code`: any trouble |
| 3 | the change is larger than `--fail-above` |
| 130 | interrupted |
"""


def page() -> str:
    """Return the text of the page."""
    parts = [HEAD]
    with click.Context(group, info_name="ocidiff") as above:
        for name in group.list_commands(above):
            command = group.get_command(above, name)
            if command is not None:
                with click.Context(command, info_name=name, parent=above, max_content_width=100) as context:
                    context.terminal_width = 100
                    parts.append(f"## {name}\n\n```\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(None if PAGE.read_text() == page() else f"{PAGE} is not current: run python docs/commands.py")
    PAGE.write_text(page())
