"""Records: what the server logs, a line for each record, in the `key=value` form of containerd's own log."""

from __future__ import annotations

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import Final

from ocidiff.log import listen

_FIELDS: Final = "ocidiff_fields"
_log = logging.getLogger("ocidiff.serve")
_current = threading.local()


def begin(level: int = logging.INFO) -> None:
    """Send what the package logs to stderr in this form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    package = logging.getLogger("ocidiff")
    package.setLevel(level)
    package.propagate = False
    listen(lambda: handler)
    # The first record of the package asks for the handler; those of this module do not pass there.
    _log.addHandler(handler)
    _log.propagate = False


def in_request(number: str | None) -> None:
    """Name the request that this thread works on from now on; None for none."""
    _current.request = number


def say(text: str, **fields: object) -> None:
    """Log what happened."""
    _log.info(text, extra={_FIELDS: fields})


def warn(text: str, **fields: object) -> None:
    """Log what should not happen."""
    _log.warning(text, extra={_FIELDS: fields})


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "msg": record.getMessage(),
            "request": getattr(_current, "request", None),
            **getattr(record, _FIELDS, {}),
        }
        return " ".join(f"{name}={_quoted(value)}" for name, value in fields.items() if value not in {None, ""})


def _quoted(value: object) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    return text if text.isascii() and text.isprintable() and not {" ", '"', "="} & set(text) else json.dumps(text)
