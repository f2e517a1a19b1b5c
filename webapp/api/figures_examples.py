"""Examples of answers about how the installation does, and did, for the description of the API."""

from __future__ import annotations

from typing import Any

from webapp.api.examples import JOB_ID, Examples, invalid
from webapp.flow.limits import NO_LIMITS
from webapp.system.figures import COUNTERS

_AT = "2026-11-24T05:03:00Z"
_SPREAD: dict[str, Any] = {"p50": [0.01, 0.05], "p95": [0.1, 0.25], "p99": [0.25, 0.5]}
_QUEUE: dict[str, Any] = {
    "name": "mail",
    "paused": True,
    "paused_at": "2026-11-24T05:00:00Z",
    "paused_by": "ada",
    "paused_why": "the relay is away",
    "version": 3,
    "limits": NO_LIMITS.document(),
    "waiting": 1_204,
    "due": 1_200,
    "oldest_due_seconds": 184.2,
    "running": 0,
}

OVERVIEW = Examples(
    answers={
        200: {
            "at": _AT,
            "per_second": dict.fromkeys(COUNTERS, 0.0) | {"created": 41.2, "completed": 40.9},
            "waits": _SPREAD,
            "runs": _SPREAD,
            "queues": [_QUEUE],
            "counts_are_estimates": False,
            "working": {
                "workers": 2,
                "children": 8,
                "busy": 5,
                "maintenance_workers": 1,
                "beat_tick_age_seconds": 0.412,
            },
            "open_letters": 2,
            "failing": [
                {
                    "task": "fail",
                    "queue": "default",
                    "error_type": "RuntimeError",
                    "fingerprint": "0dec451a4c4d7a6a",
                    "count": 2,
                    "first_dead_at": "2026-11-24T05:01:12.001187Z",
                    "last_dead_at": "2026-11-24T05:02:51.402007Z",
                    "sample_job_id": JOB_ID,
                }
            ],
            "paused_tasks": [],
            "attention": [
                {
                    "kind": "queue_paused",
                    "sentence": "the queue mail is paused; due jobs: 1200",
                    "link": "/queues/mail",
                }
            ],
        }
    }
)
SERIES = Examples(
    query={"name": "runs", "task": "noop", "queue": "default", "step": 60},
    answers={
        200: {
            "name": "runs",
            "step": 60,
            "items": [{"at": _AT, "count": 2_460.0, "spread": _SPREAD}],
        },
        422: invalid("step", "must leave at most 1000 steps", "'10'"),
    },
)
