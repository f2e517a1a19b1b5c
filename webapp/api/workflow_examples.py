"""Examples of requests and answers of workflows, for the description of the API."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from webapp.api.examples import JOB_ID, WORKFLOW_ID, Examples, invalid, problem
from webapp.jobs.errors import KeyElsewhere
from webapp.workflows.errors import (
    NothingToRetry,
    UnknownStep,
    UnknownWorkflow,
    WorkflowEnded,
    WorkflowGone,
)

_ID = UUID(WORKFLOW_ID)
_MADE, _MOVED, _ENDED = (
    "2026-11-24T05:02:36.986841Z",
    "2026-11-24T05:02:38.120331Z",
    "2026-11-24T05:02:41.714502Z",
)
_TOTALS = {"total": 4, "completed": 1, "failed": 0, "cancelled": 0, "skipped": 0}
RUNNING: dict[str, Any] = {
    "id": WORKFLOW_ID,
    "name": "nightly-etl",
    "status": "running",
    "totals": _TOTALS,
    "fail_fast": False,
    "queues": ["default"],
    "parent_id": None,
    "tenant": "default",
    "submitted_by": 7,
    "idempotency_key": "etl-2026-11-24",
    "deadline": None,
    "cancel_requested_at": None,
    "cancel_reason": None,
    "complete_job_id": None,
    "success_job_id": None,
    "failure_job_id": None,
    "callback_url": None,
    "callback_job_id": None,
    "created_at": _MADE,
    "updated_at": _MOVED,
    "finished_at": None,
}
_COMPLETED = RUNNING | {
    "status": "completed",
    "totals": _TOTALS | {"completed": 4},
    "updated_at": _ENDED,
    "finished_at": _ENDED,
}
_CANCELLED = _COMPLETED | {
    "status": "cancelled",
    "totals": _TOTALS | {"cancelled": 1, "skipped": 2},
    "cancel_requested_at": _ENDED,
    "cancel_reason": "the source is being rebuilt",
}
_STEP: dict[str, Any] = {
    "name": "extract",
    "kind": "job",
    "status": "completed",
    "reason": None,
    "after": [],
    "when": "completed",
    "on_failure": "fail",
    "compensates": None,
    "job_id": JOB_ID,
    "child_id": None,
    "is_asked_to_stop": False,
    "released_at": _MADE,
    "finished_at": _MOVED,
}
_WAITING = _STEP | {
    "name": "load",
    "status": "waiting",
    "after": ["extract"],
    "job_id": None,
    "released_at": None,
    "finished_at": None,
}
_UNKNOWN = {404: problem(404, str(UnknownWorkflow(_ID))), 410: problem(410, str(WorkflowGone(_ID)))}
_NOOP = {"payload": {"task": "noop"}}
_WHY = {"with a reason": {"reason": "the source is being rebuilt"}, "without": {}}

SUBMIT = Examples(
    bodies={
        "fan-out and fan-in": {
            "name": "nightly-etl",
            "steps": {
                "extract": {"payload": {"task": "noop", "source": "orders"}},
                "clean": {
                    "payload": {"task": "noop"},
                    "after": ["extract"],
                    "inputs": {"rows": {"step": "extract"}},
                },
                "count": {"payload": {"task": "noop"}, "after": ["extract"]},
                "load": {"payload": {"task": "noop"}, "after": ["clean", "count"], "max_retries": 5},
            },
            "on_failure": {"payload": {"task": "noop", "tell": "ops"}},
        },
        "a saga": {
            "steps": {
                "book": _NOOP | {"compensate": {"payload": {"task": "noop", "undo": "book"}}},
                "pay": _NOOP
                | {"after": ["book"], "compensate": {"payload": {"task": "noop", "undo": "pay"}}},
                "send": _NOOP | {"after": ["pay"]},
                "tidy": _NOOP | {"after": ["send"], "when": "final"},
            }
        },
    },
    answers={
        200: RUNNING,
        201: RUNNING | {"totals": _TOTALS | {"completed": 0}, "updated_at": _MADE},
        409: problem(409, str(KeyElsewhere("idempotency_key", "etl-2026-11-24"))),
        422: invalid(
            "steps.load.after", "must not wait for each other in a circle: load -> count -> load", "'load'"
        ),
    },
)
PAGE = Examples(
    query={"status": "running", "name": "nightly-etl", "limit": 100},
    answers={
        200: {"items": [RUNNING], "next_cursor": None},
        422: invalid("limit", "must be at most 1000", "'5000'"),
    },
)
ONE = Examples(
    query={"wait": 30},
    answers={200: _COMPLETED, **_UNKNOWN, 422: invalid("wait", "must be at most 60", "'600'")},
)
EVENTS = Examples(
    answers={
        200: "retry: 1000\n\nevent: state\nid: 1795496557012204\ndata: "
        f'{{"id": "{WORKFLOW_ID}", "status": "running"}}\n\n'
        f'event: final\nid: 1795496561714502\ndata: {{"id": "{WORKFLOW_ID}", "status": "completed"}}\n\n',
        **_UNKNOWN,
    }
)
GRAPH = Examples(
    query={"format": "json"},
    answers={
        200: {
            "id": WORKFLOW_ID,
            "name": "nightly-etl",
            "status": "running",
            "nodes": [_STEP | {"waits_for": []}, _WAITING | {"waits_for": ["extract"]}],
            "edges": [{"source": "extract", "target": "load"}],
        },
        **_UNKNOWN,
        422: invalid("format", "must be 'json' or 'mermaid'", "'dot'"),
    },
)
EXPLAIN = Examples(
    answers={
        200: {
            "state": "running",
            "sentence": "It waits for extract to end.",
            "facts": {"running": ["extract"], "failed": [], "waiting": 3},
        },
        **_UNKNOWN,
    }
)
STEPS = Examples(
    query={"limit": 100},
    answers={
        200: {"items": [_STEP, _WAITING], "next_cursor": None},
        **_UNKNOWN,
        422: invalid("limit", "must be at most 1000", "'5000'"),
    },
)
STEP = Examples(
    answers={
        200: _WAITING
        | {
            "state": "waiting",
            "sentence": "It waits for extract.",
            "facts": {"job_id": None, "waits_for": ["extract"]},
        },
        404: problem(404, str(UnknownStep(_ID, "laod"))),
        410: _UNKNOWN[410],
    }
)
CANCEL = Examples(
    bodies=_WHY,
    answers={
        200: _CANCELLED,
        **_UNKNOWN,
        409: problem(409, str(WorkflowEnded(_ID, "completed"))),
        422: invalid("reason", "must be a string", "17"),
    },
)
RETRY = Examples(
    bodies=_WHY,
    answers={
        200: RUNNING,
        **_UNKNOWN,
        409: problem(409, str(NothingToRetry(_ID, "no step of it failed or was cancelled"))),
        422: invalid("reason", "must be a string", "17"),
    },
)
