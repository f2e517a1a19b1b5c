"""The store's counts and pages: what operators and clients see of many jobs at once.

Like `webapp.jobs.store`, of which this is a part: functions take a connection and never commit. None of them gets
slower as the tables grow: pages go by id, and counts above a bound are the planner's estimate.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, text

from webapp.jobs.store import JOB_COLUMNS, JobRow

#: Up to here jobs are counted one by one.
COUNTED_UP_TO = 10_000

_FILTERS = {
    (False, False): "",
    (True, False): "WHERE status = :status",
    (False, True): "WHERE id < :before",
    (True, True): "WHERE status = :status AND id < :before",
}
_PAGE = {
    filters: text(f"SELECT {JOB_COLUMNS} FROM jobs {where} ORDER BY id DESC LIMIT :limit OFFSET :offset")
    for filters, where in _FILTERS.items()
}


def page(
    connection: Connection, *, status: str | None, limit: int, offset: int = 0, before: UUID | None = None
) -> list[JobRow]:
    """Jobs from the newest on.

    Args:
        before: only jobs older than this one; costs the same however far back it is, which `offset` does not.
    """
    values = {"status": status, "before": before, "limit": limit, "offset": offset}
    filters = (status is not None, before is not None)
    used = {name: value for name, value in values.items() if value is not None}
    return [JobRow(*row) for row in connection.execute(_PAGE[filters], used)]


@dataclass(frozen=True, slots=True)
class Total:
    """How many jobs there are; an estimate where counting them would take long."""

    jobs: int
    is_estimate: bool


_COUNT = {
    filtered: text(f"SELECT count(*) FROM (SELECT 1 FROM jobs {where} LIMIT {COUNTED_UP_TO + 1}) AS counted")
    for filtered, where in ((False, ""), (True, "WHERE status = :status"))
}
_PLAN = {
    filtered: text(f"EXPLAIN (FORMAT JSON) SELECT 1 FROM jobs {where}")
    for filtered, where in ((False, ""), (True, "WHERE status = :status"))
}


def total(connection: Connection, status: str | None) -> Total:
    """How many jobs there are: exact up to 10,000, and what the planner reckons above."""
    filters = {} if status is None else {"status": status}
    counted = int(connection.execute(_COUNT[status is not None], filters).scalar_one())
    if counted <= COUNTED_UP_TO:
        return Total(counted, is_estimate=False)
    plan = connection.execute(_PLAN[status is not None], filters).scalar_one()
    reckoned = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]["Plan Rows"]
    return Total(max(counted, int(reckoned)), is_estimate=True)


_DEAD = text(f"""
    SELECT {", ".join("j." + name.strip() for name in JOB_COLUMNS.split(","))}
      FROM dead_letters d JOIN jobs j ON j.id = d.job_id
     WHERE d.requeued_at IS NULL AND d.discarded_at IS NULL
     ORDER BY d.id DESC LIMIT :limit OFFSET :offset""")


def dead_letters(connection: Connection, *, limit: int, offset: int) -> list[JobRow]:
    """The jobs in the dead letter queue, the newest first."""
    return [JobRow(*row) for row in connection.execute(_DEAD, {"limit": limit, "offset": offset})]


_DEPTHS = text(
    "SELECT queue, status, count(*) FROM jobs WHERE status IN ('queued', 'processing') GROUP BY 1, 2"
)
_OLDEST_DUE = text("""
    SELECT queue, extract(epoch FROM now() - min(run_at))::float8 FROM jobs
     WHERE status = 'queued' AND run_at <= now() GROUP BY queue""")


def depths(connection: Connection) -> dict[tuple[str, str], int]:
    """How many jobs are queued and processing, by (queue, status)."""
    return {(row[0], row[1]): row[2] for row in connection.execute(_DEPTHS)}


def oldest_due(connection: Connection) -> dict[str, float]:
    """Age of the oldest due job of each queue, seconds."""
    return {row[0]: row[1] for row in connection.execute(_OLDEST_DUE)}
