"""Times as text, in Go's form of RFC 3339. They are never parsed into clocks, so that what is read is written back whole."""

from __future__ import annotations

import re
import time
from typing import Final

NS_PER_SECOND: Final = 10**9
_RFC3339: Final = (
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)


def is_timestamp(text: str) -> bool:
    """Return True if the text is a time that every reader takes. Spec: RFC 3339, section 5.6."""
    return re.fullmatch(_RFC3339, text) is not None


def timestamp(time_ns: int) -> str:
    """The time in UTC, trailing zeros of the fraction cut, as Go's `RFC3339Nano`.

    Args:
        time_ns: Nanoseconds since 1970, of the years 0 to 9999.
    """
    seconds, fraction = divmod(time_ns, NS_PER_SECOND)
    moment = time.gmtime(seconds)
    text = f"{moment.tm_year:04}-{moment.tm_mon:02}-{moment.tm_mday:02}T"
    text += f"{moment.tm_hour:02}:{moment.tm_min:02}:{moment.tm_sec:02}"
    return text + (f".{fraction:09}".rstrip("0") if fraction else "") + "Z"


def time_ns_of(text: str) -> int | None:
    """Return nanoseconds since 1970 of a time in RFC 3339; None if the text is no such time."""
    from datetime import datetime

    if not is_timestamp(text):
        return None
    fraction = re.search(r"\.([0-9]+)", text)
    try:
        # Python reads no more than microseconds.
        moment = datetime.fromisoformat(text.replace(fraction[0], "") if fraction else text)
    except ValueError:
        # The form is right, the date does not exist.
        return None
    return int(moment.timestamp()) * NS_PER_SECOND + (int(fraction[1][:9].ljust(9, "0")) if fraction else 0)
