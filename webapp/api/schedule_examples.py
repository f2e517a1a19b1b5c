"""Examples of requests and answers of schedules, for the description of the API."""

from __future__ import annotations

from typing import Any

from webapp.api.examples import JOB_ID, Examples, invalid, problem
from webapp.schedules.errors import NameTaken, StaleSchedule, UnknownSchedule
from webapp.schedules.model import Spec, Timing
from webapp.schedules.timetable import words
from webapp.schedules.zones import rules_version

NAME = "nightly-report"
_AT, _THEN = "2026-11-24T01:30:00Z", "2026-11-25T01:30:00Z"
_MADE = "2026-11-20T09:12:40.120331Z"
_JOB = {"payload": {"task": "noop", "report": "sales"}, "queue": "default", "max_retries": 5}
_TIMING = Timing("30 2 * * *", "Europe/Berlin")
_SPEC = Spec(_TIMING, _JOB, time_key="for")
_ITEM: dict[str, Any] = {
    "name": NAME,
    "state": "active",
    "queue": "default",
    "version": 2,
    "words": words(_TIMING),
    "next_at": _THEN,
    "due_at": _THEN,
    "last_at": _AT,
    "paused_at": None,
    "paused_by": None,
    "pause_note": None,
    "fired": 4,
    "skipped": 0,
    "buffered": 0,
    "open_job_id": JOB_ID,
    "created_at": _MADE,
    "updated_at": _MADE,
}
_FIRING: dict[str, Any] = {
    "at": _AT,
    "round": 0,
    "kind": "scheduled",
    "outcome": "fired",
    "reason": None,
    "until": None,
    "job_id": JOB_ID,
    "version": 2,
    "fired_at": "2026-11-24T01:30:00.014207Z",
}
_MISSED = _FIRING | {
    "round": -1,
    "outcome": "missed",
    "reason": "too late, and catch_up is last: only the newest of what was missed fires",
    "at": "2026-11-21T01:30:00Z",
    "until": "2026-11-22T01:30:00Z",
    "job_id": None,
}
_ONE = _ITEM | {
    "spec": _SPEC.document(),
    "next_times": [_THEN, "2026-11-26T01:30:00Z"],
    "last_firings": [_FIRING, _MISSED],
}
_PAUSED = _ONE | {
    "state": "paused",
    "paused_at": "2026-11-24T09:00:00.120331Z",
    "paused_by": "ada",
    "pause_note": "the warehouse is being moved",
}
_TIMES = {
    "words": words(_TIMING),
    "rules": rules_version(),
    "times": [
        {"at": _THEN, "local": "2026-11-25T02:30:00+01:00"},
        {"at": "2026-11-26T01:30:00Z", "local": "2026-11-26T02:30:00+01:00"},
    ],
}
_UNKNOWN = {404: problem(404, str(UnknownSchedule("nihgtly-report")))}
_STALE = {412: problem(412, str(StaleSchedule(NAME, '"1"', 2)))}
_WHO = {"by whom, and why": {"by": "ada", "note": "the warehouse is being moved"}, "without words": {}}
_WRONG_ZONE = invalid(
    "zone", "must be an IANA name such as Europe/Berlin, or UTC; did you mean 'Europe/Berlin'?", "'Berlin'"
)

PAGE = Examples(
    query={"state": "active", "limit": 100},
    answers={
        200: {"items": [_ITEM], "next_cursor": None},
        422: invalid("limit", "must be at most 1000", "'5000'"),
    },
)
ONE = Examples(answers={200: _ONE, **_UNKNOWN})
PUT = Examples(
    bodies={
        "each night, what was missed is caught up once": {
            "cron": "30 2 * * *",
            "zone": "Europe/Berlin",
            "job": _JOB,
            "time_key": "for",
        },
        "every thirty seconds, one at a time": {
            "every": 30,
            "job": {"payload": {"task": "noop"}},
            "catch_up": "skip",
            "overlap": "skip",
            "why": "the cache must be warm",
        },
        "each hour, in a row": {
            "cron": "@hourly",
            "job": {"payload": {"task": "noop"}, "tags": ["import"]},
            "catch_up": "all",
            "overlap": "buffer_all",
            "jitter": 120,
            "pause_after_failures": 3,
        },
    },
    answers={
        200: _ONE,
        201: _ONE | {"version": 1, "last_at": None, "fired": 0, "open_job_id": None, "last_firings": []},
        409: problem(409, str(NameTaken(NAME))),
        422: _WRONG_ZONE,
        **_STALE,
    },
)
DELETE = Examples(answers={**_UNKNOWN, **_STALE})
PAUSE = Examples(
    bodies=_WHO, answers={200: _PAUSED, **_UNKNOWN, **_STALE, 422: invalid("note", "must be a string", "17")}
)
RESUME = Examples(
    bodies=_WHO, answers={200: _ONE, **_UNKNOWN, **_STALE, 422: invalid("note", "must be a string", "17")}
)
RUN = Examples(
    bodies={"as it is": {}, "whatever runs": {"overlap": "allow_all", "why": "the report was wrong"}},
    answers={
        200: _FIRING | {"kind": "manual", "at": "2026-11-24T09:00:00.120331Z"},
        **_UNKNOWN,
        422: invalid("why", "must be a string", "17"),
    },
)
BACKFILL = Examples(
    bodies={
        "what would be done": {
            "from": "2026-11-01T00:00:00Z",
            "to": "2026-11-20T00:00:00Z",
            "dry_run": True,
        },
        "two jobs a second": {
            "from": "2026-11-01T00:00:00Z",
            "to": "2026-11-20T00:00:00Z",
            "rate": 2,
            "why": "the table was empty",
        },
    },
    answers={
        200: {"matched": 19, "fired": 15, "existing": 4, "refused": 0, "more": False, "next_from": None},
        **_UNKNOWN,
        422: invalid("to", "must not be before from", "'2026-11-01T00:00:00Z'"),
    },
)
FIRINGS = Examples(
    query={"outcome": "fired", "limit": 20},
    answers={
        200: {"items": [_FIRING], "next_cursor": None},
        **_UNKNOWN,
        422: invalid("limit", "must be at most 1000", "'5000'"),
    },
)
VERSIONS = Examples(
    answers={
        200: {
            "items": [
                {
                    "version": 2,
                    "changed_at": _MADE,
                    "changed_by": "ada",
                    "why": "an hour later",
                    "spec": _SPEC.document(),
                }
            ]
        },
        **_UNKNOWN,
    }
)
NEXT = Examples(
    query={"count": 2},
    answers={200: _TIMES, **_UNKNOWN, 422: invalid("count", "must be at most 100", "'1000'")},
)
EXPLAIN = Examples(
    answers={
        200: {
            "state": "waiting_until",
            "sentence": f"It fires at {_THEN}.",
            "facts": {"next_at": _THEN},
        },
        **_UNKNOWN,
    }
)
PREVIEW = Examples(
    bodies={
        "over the end of summer time": {
            "cron": "30 2 * * *",
            "zone": "Europe/Berlin",
            "after": "2026-10-24T00:00:00Z",
            "count": 3,
        },
        "every ten minutes": {"every": 600},
    },
    answers={200: _TIMES, 422: _WRONG_ZONE},
)
