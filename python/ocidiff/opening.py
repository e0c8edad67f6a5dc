"""Flags that open directories, and files without reading them. No descriptor is inherited."""

from __future__ import annotations

import os
from typing import Final

ROOT: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
"""A directory to list. Its path may be a symbolic link."""
ROOT_HANDLE: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
"""A directory without the right to read it. Its path may be a symbolic link."""
DIRECTORY: Final = ROOT | os.O_NOFOLLOW
"""A directory to list."""
DIRECTORY_HANDLE: Final = ROOT_HANDLE | os.O_NOFOLLOW
"""A directory without the right to read it."""
HANDLE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
"""A file of any kind, without the right to read it."""
