"""Handlers to try things with: `noop`, `sleep`, `fail`."""

from __future__ import annotations

import time
from typing import Any

from webapp.jobs import Discard, JobContext, handler

#: How often a sleeping job looks whether it should stop, seconds.
LOOK_EVERY = 1.0
#: Longest sleep a job may ask for, seconds.
MAX_SLEEP = 3_600.0


@handler("noop")
def noop(payload: dict[str, Any], context: JobContext) -> None:
    """Does nothing."""


@handler("sleep")
def sleep(payload: dict[str, Any], context: JobContext) -> dict[str, float]:
    """Sleeps `payload["seconds"]` (1 when not given) and says so.

    Raises:
        Discard: `seconds` is no number from 0 to `MAX_SLEEP`.
        Cancelled: the job's cancellation was asked.
    """
    seconds = payload.get("seconds", 1)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= MAX_SLEEP:
        raise Discard(
            f"payload.seconds must be a number from 0 to {MAX_SLEEP:g}; given: {str(seconds)[:50]!r}"
        )
    end = time.monotonic() + seconds
    done = 0.0
    while (left := end - time.monotonic()) > LOOK_EVERY:
        time.sleep(LOOK_EVERY)
        done += LOOK_EVERY
        context.check_cancelled()
        context.progress(done, seconds)
    time.sleep(max(0.0, left))
    return {"slept": float(seconds)}


class AlwaysFails(Exception):
    """What `fail` raises."""


@handler("fail")
def fail(payload: dict[str, Any], context: JobContext) -> None:
    """Fails every time."""
    raise AlwaysFails("this handler always fails")
