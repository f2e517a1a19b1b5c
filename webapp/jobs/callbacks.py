"""The part of the store that tells others of a job's end: final jobs with a `callback_url`, and a job for each.

The outcome is delivered by an `http` job of its own, with its own retries and, should they not suffice, its own
dead letter. Functions take a connection and never commit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from webapp.infra.jsontext import iso
from webapp.infra.postgres.literals import array_of, json_of, kept_as_sent, text_array_of
from webapp.infra.postgres.sql_files import read_sql
from webapp.jobs import retention
from webapp.jobs.nesting import MAX_DEPTH, is_deeper

#: Largest result that is sent along, bytes of JSON; of a larger one is said that it was left out.
MAX_RESULT_BYTES = 65_536
#: Seconds before each retry of a delivery: quick at first, then for a day and a half, as receivers are down for hours.
BACKOFF = (5, 30, 300, 1_800, 7_200, 18_000, 36_000, 64_800)
#: The handler that delivers.
TASK = "http"


@dataclass(frozen=True, slots=True)
class Ending:
    """A job that is final and whose callback is not made yet."""

    id: UUID
    callback_url: str
    status: str
    task: str
    queue: str
    attempt: int
    retry_count: int
    tags: list[str]
    result: Any
    result_omitted: bool
    result_note: str | None
    last_error: str | None
    created_at: datetime
    finished_at: datetime


_TAKE_ENDED, _INSERT = (text(read_sql(__file__, "callbacks", name)) for name in ("take_ended", "insert"))


def take_ended(connection: Connection, limit: int, since: datetime = retention.BEGINNING) -> list[Ending]:
    """Locks final jobs whose end was not told yet.

    Args:
        limit: most jobs.
        since: only jobs that ended then or later; history before it is not looked at.
    """
    rows = connection.execute(_TAKE_ENDED, {"limit": limit, "largest": MAX_RESULT_BYTES, "since": since})
    return [Ending(*row) for row in rows]


def insert_callbacks(
    connection: Connection, endings: Sequence[Ending], ids: Sequence[UUID], *, queue: str, timeout: float
) -> int:
    """Stores a job for each ending and notes it there, in one statement; returns how many were stored.

    `callback_of` says in the new row whose end it tells of. No submission can set it, so it is what lets a call be signed
    as a callback.

    Args:
        ids: of the new jobs, one for each ending.
        queue: where they wait.
        timeout: seconds an attempt may take.
    """
    payloads = [json_of(payload_of(ending)) for ending in endings]
    return connection.execute(
        _INSERT,
        {
            "ids": array_of(ending.id for ending in endings),
            "since": min(ending.finished_at for ending in endings),
            "callback_ids": array_of(ids),
            "payloads": text_array_of(payloads),
            "as_sent": text_array_of(kept_as_sent(payload) for payload in payloads),
            "task": TASK,
            "queue": queue,
            "max_retries": len(BACKOFF),
            "timeout": timeout,
            "backoff": json.dumps(BACKOFF),
        },
    ).rowcount


def payload_of(ending: Ending) -> dict[str, Any]:
    """The payload of the `http` job that tells of a job's end. Pure.

    The body has the form that the Standard Webhooks specification recommends: `type`, `timestamp`, `data`. Every
    answer but 2xx is tried again: a receiver that is being deployed says 404 for a while.
    """
    # A result that was stored before there was a limit.
    is_deep = is_deeper(ending.result, MAX_DEPTH)
    data = {
        "id": str(ending.id),
        "status": ending.status,
        "task": ending.task,
        "queue": ending.queue,
        "attempt": ending.attempt,
        "retry_count": ending.retry_count,
        "tags": ending.tags,
        "result": None if is_deep else ending.result,
        "result_omitted": ending.result_omitted or is_deep,
        "result_note": ending.result_note,
        "last_error": ending.last_error,
        "created_at": iso(ending.created_at),
        "finished_at": iso(ending.finished_at),
    }
    body = {"type": f"job.{ending.status}", "timestamp": iso(ending.finished_at), "data": data}
    return {"task": TASK, "url": ending.callback_url, "json": body, "retry_on": ["3xx", "4xx"]}
