"""Examples of requests and answers of flow control, for the description of the API."""

from __future__ import annotations

from typing import Any

from webapp.api.examples import Examples, invalid, problem
from webapp.flow.model import Kind, StaleVersion, Target, UnknownTarget

_AT = "2026-11-24T22:00:00.120331Z"
_PAUSE: dict[str, Any] = {
    "paused": True,
    "paused_at": _AT,
    "paused_by": "ada",
    "paused_why": "nightly maintenance",
    "version": 1,
}
_OPEN: dict[str, Any] = {
    "paused": False,
    "paused_at": None,
    "paused_by": None,
    "paused_why": None,
    "version": 2,
}
_DEPTH = {"waiting": 1_208, "due": 1_200, "oldest_due_seconds": 31.204, "running": 0}
_BODIES = {"by whom, and why": {"by": "ada", "why": "nightly maintenance"}, "without words": {}}
_WRONG = invalid("why", "must be a string", "17")


def _problems(kind: Kind, name: str) -> dict[int, Any]:
    return {
        404: problem(404, str(UnknownTarget(Target(kind, "mial"), ("default", "mail")))),
        412: problem(412, str(StaleVersion(Target(kind, name), '"1"', 2))),
        422: _WRONG,
    }


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
TASKS = Examples(answers={200: {"items": [{"name": "noop", **_PAUSE}]}})
TASK = Examples(answers={200: {"name": "noop", **_PAUSE}, **_problems(Kind.TASK, "noop")})
PAUSE_TASK = Examples(
    bodies=_BODIES, answers={200: {"name": "noop", **_PAUSE}, **_problems(Kind.TASK, "noop")}
)
RESUME_TASK = Examples(
    bodies=_BODIES, answers={200: {"name": "noop", **_OPEN}, **_problems(Kind.TASK, "noop")}
)
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
