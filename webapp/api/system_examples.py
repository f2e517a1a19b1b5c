"""Examples of answers about workers, settings and servers, for the description of the API."""

from __future__ import annotations

from typing import Any

from webapp import VERSION
from webapp.api.examples import JOB_ID, Examples, problem
from webapp.system.errors import RedisAway, UnknownWorker

_NAME = "vm:19701:c5d87f52"
_WORKER: dict[str, Any] = {
    "name": _NAME,
    "role": "worker@vm",
    "host": "vm",
    "pid": 19_701,
    "alive": True,
    "queues": ["default", "mail"],
    "children": 2,
    "busy": 1,
    "idle_seconds": 0.4,
    "version": VERSION,
    "started_at": "2026-11-24T05:00:00Z",
    "memory_bytes": 136_314_880,
    "seen_seconds_ago": 3.2,
    "runs": [
        {
            "child": 19_712,
            "job_id": JOB_ID,
            "attempt": 1,
            "seconds": 7.5,
            "task": "noop",
            "queue": "default",
        }
    ],
}
_GONE = _WORKER | {"name": "vm:18012:5a0be4d1", "alive": False, "busy": 0, "runs": []}
_AWAY = problem(503, str(RedisAway(ConnectionError())))

WORKERS = Examples(answers={200: {"items": [_WORKER], "gone": [_GONE]}, 503: _AWAY})
WORKER = Examples(answers={200: _WORKER, 404: problem(404, str(UnknownWorker("vm:1:0"))), 503: _AWAY})
SETTINGS = Examples(
    answers={
        200: {
            "items": [
                {
                    "name": "REDIS_URL",
                    "value": "set",
                    "default": "redis://localhost:6379/0",
                    "source": "environment",
                    "is_secret": True,
                    "rule": None,
                    "description": "Redis or Valkey: broker, limiter, heartbeats.",
                },
                {
                    "name": "RETENTION_DAYS",
                    "value": 30,
                    "default": 30,
                    "source": "default",
                    "is_secret": False,
                    "rule": "must be a whole number from 0 to 36500",
                    "description": "Days a finished job is kept; 0: for ever.",
                },
            ]
        }
    }
)
SYSTEM = Examples(
    answers={
        200: {
            "version": VERSION,
            "python": "3.11.2",
            "postgresql": {
                "version": "18.1",
                "size_bytes": 42_893_119,
                "live_rows": 120_400,
                "dead_rows": 803,
                "oldest_snapshot_transactions": 12,
                "oldest_transaction_seconds": 0.004,
                "migration": "0032",
                "connections": [{"role": "api", "state": "idle", "count": 4}],
                "connections_max": 100,
            },
            "redis": {"version": "9.0.1", "memory_used_bytes": 1_893_224, "memory_max_bytes": 0},
            "beat_tick_age_seconds": 0.412,
            "maintenance_workers": 1,
            "maintenance_idle_seconds": 0.1,
        }
    }
)
HEALTH = Examples(answers={200: {"status": "ok"}})
READY = Examples(
    answers={
        200: {"status": "ok", "dependencies": {"postgresql": "ok", "redis": "ok"}},
        503: {
            "status": "unavailable",
            "dependencies": {"postgresql": "not answering (OperationalError)", "redis": "ok"},
        },
    }
)
METRICS = Examples(answers={200: "# TYPE jobs_created_total counter\njobs_created_total 3.0\n"})
OPENAPI = Examples(
    answers={200: {"openapi": "3.1.0", "info": {"title": "DJPS", "version": VERSION}, "paths": {}}}
)
INDEX = Examples(
    answers={
        200: {
            "name": "DJPS",
            "version": VERSION,
            "docs": "/docs/",
            "openapi": "/openapi.json",
            "jobs": "/jobs",
            "health": "/health",
            "ready": "/health/ready",
            "metrics": "/metrics",
        }
    }
)
