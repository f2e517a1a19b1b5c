"""Examples of requests and answers of the dead letter queue, for the description of the API."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from webapp.api.examples import FAILED, JOB_ID, TRACEBACK, Examples, conflict, in_list, invalid
from webapp.jobs.errors import NoOpenLetter

_FINGERPRINT = "6f1d3a0c55b2e871"
_DEAD_AT = "2026-11-24T05:02:51.402007Z"
_LOOKED_FOR: dict[str, Any] = {
    "task": "fail",
    "queue": "default",
    "reason": "exhausted",
    "error_type": "RuntimeError",
    "dead_after": "2026-11-24T00:00:00Z",
    "dead_before": "2090-01-01T00:00:00Z",
    "limit": 20,
}
_NO_LETTER = conflict(NoOpenLetter(UUID(JOB_ID), "completed"))
_NO_CHOICE = invalid("body", "must have one of ids, filter and all", "dict")
_SOME = {
    "a selection": {"ids": [JOB_ID], "by": "ada", "why": "the mail server is back"},
    "what matches": {"filter": {"task": "fail", "dead_after": "2026-11-24T00:00:00Z"}},
    "how many would it be?": {"filter": {"reason": "exhausted"}, "dry_run": True},
}
_ONE = {"by whom, and why": {"by": "ada", "why": "the mail server is back"}, "without words": {}}


def _report(changed: int, last_run_at: str | None) -> dict[str, Any]:
    return {
        "matched": 2,
        "changed": changed,
        "more": False,
        "dry_run": False,
        "last_run_at": last_run_at,
        "next_start_at": None,
    }


JOBS = Examples(query=_LOOKED_FOR, answers={200: [in_list(FAILED)]})
LETTERS = Examples(
    query=_LOOKED_FOR | {"state": "open"},
    answers={
        200: {
            "items": [
                {
                    "id": 1,
                    "job_id": JOB_ID,
                    "task": "fail",
                    "queue": "default",
                    "reason": "exhausted",
                    "error_type": "RuntimeError",
                    "error_message": "this handler always fails",
                    "fingerprint": _FINGERPRINT,
                    "dead_at": _DEAD_AT,
                    "requeued_at": None,
                    "discarded_at": None,
                    "resolved_by": None,
                    "resolved_why": None,
                }
            ],
            "total": 1,
            "next_cursor": None,
        }
    },
)
HISTORY = Examples(
    query={"task": "fail", "queue": "default", "error_type": "RuntimeError", "fingerprint": _FINGERPRINT},
    answers={
        200: {
            "open": 2,
            "hours": [
                {"at": "2026-11-24T04:00:00Z", "opened": 0, "closed": 0},
                {"at": "2026-11-24T05:00:00Z", "opened": 3, "closed": 1},
            ],
        }
    },
)
GROUPS = Examples(
    query=_LOOKED_FOR,
    answers={
        200: {
            "items": [
                {
                    "task": "fail",
                    "queue": "default",
                    "error_type": "RuntimeError",
                    "fingerprint": _FINGERPRINT,
                    "count": 2,
                    "first_dead_at": "2026-11-24T05:01:12.001187Z",
                    "last_dead_at": _DEAD_AT,
                    "sample_job_id": JOB_ID,
                    "sample_message": "this handler always fails",
                    "sample_traceback": TRACEBACK,
                }
            ]
        }
    },
)
REQUEUE = Examples(
    bodies=_SOME
    | {
        "all, ten a second from a moment on": {
            "all": True,
            "rate": 10,
            "start_at": "2026-12-01T08:00:00+01:00",
        }
    },
    answers={200: _report(2, "2026-12-01T07:00:00.100000Z"), 422: _NO_CHOICE},
)
DISCARD = Examples(bodies=_SOME, answers={200: _report(2, None), 422: _NO_CHOICE})
REQUEUE_ONE = Examples(
    bodies=_ONE,
    answers={
        200: FAILED | {"status": "queued", "retry_count": 0, "finished_at": None},
        409: _NO_LETTER,
        422: invalid("by", "must be a string", "17"),
    },
)
DISCARD_ONE = Examples(
    bodies=_ONE, answers={200: FAILED, 409: _NO_LETTER, 422: invalid("by", "must be a string", "17")}
)
