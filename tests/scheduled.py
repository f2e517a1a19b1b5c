"""Schedules for tests: made over HTTP, set back in time, and what became of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from tasks.runtime import runtime

#: Seconds between two times of a test's schedules: no test is there when one of them comes.
EVERY = 3_600
#: What a test's schedules fire.
JOB = {"payload": {"task": "noop"}}


def put(
    client: FlaskClient, name: str = "tick", *, headers: dict[str, str] | None = None, **spec: Any
) -> dict[str, Any]:
    """Makes a schedule that fires each hour, late by less than a day, and what else is said."""
    given = {"job": JOB, "grace": 86_400} | ({} if "cron" in spec else {"every": EVERY}) | spec
    answer = client.put(f"/schedules/{name}", json=given, headers=headers)
    assert answer.status_code in {200, 201}, answer.text
    return dict(answer.json)


def set_back(engine: Engine, times: int = 1) -> None:
    """Has the last so many times of every schedule not be dealt with yet."""
    by = timedelta(seconds=times * EVERY)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE schedules SET next_at = next_at - :by, due_at = due_at - :by, last_at = NULL"),
            {"by": by},
        )


def fire() -> None:
    """Does what is due, and lets go what waits."""
    firer = runtime().firer
    while firer.turn() == 0.0:
        pass


def outcomes(client: FlaskClient, name: str = "tick", **query: Any) -> list[str]:
    """What became of its times, the oldest first."""
    items = client.get(f"/schedules/{name}/firings", query_string=query).json["items"]
    return [one["outcome"] for one in reversed(items)]


def jobs_of(client: FlaskClient, name: str = "tick") -> list[str]:
    """The jobs of its firings, the oldest first."""
    items = client.get(f"/schedules/{name}/firings").json["items"]
    return [one["job_id"] for one in reversed(items) if one["job_id"]]


def count(engine: Engine, what: str) -> int:
    """The number that a query gives."""
    with engine.connect() as connection:
        return int(connection.execute(text(what)).scalar_one())
