"""How PostgreSQL's values become Python's: one that Python cannot hold is read as the nearest, or as a note of why.

A row that an earlier release stored, or someone by hand, must not make a page of jobs unreadable.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from psycopg2 import extensions

#: The first and the last moment that Python knows; PostgreSQL's go on to the year 294276, and to infinity.
EARLIEST, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)

#: PostgreSQL writes JSON with nothing before or after it, for which `json.loads` looks in twice the time.
_DECODER = json.JSONDecoder()


def json_of(text: str) -> Any:
    """The value of a JSON column, or a note of why it cannot be read.

    Example:
        >>> json_of("[" * 100_000 + "]" * 100_000)
        {'djps_not_shown': 'cannot be read (RecursionError)'}
    """
    try:
        return _DECODER.raw_decode(text)[0]
    except (RecursionError, ValueError) as error:
        return {"djps_not_shown": f"cannot be read ({type(error).__name__})"}


def moment_of(text: Any, cursor: Any) -> datetime | None:
    """A time as Python has it; one that Python cannot have is the nearest that it can."""
    try:
        moment: datetime | None = extensions.PYDATETIMETZ(text, cursor)
    except (ValueError, OverflowError):
        return EARLIEST if str(text).endswith("BC") or str(text).startswith(("-", "0001")) else LATEST
    if moment is not None and moment.tzinfo is None:
        # What psycopg2 makes of an infinity.
        return moment.replace(tzinfo=UTC)
    return moment


extensions.register_type(extensions.new_type(extensions.PYDATETIMETZ.values, "DJPS_TIMESTAMPTZ", moment_of))
