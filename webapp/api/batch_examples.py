"""Examples of requests and answers of batches, for the description of the API."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from webapp.api.examples import COMPLETED, JOB_ID, OTHER_ID, Examples, in_list, invalid, problem
from webapp.batches.errors import BatchClosed, BatchEnded, BatchGone, UnknownBatch

BATCH_ID = "01a20bef-39a1-7c11-9d02-6f4be2a3c7d5"
_MADE, _CLOSED, _DONE = (
    "2026-11-24T05:00:40.120331Z",
    "2026-11-24T05:02:00.120331Z",
    "2026-11-24T05:04:10.120331Z",
)
_OPEN: dict[str, Any] = {
    "id": BATCH_ID,
    "name": "import-7310",
    "status": "open",
    "tenant": "default",
    "submitted_by": 7,
    "parent_id": None,
    "total": 1,
    "completed": 0,
    "failed": 0,
    "cancelled": 0,
    "open": 1,
    "rate": None,
    "expected_at": None,
    "complete_job_id": None,
    "success_job_id": None,
    "failure_job_id": None,
    "callback_job_id": None,
    "created_at": _MADE,
    "updated_at": _MADE,
    "open_until": "2026-11-25T05:00:40.120331Z",
    "closed_at": None,
    "closed_why": None,
    "finished_at": None,
    "cancel_requested_at": None,
    "cancel_reason": None,
    "is_retrying": False,
}
_EVENTS: dict[str, Any] = {
    "on_complete": {
        "task": "noop",
        "queue": "default",
        "payload": {"task": "noop", "mail": "the import has ended"},
    },
    "on_success": None,
    "on_failure": None,
    "callback_url": None,
}
_STATE = _OPEN | _EVENTS
_RUNNING = {
    "status": "closed",
    "total": 20_000,
    "completed": 12_400,
    "failed": 3,
    "open": 7_597,
    "rate": 155.2,
    "expected_at": "2026-11-24T05:03:40.120331Z",
    "updated_at": _CLOSED,
    "open_until": None,
    "closed_at": _CLOSED,
}
_ENDED = _RUNNING | {
    "status": "failed",
    "completed": 19_997,
    "open": 0,
    "rate": None,
    "expected_at": None,
    "complete_job_id": JOB_ID,
    "finished_at": _DONE,
    "updated_at": _DONE,
}
_ITEMS = {
    "created": 1,
    "existing": 0,
    "invalid": 1,
    "items": [
        {"outcome": "created", "id": OTHER_ID},
        {
            "outcome": "invalid",
            "errors": [{"field": "payload", "rule": "must be an object", "given": "'not an object'"}],
        },
    ],
}
_UNKNOWN = {
    404: problem(404, str(UnknownBatch(UUID(BATCH_ID)))),
    410: problem(410, str(BatchGone(UUID(BATCH_ID)))),
}
_CLOSED_ALREADY = {409: problem(409, str(BatchClosed(UUID(BATCH_ID))))}
_REASONS = {"with a reason": {"reason": "the file was wrong"}, "without one": {}}
_NO_REASON = {422: invalid("reason", "must be a string", "17")}

CREATE = Examples(
    bodies={
        "an import with a summary": {
            "name": "import-7310",
            "on_complete": {"payload": {"task": "noop", "mail": "the import has ended"}},
        },
        "all at once": {
            "jobs": [{"payload": {"task": "noop", "row": 1}}, {"payload": {"task": "noop", "row": 2}}],
            "close": True,
            "on_success": {"payload": {"task": "noop"}, "priority": 7},
            "on_failure": {"payload": {"task": "noop"}, "delay": 5},
        },
    },
    answers={
        201: _STATE | {"jobs": _ITEMS},
        200: _STATE | {"jobs": None},
        422: invalid("on_complete.queue", "must be one of the queues that have a worker (default)", "'mial'"),
        **_UNKNOWN,
        **_CLOSED_ALREADY,
    },
)
PAGE = Examples(
    query={"status": "closed", "name": "import-7310", "limit": 20},
    answers={
        200: {"items": [_OPEN | _RUNNING], "next_cursor": None},
        422: invalid("limit", "must be at most 100", "'5000'"),
    },
)
SHOW = Examples(
    query={"wait": 0.1},
    answers={200: _STATE | _RUNNING, **_UNKNOWN, 422: invalid("wait", "must be at most 60", "'300'")},
)
EVENTS = Examples(
    answers={
        200: "retry: 1000\n\nevent: state\nid: 1795496557012204-20000-12403\ndata: "
        f'{{"id": "{BATCH_ID}", "status": "closed", "open": 7597}}\n\n'
        f'event: final\nid: 1795496687047117-20000-20000\ndata: {{"id": "{BATCH_ID}", "status": "failed"}}\n\n',
        **_UNKNOWN,
    }
)
MEMBERS = Examples(
    query={"status": "completed", "limit": 20},
    answers={
        200: {
            "items": [in_list(COMPLETED) | {"group_id": BATCH_ID}],
            "total": 1,
            "total_is_estimate": False,
            "limit": 20,
            "offset": 0,
            "next_cursor": None,
        },
        **_UNKNOWN,
        422: invalid("limit", "must be at most 100", "'5000'"),
    },
)
ADD = Examples(
    bodies={
        "a part": {"part": "rows 1 to 2", "jobs": [{"payload": {"task": "noop", "row": 1}}, {"payload": 17}]},
    },
    answers={
        200: _ITEMS,
        **_UNKNOWN,
        **_CLOSED_ALREADY,
        422: invalid("part", "was used with other jobs; give these another name", "'rows 1 to 2'"),
    },
)
CLOSE = Examples(answers={200: _STATE | _RUNNING, **_UNKNOWN})
CANCEL = Examples(
    bodies=_REASONS,
    answers={
        200: _STATE
        | _ENDED
        | {"status": "cancelled", "cancel": "cancelled", "members": 0, "asked": 0, "more": False},
        202: _STATE
        | _RUNNING
        | {
            "cancel_requested_at": _DONE,
            "cancel_reason": "the file was wrong",
            "cancel": "asked",
            "members": 1_000,
            "asked": 4,
            "more": True,
        },
        **_UNKNOWN,
        409: problem(409, str(BatchEnded(UUID(BATCH_ID), "completed"))),
        **_NO_REASON,
    },
)
RETRY = Examples(
    bodies=_REASONS,
    answers={200: _STATE | _RUNNING | {"requeued": 3, "more": False}, **_UNKNOWN, **_NO_REASON},
)
EXPLAIN = Examples(
    answers={
        200: {
            "state": "running",
            "sentence": "2 of its 10 members have not ended: 1 wait, 1 run",
            "facts": {"total": 10, "open": 2, "queued": 1, "processing": 1},
        },
        **_UNKNOWN,
    }
)
