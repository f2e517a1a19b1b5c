"""The result of a handler: JSON text that PostgreSQL and every client can read back, or a note of why it was not kept."""

from __future__ import annotations

import json
import re
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from webapp.infra.postgres.literals import json_of
from webapp.jobs.functions import check_run
from webapp.jobs.nesting import MAX_DEPTH, is_deeper

#: A NUL in JSON text; with an odd number of backslashes before it, it is text about a NUL.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def keepable(result: Any, limit: int) -> str | None:
    """A handler's result as JSON text; one that cannot be kept is replaced by a note of why.

    The work is done by then, so a result that is too large must not fail the job.

    Args:
        limit: largest text, bytes.

    Raises:
        NeverRan: the result is work that was not done.
        SoftTimeLimitExceeded: the time is over.
    """
    if result is None:
        return None
    check_run(result)
    try:
        if is_deeper(result, MAX_DEPTH, most=limit):
            return _dropped(f"nested deeper than {MAX_DEPTH} levels, or more than MAX_RESULT_BYTES ({limit})")
        kept = json_of(result)
        size = len(kept.encode())
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:  # noqa: BLE001 - a handler's subclass of dict may raise anything
        is_surrogate = isinstance(error, UnicodeEncodeError)
        return _dropped(
            "lone surrogates are not storable" if is_surrogate else f"not JSON ({type(error).__name__})"
        )
    if size > limit:
        return _dropped(f"{size} bytes are more than MAX_RESULT_BYTES ({limit})")
    return _dropped("\\u0000 is not storable") if _NUL.search(kept) else kept


def _dropped(reason: str) -> str:
    return json.dumps({"djps_result_dropped": reason})
