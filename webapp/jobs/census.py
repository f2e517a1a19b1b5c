"""The store's counts and pages: what operators and clients see of many jobs at once.

Like `webapp.jobs.store`, of which this is a part: functions take a connection and never commit. None of them gets
slower as the tables grow: pages go by id, and counts above a bound are the planner's estimate.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from webapp.jobs.literals import text_array_of
from webapp.jobs.store import FIELDS, JOB_COLUMNS, JobRow

#: Up to here jobs are counted one by one.
COUNTED_UP_TO = 10_000

#: What the clock of the process that made a job's id may be off from PostgreSQL's.
CLOCK_SLACK = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs are wanted: all that is given must hold; None stands for any.

    Args:
        tags: the job has all of them.
        created_after: at this moment or later.
        created_before: earlier than this moment.
        payload: JSON text that the payload must contain, as `@>` has it.
    """

    status: str | None = None
    task: str | None = None
    queue: str | None = None
    tags: tuple[str, ...] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None
    payload: str | None = None

    def values(self) -> dict[str, Any]:
        """The parameters of its conditions, by name."""
        given: dict[str, Any] = {
            "status": self.status,
            "task": self.task,
            "queue": self.queue,
            "tags": text_array_of(self.tags) if self.tags else None,
            "created_after": self.created_after,
            "created_before": self.created_before,
            "payload": self.payload,
        }
        if self.created_after is not None:
            given["from_id"] = first_id(self.created_after, -CLOCK_SLACK)
        if self.created_before is not None:
            given["to_id"] = first_id(self.created_before, CLOCK_SLACK)
        return {name: value for name, value in given.items() if value is not None}


#: A condition for each parameter. The bounds of ids let the primary key find a time: ids begin with theirs.
_CONDITIONS = {
    "status": "status = :status",
    "task": "task = :task",
    "queue": "queue = :queue",
    "tags": "tags <> '{}' AND tags @> CAST(:tags AS text[])",
    "created_after": "created_at >= :created_after",
    "created_before": "created_at < :created_before",
    "payload": "payload @> CAST(:payload AS jsonb)",
    "from_id": "id >= :from_id",
    "to_id": "id < :to_id",
}


def first_id(moment: datetime, later: timedelta = timedelta(0)) -> UUID:
    """The smallest UUIDv7 of a moment (RFC 9562, 5.7: its first 48 bits are milliseconds since 1970).

    Args:
        later: added to the moment, which may be the first or the last that a `datetime` can be.
    """
    milliseconds = max(0, int((moment.timestamp() + later.total_seconds()) * 1_000))
    return UUID(int=milliseconds << 80)


def _and(names: Iterable[str]) -> str:
    return "".join(f" AND {_CONDITIONS[name]}" for name in sorted(names))


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the table that is searched by itself, so that it can use its own index.

    Args:
        where: which jobs are in it.
        column: what its index begins with, before the id; empty for an index of ids.
        rows: where they are read from.
    """

    where: str = "true"
    column: str = ""
    rows: str = "jobs"

    @property
    def order(self) -> str:
        """The newest first, in the words of its index."""
        return f"{self.column} DESC, id DESC" if self.column else "id DESC"

    def conditions(self, names: frozenset[str]) -> str:
        """What must hold of its jobs.

        With `task = :task` the order would be that of the primary key as well, and where the newest jobs are a backlog of
        others the planner walks through all of it. Between two pairs of task and id there is only one index in this order.
        """
        if not self.column:
            return f"{self.where}{_and(names)}"
        column = self.column
        low = f"({column}, id) >= (:{column}, :from_id)" if "from_id" in names else f"{column} >= :{column}"
        high = f"({column}, id) < (:{column}, :to_id)" if "to_id" in names else f"{column} <= :{column}"
        return f"{self.where} AND {low} AND {high}{_and(names - {column, 'from_id', 'to_id'})}"


_ALL, _QUEUED = _Part(), _Part("status = 'queued'")
#: Jobs that run are few, and have an index of their own. OFFSET keeps the planner from looking for the newest of them
#: among all jobs.
_PROCESSING = _Part(rows="(SELECT * FROM jobs WHERE status = 'processing' OFFSET 0) AS running")
_BY_TASK, _BY_QUEUE = _Part("finished_at IS NOT NULL", "task"), _Part("finished_at IS NOT NULL", "queue")


def _parts(wanted: Filter) -> tuple[_Part, ...]:
    """Finished jobs are found by their task or queue; those that are not, by their status."""
    if wanted.status == "processing":
        return (_PROCESSING,)
    if (wanted.task is None and wanted.queue is None) or wanted.status == "queued":
        return (_ALL,)
    finished = _BY_QUEUE if wanted.task is None else _BY_TASK
    return (finished, _QUEUED, _PROCESSING) if wanted.status is None else (finished,)


def _each(parts: Iterable[_Part], names: frozenset[str], columns: str, rest: str) -> str:
    """What is wanted of each part, together."""
    return " UNION ALL ".join(
        f"(SELECT {columns} FROM {part.rows} WHERE {part.conditions(names)} {rest.format(order=part.order)})"
        for part in parts
    )


@cache
def _page_by(names: frozenset[str], parts: tuple[_Part, ...]) -> TextClause:
    found = _each(parts, names, JOB_COLUMNS, "ORDER BY {order} LIMIT :reach")
    return text(
        f"SELECT {', '.join(FIELDS)} FROM ({found}) AS found ORDER BY id DESC LIMIT :limit OFFSET :offset"
    )


def page(
    connection: Connection, wanted: Filter, *, limit: int, offset: int = 0, before: UUID | None = None
) -> list[JobRow]:
    """Jobs from the newest on.

    Args:
        before: only jobs older than this one; costs the same however far back it is, which `offset` does not.
    """
    values = wanted.values()
    if before is not None:
        values["to_id"] = min(before, values.get("to_id", before))
    statement = _page_by(frozenset(values), _parts(wanted))
    bounds = {"limit": limit, "offset": offset, "reach": limit + offset}
    return [JobRow(*row) for row in connection.execute(statement, values | bounds)]


@dataclass(frozen=True, slots=True)
class Total:
    """How many jobs there are; an estimate where counting them would take long."""

    jobs: int
    is_estimate: bool


@cache
def _count_by(names: frozenset[str], parts: tuple[_Part, ...]) -> TextClause:
    found = _each(parts, names, "1", f"LIMIT {COUNTED_UP_TO + 1}")
    return text(f"SELECT count(*) FROM ({found}) AS counted")


@cache
def _plan_by(names: frozenset[str]) -> TextClause:
    return text(f"EXPLAIN (FORMAT JSON) {_each([_ALL], names, '1', '')}")


def total(connection: Connection, wanted: Filter) -> Total:
    """How many jobs there are: exact up to 10,000, and what the planner reckons above."""
    values = wanted.values()
    names = frozenset(values)
    counted = int(connection.execute(_count_by(names, _parts(wanted)), values).scalar_one())
    if counted <= COUNTED_UP_TO:
        return Total(counted, is_estimate=False)
    plan = connection.execute(_plan_by(names), values).scalar_one()
    reckoned = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]["Plan Rows"]
    return Total(max(counted, int(reckoned)), is_estimate=True)


_CONNECTIONS = text("""
    SELECT substr(application_name, 6), coalesce(state, 'unknown'), count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name LIKE 'djps-%' GROUP BY 1, 2 LIMIT 100""")
_MOST_CONNECTIONS = text("SELECT setting::int FROM pg_settings WHERE name = 'max_connections'")


def connections(connection: Connection) -> dict[tuple[str, str], int]:
    """Our connections to PostgreSQL, by (role of the process, state)."""
    return {(row[0], row[1]): row[2] for row in connection.execute(_CONNECTIONS)}


def most_connections(connection: Connection) -> int:
    """How many connections PostgreSQL takes."""
    return int(connection.execute(_MOST_CONNECTIONS).scalar_one())
