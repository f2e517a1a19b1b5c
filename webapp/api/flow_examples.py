"""Examples of requests and answers of flow control, for the description of the API."""

from __future__ import annotations

from typing import Any

from webapp.api.examples import Examples, invalid, problem
from webapp.flow.admission import Bounds
from webapp.flow.errors import OlderRelease, StaleVersion, UnknownTarget
from webapp.flow.limits import NO_LIMITS, KeyOrder, Limits, QueueLimits, Rate
from webapp.flow.model import Kind, Target

_AT = "2026-11-24T22:00:00.120331Z"
_PAUSE: dict[str, Any] = {
    "paused": True,
    "paused_at": _AT,
    "paused_by": "ada",
    "paused_why": "nightly maintenance",
    "version": 1,
    "limits": NO_LIMITS.document(),
}
_OPEN: dict[str, Any] = {
    "paused": False,
    "paused_at": None,
    "paused_by": None,
    "paused_why": None,
    "version": 2,
    "limits": NO_LIMITS.document(),
}
_LIMITS = QueueLimits(Limits(4, Rate(100, 60.0, 5)), Limits(1), bounds=Bounds(100_000, 300.0, 1_000))
_LIMITED = _OPEN | {"version": 3, "limits": _LIMITS.document()}
_TASK_LIMITS = QueueLimits(Limits(2))
_IN_ORDER = QueueLimits(key_order=KeyOrder.FIFO)
_LIMIT_BODY = {
    "not more than can be run in time": {"max_depth": 100_000, "max_age": 300, "keys": {"max_depth": 1_000}},
    "four at once, one of each key": _LIMITS.document() | {"by": "ada", "why": "the mail relay asked for it"},
    "jobs of a key in order": _IN_ORDER.document() | {"why": "changes of an account build on each other"},
}
_DEPTH = {"waiting": 1_208, "due": 1_200, "oldest_due_seconds": 31.204, "running": 0}
_BODIES = {"by whom, and why": {"by": "ada", "why": "nightly maintenance"}, "without words": {}}
_WRONG = invalid("why", "must be a string", "17")


def _problems(kind: Kind, name: str, *, body: bool = True, limits: bool = False) -> dict[int, Any]:
    found = {
        404: problem(404, str(UnknownTarget(Target(kind, "mial"), ("default", "mail")))),
        412: problem(412, str(StaleVersion(Target(kind, name), '"1"', 2))),
    }
    if limits:
        found[409] = problem(409, str(OlderRelease(["worker@host:18:1b2c"])))
    return found | {422: _WRONG} if body else found


QUEUES = Examples(
    answers={200: {"items": [{"name": "default", **_PAUSE, **_DEPTH}], "counts_are_estimates": False}}
)
QUEUE = Examples(answers={200: {"name": "default", **_PAUSE, **_DEPTH}, **_problems(Kind.QUEUE, "default")})
PAUSE_QUEUE = Examples(
    bodies=_BODIES, answers={200: {"name": "default", **_PAUSE}, **_problems(Kind.QUEUE, "default")}
)
RESUME_QUEUE = Examples(
    bodies=_BODIES, answers={200: {"name": "default", **_OPEN}, **_problems(Kind.QUEUE, "default")}
)
LIMIT_QUEUE = Examples(
    bodies=_LIMIT_BODY,
    answers={200: {"name": "default", **_LIMITED}, **_problems(Kind.QUEUE, "default", limits=True)}
    | {422: invalid("rate.limit", "must be at least 1", "0")},
)
UNLIMIT_QUEUE = Examples(
    answers={200: {"name": "default", **_OPEN}, **_problems(Kind.QUEUE, "default", body=False)}
)
_HANDLER = {
    "queue": "default",
    "max_retries": 5,
    "timeout": 30.0,
    "priority": None,
    "backoff": None,
    "tags": [],
    "expires_in": None,
    "chunk": None,
    "payload_schema": {"title": "Mail", "type": "object", "properties": {"to": {"type": "string"}}},
}
TASKS = Examples(answers={200: {"items": [{"name": "noop", **_PAUSE, "handler": _HANDLER}]}})
TASK = Examples(
    answers={200: {"name": "noop", **_PAUSE, "handler": _HANDLER}, **_problems(Kind.TASK, "noop")}
)
PAUSE_TASK = Examples(
    bodies=_BODIES, answers={200: {"name": "noop", **_PAUSE}, **_problems(Kind.TASK, "noop")}
)
RESUME_TASK = Examples(
    bodies=_BODIES, answers={200: {"name": "noop", **_OPEN}, **_problems(Kind.TASK, "noop")}
)
LIMIT_TASK = Examples(
    bodies={"two at once": {"concurrency": 2, "why": "the tax office allows two"}},
    answers={
        200: {"name": "noop", **_OPEN, "limits": _TASK_LIMITS.document()},
        **_problems(Kind.TASK, "noop", limits=True),
    },
)
UNLIMIT_TASK = Examples(answers={200: {"name": "noop", **_OPEN}, **_problems(Kind.TASK, "noop", body=False)})
CHANGES = Examples(
    query={"target": "queues/default", "limit": 20},
    answers={
        200: {
            "items": [
                {
                    "id": 1,
                    "at": _AT,
                    "who": "ada",
                    "target": "queues/default",
                    "old": {"paused": False},
                    "new": {"paused": True},
                    "why": "nightly maintenance",
                }
            ],
            "next_cursor": None,
        },
        422: invalid("limit", "must be at most 100", "'1000'"),
    },
)
