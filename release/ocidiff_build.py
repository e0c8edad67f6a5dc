"""The build backend: that of maturin, which is asked only if the tools are there that it needs.

maturin's own report of a missing toolchain is long, and it would download one.
"""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

from maturin import (  # type: ignore[import-untyped]
    build_editable,
    build_sdist,
    build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def get_requires_for_build_wheel(_config_settings: dict[str, Any] | None = None) -> list[str]:
    """Return no further packages.

    Raises:
        SystemExit: Rust or a C compiler is missing, or Rust is too old; one line says which.
    """
    missing = _missing_tool()
    if missing:
        raise SystemExit(f"ocidiff: cannot build the extension: {missing}, or use a wheel, which needs neither Rust nor C")
    return []


get_requires_for_build_editable = get_requires_for_build_wheel
get_requires_for_build_sdist = get_requires_for_build_wheel


def _missing_tool() -> str:
    """Return what is missing and how to get it, or nothing."""
    wanted = tomllib.loads(Path("Cargo.toml").read_text(encoding="utf-8"))["workspace"]["package"]["rust-version"]
    if shutil.which("cargo") is None:
        return f"cargo not found: install Rust {wanted} or newer (rustup, or your distribution)"
    found = subprocess.run(["cargo", "--version"], capture_output=True, text=True, check=False).stdout.split()[1:2]
    if found and _numbers(found[0]) < _numbers(wanted):
        return f"Rust {found[0]} is too old: install Rust {wanted} or newer (rustup, or your distribution)"
    if shutil.which("cc") is None:
        return "cc not found: install a C compiler (on Debian: apt-get install gcc libc6-dev)"
    return ""


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.partition("-")[0].split(".")]
