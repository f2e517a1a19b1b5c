"""The result of a handler: JSON text that PostgreSQL and every client can read back, or a note of why it was not kept."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from celery.exceptions import SoftTimeLimitExceeded

from tasks.attempt.json_values import NotJson, TooLarge, plain
from webapp.infra.postgres.literals import json_of
from webapp.jobs.error_report import storable
from webapp.jobs.functions import check_run
from webapp.jobs.nesting import MAX_DEPTH, is_deeper

#: Longest note, characters: a class may have any name.
MAX_NOTE = 200
#: A NUL in JSON text; with an odd number of backslashes before it, it is text about a NUL.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class Kept(NamedTuple):
    """What is kept of a result.

    Args:
        text: JSON text; None where there is none.
        note: why the result was not kept.
    """

    text: str | None = None
    note: str | None = None


_NOTHING = Kept()


def keepable(result: Any, limit: int) -> Kept:
    """What is kept of a handler's result.

    The work is done by then, so a result that is too large must not fail the job.

    Args:
        limit: largest text, bytes.

    Raises:
        NeverRan: the result is work that was not done.
        SoftTimeLimitExceeded: the time is over.
    """
    if result is None:
        return _NOTHING
    check_run(result)
    try:
        if is_deeper(result, MAX_DEPTH, most=limit):
            raise TooLarge  # noqa: TRY301 - the same as of one that is made plain
        text = _text_of(result, limit)
        size = len(text.encode())
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:  # noqa: BLE001 - a handler's subclass of dict may raise anything
        return Kept(note=storable(_reason(error, limit))[:MAX_NOTE])
    if size > limit:
        return Kept(note=f"{size} bytes are more than MAX_RESULT_BYTES ({limit})")
    return Kept(note="\\u0000 is not storable") if _NUL.search(text) else Kept(text)


def _text_of(result: Any, limit: int) -> str:
    """Its JSON; what JSON does not have is looked for where plain JSON was not enough."""
    try:
        return json_of(result)
    except TypeError:
        return json_of(plain(result, depth=MAX_DEPTH, most=limit))


def _reason(error: Exception, limit: int) -> str:
    match error:
        case UnicodeEncodeError():
            return "lone surrogates are not storable"
        case TooLarge():
            return f"nested deeper than {MAX_DEPTH} levels, or more than MAX_RESULT_BYTES ({limit})"
        case NotJson():
            return str(error)
        case _:
            return f"not JSON ({type(error).__name__})"
