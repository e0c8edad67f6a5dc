"""The option of commands that may write a change as several layers."""

from __future__ import annotations

from typing import Final

import click

split_option: Final = click.option(
    "--layers",
    metavar="N",
    type=click.IntRange(1, 16),
    default=1,
    show_default=True,
    help="Write the change as N layers by path, at most. A later commit writes only the layers that it touches.",
)
