"""Examples of requests and answers about single keys, for the description of the API."""

from __future__ import annotations

from typing import Any

from webapp.api.examples import Examples, invalid, problem
from webapp.flow.errors import OlderRelease, StaleVersion, UnknownTarget
from webapp.flow.model import KeyTarget, Kind, Target

_OPEN: dict[str, Any] = {
    "queue": "default",
    "key": "acme",
    "paused": False,
    "paused_at": None,
    "paused_by": None,
    "paused_why": None,
    "concurrency": 2,
    "rate": None,
    "weight": 3.0,
    "version": 1,
}
_PAUSED = _OPEN | {
    "paused": True,
    "paused_at": "2026-11-24T22:00:00.120331Z",
    "paused_by": "ada",
    "paused_why": "their import loops",
    "concurrency": None,
    "weight": 1.0,
    "version": 2,
}
_LIKE_ALL = _OPEN | {"concurrency": None, "weight": 1.0, "version": 0}
_UNKNOWN = {404: problem(404, str(UnknownTarget(Target(Kind.QUEUE, "mial"), ("default", "mail"))))}
_STALE = {412: problem(412, str(StaleVersion(KeyTarget("default", "acme"), '"1"', 2)))}
_TOO_LONG = {422: invalid("key", "must be at most 200 characters long", "a text of 300 characters")}

PAGE = Examples(
    query={"limit": 100, "order": "waiting"},
    answers={
        200: {
            "items": [{**_OPEN, "waiting": 1_208, "running": 2}],
            "next_cursor": None,
            "counts_are_capped": False,
        },
        422: invalid("limit", "must be at most 1000", "'5000'"),
        **_UNKNOWN,
    },
)
ONE = Examples(answers={200: {**_OPEN, "waiting": 1_208, "running": 2}, **_UNKNOWN, **_TOO_LONG})
PUT = Examples(
    bodies={
        "two at once, three turns for one of another's": {"concurrency": 2, "weight": 3.0},
        "a hundred starts a minute": {"rate": {"limit": 100, "per": 60}},
        "paused": {"paused": True, "by": "ada", "why": "their import loops"},
    },
    answers={
        200: _PAUSED,
        409: problem(409, str(OlderRelease(["worker@host:18:1b2c"]))),
        422: invalid("weight", "must be at least 0.01", "0.0"),
        **_UNKNOWN,
        **_STALE,
    },
)
FORGET = Examples(answers={200: _LIKE_ALL, **_UNKNOWN, **_STALE, **_TOO_LONG})
