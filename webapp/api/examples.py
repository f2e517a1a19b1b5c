"""Examples of requests and answers, for the description of the API: what each operation may be sent, and what it says.

Tests send every request here to a running application, and compare every answer with its schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from uuid import UUID

from webapp.access.errors import NoKey, ScopeMissing
from webapp.access.model import Scope
from webapp.api.errors import DATABASE_AWAY, SEARCH_TOO_LONG
from webapp.flow.errors import StaleVersion
from webapp.flow.model import Kind, Target
from webapp.jobs.errors import JobEnded, JobError, JobGone, JobNotFound, KeyRace, NotForRetry

#: An example's name, and its value.
Named = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Examples:
    """Examples of one operation.

    Args:
        bodies: JSON bodies by name.
        query: a value for each parameter of the query that is worth one; together they are a request.
        answers: by status; a JSON value, or the text of an answer that is none.
    """

    bodies: Named = field(default_factory=dict)
    query: Named = field(default_factory=dict)
    answers: Mapping[int, Any] = field(default_factory=dict)


JOB_ID = "01a20bef-39a4-708b-810a-9290cba9a0bf"
WORKFLOW_ID = "01a20bef-39b1-7c52-9d0e-52a7c06ee1b4"
OTHER_ID = "01a20bef-39c9-7245-9b70-997d89a16688"
REQUEST_ID = "01a20bef-39c9-703a-b60c-6f46b0297cd2"
TRACEBACK = (
    'Traceback (most recent call last):\n  File "/srv/djps/tasks/handlers/demo.py", line 50, in fail\n    ...'
)

QUEUED: dict[str, Any] = {
    "id": JOB_ID,
    "status": "queued",
    "task": "noop",
    "payload": {"task": "noop", "order": 17},
    "queue": "default",
    "priority": 5,
    "attempt": 0,
    "retry_count": 0,
    "max_retries": 3,
    "timeout": 300.0,
    "idempotency_key": "order-17",
    "result": None,
    "last_error": None,
    "run_at": "2026-11-24T05:02:36.986841Z",
    "created_at": "2026-11-24T05:02:36.986841Z",
    "updated_at": "2026-11-24T05:02:36.986841Z",
    "last_attempt_at": None,
    "finished_at": None,
    "tags": ["invoice"],
    "expires_at": None,
    "backoff": None,
    "callback_url": None,
    "callback_job_id": None,
    "cancel_reason": None,
    "progress": None,
    "result_note": None,
    "key": "customer-17",
    "tenant": "default",
    "submitted_by": 7,
    "group_id": None,
    "worker_id": None,
    "lease_expires_at": None,
    "dispatched_at": "2026-11-24T05:02:36.986841Z",
    "cancel_requested_at": None,
    "request_id": REQUEST_ID,
    "traceparent": None,
    "unique_key": None,
}
PROCESSING = QUEUED | {
    "status": "processing",
    "attempt": 1,
    "updated_at": "2026-11-24T05:02:37.012204Z",
    "last_attempt_at": "2026-11-24T05:02:37.012204Z",
    "worker_id": "vm:19701:c5d87f52/19712",
    "lease_expires_at": "2026-11-24T05:03:07.012204Z",
}
COMPLETED = PROCESSING | {
    "worker_id": None,
    "lease_expires_at": None,
    "status": "completed",
    "result": {"sent": True},
    "updated_at": "2026-11-24T05:02:37.047117Z",
    "finished_at": "2026-11-24T05:02:37.047117Z",
}
FAILED = COMPLETED | {
    "status": "failed",
    "task": "fail",
    "payload": {"task": "fail"},
    "attempt": 4,
    "retry_count": 3,
    "result": None,
    "last_error": "AlwaysFails: this handler always fails",
}
CANCELLED = QUEUED | {
    "status": "cancelled",
    "cancel_reason": "not needed any more",
    "updated_at": "2026-11-24T05:02:40.120331Z",
    "finished_at": "2026-11-24T05:02:40.120331Z",
}


def in_list(job: dict[str, Any]) -> dict[str, Any]:
    """A job as lists show it."""
    return {name: value for name, value in job.items() if name != "unique_key"}


def problem(status: int, detail: str, *broken: tuple[str, str, str]) -> dict[str, Any]:
    """A problem document.

    Args:
        broken: the rules that were broken, each as field, rule, and what was given.
    """
    document = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    document["request_id"] = REQUEST_ID
    if broken:
        document["errors"] = [dict(zip(("field", "rule", "given"), one, strict=True)) for one in broken]
    return document


def invalid(name: str, rule: str, given: str) -> dict[str, Any]:
    """The answer to a request that breaks one rule."""
    return problem(422, f"{name}: {rule} (given: {given})", (name, rule, given))


def conflict(error: JobError) -> dict[str, Any]:
    """The answer where the job's state does not allow what was asked."""
    return problem(409, str(error))


#: What an operation says where it has no example of its own.
PROBLEMS = {
    400: problem(400, "Idempotency-Key must have 1 to 255 characters; given: 300"),
    401: problem(401, str(NoKey())),
    403: problem(403, str(ScopeMissing(Scope.JOBS_CONTROL, "dashboard")))
    | {"missing_scope": Scope.JOBS_CONTROL.value},
    404: problem(404, str(JobNotFound(UUID(JOB_ID)))),
    408: problem(408, "the body did not arrive in time: 1024 of 4096 bytes in 10 s"),
    410: problem(410, str(JobGone(UUID(JOB_ID)))),
    412: problem(412, str(StaleVersion(Target(Kind.QUEUE, "default"), '"1"', 2))),
    413: problem(413, "the body must be at most 262144 bytes"),
    414: problem(414, "the request line must be at most 4094 bytes"),
    415: problem(415, "Content-Type must be application/json; given: 'text/plain'"),
    417: problem(417, "the only expectation that is met is 100-continue; given: 'cookies'"),
    421: problem(
        421,
        "this server does not answer for the host 'example.com'; TRUSTED_HOSTS names those it answers for",
    ),
    422: invalid("limit", "must be at most 100", "'1000'"),
    429: problem(429, "10 per 1 minute"),
    431: problem(431, "a request must have at most 100 headers, each of at most 8190 bytes"),
    501: problem(501, "the only transfer coding that is taken is chunked; given: 'sdch'"),
    503: problem(503, DATABASE_AWAY),
}

_SENT_ONCE = {"payload": {"task": "noop", "order": 17}, "idempotency_key": "order-17", "tags": ["invoice"]}

SUBMIT = Examples(
    bodies={
        "a payload is enough": {"payload": {"task": "noop", "order": 18}},
        "safe to send again": _SENT_ONCE,
        "for one customer": {"payload": {"task": "noop"}, "key": "customer-17"},
        "only one at a time": {"payload": {"task": "noop"}, "unique": {"key": "refresh-17"}},
        "at most once a minute": {
            "payload": {"task": "noop"},
            "unique": {"key": "refresh-18", "while": "queued", "for": 60, "on_conflict": "return"},
        },
        "half a minute after the last event, five minutes after the first": {
            "payload": {"task": "noop"},
            "delay": 30,
            "unique": {"key": "index-17", "on_conflict": "replace", "max_wait": 300},
        },
        "later, and urgent then": {"payload": {"task": "noop"}, "priority": 9, "delay": 60},
        "retries of its own": {
            "payload": {"task": "fail"},
            "max_retries": 2,
            "backoff": [1, 2],
            "timeout": 10,
        },
        "a curve, a last moment and a callback": {
            "payload": {"task": "noop"},
            "backoff": {"base": 3, "max": 600, "jitter": 0.2},
            "expires_at": "2090-01-01T00:00:00Z",
            "callback_url": "https://example.org/done",
        },
    },
    answers={
        200: COMPLETED,
        201: QUEUED,
        409: conflict(KeyRace("order-17")),
        422: invalid("priority", "must be at most 9", "12"),
    },
)
BATCH = Examples(
    bodies={
        "three jobs, one of them invalid": {
            "jobs": [
                {"payload": {"task": "noop", "n": 1}},
                {"payload": {"task": "noop", "n": 2}, "idempotency_key": "n-2", "priority": 7},
                {"payload": "not an object"},
            ]
        }
    },
    answers={
        200: {
            "created": 2,
            "existing": 0,
            "invalid": 1,
            "items": [
                {"outcome": "created", "id": JOB_ID},
                {"outcome": "created", "id": OTHER_ID},
                {
                    "outcome": "invalid",
                    "errors": [
                        {"field": "payload", "rule": "must be a JSON object", "given": "'not an object'"}
                    ],
                },
            ],
        },
        400: problem(
            400,
            "Idempotency-Key is for one job; in a batch each item has its own idempotency_key",
        ),
        409: conflict(KeyRace("n-2")),
        422: invalid("jobs", "must have at most 10000 items", "list"),
    },
)
PAGE = Examples(
    query={
        "status": ["completed"],
        "task": ["noop"],
        "queue": ["default"],
        "not_tag": ["test"],
        "priority": [5],
        "key": "customer-17",
        "tag": ["invoice"],
        "created_after": "2026-11-24T00:00:00Z",
        "created_before": "2090-01-01T00:00:00Z",
        "payload": {"order": 17},
        "limit": 20,
    },
    answers={
        200: {
            "items": [in_list(COMPLETED)],
            "total": 1,
            "total_is_estimate": False,
            "limit": 20,
            "offset": 0,
            "next_cursor": None,
        },
        503: problem(503, SEARCH_TOO_LONG),
    },
)
SHOW = Examples(
    query={"wait": 30}, answers={200: COMPLETED, 422: invalid("wait", "must be at most 60", "'61'")}
)
EVENTS = Examples(
    answers={
        200: "retry: 1000\n\nevent: state\nid: 1795496557012204\ndata: "
        f'{{"id": "{JOB_ID}", "status": "processing", "attempt": 1}}\n\n'
        f'event: final\nid: 1795496557047117\ndata: {{"id": "{JOB_ID}", "status": "completed"}}\n\n'
    }
)
CANCEL = Examples(
    bodies={"with a reason": {"reason": "not needed any more"}, "without one": {}},
    answers={
        200: CANCELLED | {"cancel": "cancelled"},
        202: PROCESSING | {"cancel": "asked"},
        409: conflict(JobEnded(UUID(JOB_ID), "completed")),
        422: invalid("reason", "must be a string", "17"),
    },
)
RETRY = Examples(
    bodies={"with a reason": {"reason": "the address was mended"}, "without one": {}},
    answers={
        200: FAILED | {"status": "queued", "retry_count": 0, "finished_at": None},
        409: conflict(NotForRetry(UUID(JOB_ID), "completed")),
    },
)
AUDIT = Examples(
    query={"event": "job.cancel", "actor": "key:7", "limit": 20},
    answers={
        200: {
            "items": [
                {
                    "id": 42,
                    "at": "2026-11-24T05:02:40.120331Z",
                    "event": "job.cancel",
                    "success": True,
                    "actor_kind": "key",
                    "actor_id": "7",
                    "actor_name": "shop",
                    "address": "10.0.0.5",
                    "request_id": REQUEST_ID,
                    "target_kind": "job",
                    "target_id": JOB_ID,
                    "matched": None,
                    "changed": None,
                    "reason": "not needed any more",
                    "details": {"answer": "cancelled"},
                    "tenant": "default",
                }
            ],
            "next_cursor": None,
        },
        422: invalid("limit", "must be at most 100", "'1000'"),
    },
)
ATTEMPTS = Examples(
    query={"limit": 100, "before": 5},
    answers={
        200: {
            "items": [
                {
                    "attempt": 4,
                    "worker_id": "vm:19701:c5d87f52/19712",
                    "outcome": "failed",
                    "started_at": "2026-11-24T05:02:51.400740Z",
                    "ended_at": "2026-11-24T05:02:51.402007Z",
                    "duration": 0.001267,
                    "error_type": "RuntimeError",
                    "error_message": "this handler always fails",
                    "traceback": TRACEBACK,
                }
            ],
            "next_before": None,
        }
    },
)
LOGS = Examples(
    query={"limit": 200, "after": 41007},
    answers={
        200: {
            "items": [
                {
                    "id": 41008,
                    "attempt": 1,
                    "at": "2026-11-24T05:02:51.401204Z",
                    "level": "INFO",
                    "text": 'page was fetched {"page": 3}',
                }
            ],
            "next_after": None,
            "dropped": 0,
            "kept": True,
        }
    },
)
EXPLAIN = Examples(
    answers={
        200: {
            "state": "waiting_until",
            "sentence": "it waits until 2026-11-24T05:03:36.986841Z, the time it was submitted for",
            "facts": {"run_at": "2026-11-24T05:03:36.986841Z", "attempt": 0, "retry_count": 0},
        }
    }
)
