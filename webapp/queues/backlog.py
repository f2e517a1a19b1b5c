"""How much waits and runs, and how many letters are open: in a bounded time, however many millions there are.

Each queue and each task is counted by itself, through the index that has its rows together, and no further than a bound;
beyond it the planner's estimate stands in. Like `webapp.jobs.store`: functions take a connection and never commit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, TextClause, text

#: Rows counted in one look, all queues or all tasks together, where there are few of them.
COUNTED = 100_000
#: The fewest and the most that are counted of one queue or task.
COUNTED_OF_ONE = range(1_000, 20_000)
#: Most queues or tasks that are counted: more than have labels of their own.
MOST_NAMES = 250
#: Longest one statement of a look may run, and wait for a lock, milliseconds.
STATEMENT_MS, LOCK_MS = 1_000, 200

#: Statistics of a table that has just filled up say that it is empty; by them whole tables would be read and sorted.
_BOUNDED = text(f"""
    SET LOCAL statement_timeout = {STATEMENT_MS}; SET LOCAL lock_timeout = {LOCK_MS}; SET LOCAL jit = off;
    SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;
    SET LOCAL enable_sort = off; SET LOCAL enable_incremental_sort = off""")


@dataclass(frozen=True, slots=True)
class Depth:
    """What of one queue is not finished; numbers beyond the bound are estimates, and no less than it.

    Args:
        queued: jobs that wait.
        due: those of them that could run now.
        oldest: how long the oldest of these has been due, seconds.
    """

    queued: int
    due: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers by name; `estimated` when one of them is beyond the bound."""

    of: dict[str, int]
    estimated: bool


@dataclass(frozen=True, slots=True)
class Depths:
    """Unfinished jobs by queue; `estimated` when a number is beyond the bound."""

    queues: dict[str, Depth]
    processing: dict[str, int]
    estimated: bool


def bound(connection: Connection) -> None:
    """Bounds the statements of this transaction; the functions below are for a transaction that has begun with this."""
    connection.execute(_BOUNDED)


def counted_up_to(names: int) -> int:
    """How far each of so many queues or tasks is counted. Pure.

    Example:
        >>> counted_up_to(1), counted_up_to(10), counted_up_to(1_000)
        (20000, 10000, 1000)
    """
    return max(COUNTED_OF_ONE.start, min(COUNTED_OF_ONE.stop, COUNTED // max(1, names)))


def _names_in(name: str, rows: str) -> str:
    """The different values of the column that an index begins with: a step into the index for each, and not for each row."""
    return f"""(WITH RECURSIVE seen AS (
           (SELECT {name} AS name FROM {rows} ORDER BY {name} LIMIT 1)
           UNION ALL
           SELECT later.name FROM seen CROSS JOIN LATERAL (
               SELECT {name} AS name FROM {rows} AND {name} > seen.name ORDER BY {name} LIMIT 1) AS later)
       SELECT name FROM seen LIMIT {MOST_NAMES})"""


_NEW = "jobs WHERE status = 'queued' AND dispatched_at IS NULL"
_SENT = "jobs WHERE status = 'queued' AND dispatched_at IS NOT NULL"
_RUN = "jobs WHERE status = 'processing'"
_OPEN = "dead_letters WHERE requeued_at IS NULL AND discarded_at IS NULL"

_QUEUES = text(f"{_names_in('queue', _NEW)} UNION {_names_in('queue', _SENT)}")
_TASKS = text(_names_in("task", f"{_OPEN} AND task IS NOT NULL"))

#: The orders are those of the indexes `jobs_undispatched` and `jobs_dispatched`, so that no other is chosen. Within a
#: priority what is due comes first, so what is due later is never looked at.
_DEPTHS = text(f"""
    SELECT name,
           (SELECT count(*) FROM (
               SELECT FROM {_NEW} AND queue = name ORDER BY priority DESC, run_at LIMIT :most) AS counted),
           (SELECT count(*) FROM (
               SELECT FROM {_SENT} AND queue = name ORDER BY dispatched_at LIMIT :most) AS counted),
           (SELECT count(*) FROM (
               SELECT FROM generate_series(0, 9) AS level CROSS JOIN LATERAL (
                   SELECT FROM {_NEW} AND queue = name AND priority = level AND run_at <= now()
                    ORDER BY run_at LIMIT :most) AS due LIMIT :most) AS counted),
           (SELECT count(*) FROM (
               SELECT FROM {_SENT} AND queue = name AND run_at <= now() ORDER BY dispatched_at LIMIT :most) AS counted),
           extract(epoch FROM now() - least(
               (SELECT min(due.run_at) FROM generate_series(0, 9) AS level CROSS JOIN LATERAL (
                    SELECT run_at FROM {_NEW} AND queue = name AND priority = level AND run_at <= now()
                     ORDER BY run_at LIMIT 1) AS due),
               (SELECT min(run_at) FROM (
                    SELECT run_at FROM {_SENT} AND queue = name AND run_at <= now()
                     ORDER BY dispatched_at LIMIT :most) AS due)))::float8
      FROM unnest(CAST(:names AS text[])) AS name""")
_RUNNING = text(
    f"SELECT queue, count(*) FROM (SELECT queue FROM {_RUN} ORDER BY lease_expires_at LIMIT :most) AS running GROUP BY 1"
)
_LETTERS = text(f"""
    SELECT name, (SELECT count(*) FROM (
               SELECT FROM {_OPEN} AND task = name ORDER BY fingerprint LIMIT :most) AS counted)
      FROM unnest(CAST(:names AS text[])) AS name
     UNION ALL
    SELECT '', (SELECT count(*) FROM (SELECT FROM {_OPEN} AND task IS NULL ORDER BY fingerprint LIMIT :most) AS counted)""")

_ESTIMATE_QUEUED = text("EXPLAIN (FORMAT JSON) SELECT FROM jobs WHERE status = 'queued' AND queue = :name")
_ESTIMATE_DUE = text(
    "EXPLAIN (FORMAT JSON) SELECT FROM jobs WHERE status = 'queued' AND queue = :name AND run_at <= now()"
)
_ESTIMATE_LETTERS = text(f"EXPLAIN (FORMAT JSON) SELECT FROM {_OPEN} AND task = :name")


def _estimate(connection: Connection, statement: TextClause, name: str) -> int:
    plan = connection.execute(statement, {"name": name}).scalar_one()
    read: list[dict[str, Any]] = json.loads(plan) if isinstance(plan, str) else plan
    return int(read[0]["Plan"]["Plan Rows"])


def depths(connection: Connection) -> Depths:
    """Unfinished jobs of every queue that has some."""
    names = list(connection.execute(_QUEUES).scalars())
    most = counted_up_to(len(names))
    queues: dict[str, Depth] = {}
    estimated = False
    for name, new, sent, new_due, sent_due, oldest in connection.execute(
        _DEPTHS, {"names": names, "most": most}
    ):
        queued, due = new + sent, new_due + sent_due
        if max(new, sent) == most:
            estimated = True
            queued = max(queued, _estimate(connection, _ESTIMATE_QUEUED, name))
        if max(new_due, sent_due) == most:
            due = max(due, min(queued, _estimate(connection, _ESTIMATE_DUE, name)))
        queues[name] = Depth(queued, due, oldest or 0.0)
    running = {row[0]: row[1] for row in connection.execute(_RUNNING, {"most": COUNTED_OF_ONE.stop})}
    return Depths(queues, running, estimated or sum(running.values()) == COUNTED_OF_ONE.stop)


def open_dead_letters(connection: Connection) -> Counts:
    """Dead letters of each task that nobody has dealt with; '' for those of no task."""
    names: Sequence[str] = list(connection.execute(_TASKS).scalars())
    most = counted_up_to(len(names))
    found = {row[0]: row[1] for row in connection.execute(_LETTERS, {"names": names, "most": most})}
    beyond = [name for name, count in found.items() if count == most]
    for name in beyond:
        found[name] = max(most, _estimate(connection, _ESTIMATE_LETTERS, name)) if name else most
    return Counts(found, estimated=bool(beyond))
