"""`python -m ocidiff` is `ocidiff`."""

from __future__ import annotations

import sys

from ocidiff.cli.main import main

sys.exit(main())
