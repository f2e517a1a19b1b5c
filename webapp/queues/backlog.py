"""How much waits and runs, and how many dead letters are open: in a bounded time, however many millions there are.

Each queue and each task is counted by itself, through the index that has its rows together, and no further than a bound;
beyond it the planner's estimate stands in. Like `webapp.jobs.store`: functions take a connection and never commit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, TextClause, text

from webapp.flow.reach import Reach
from webapp.flow.reached import Reached, reach_values
from webapp.infra.postgres.sql_files import read_sql

#: Rows counted in one look, all queues or all tasks together, where there are few of them.
COUNTED = 100_000
#: The fewest and the most that are counted of one queue or task.
COUNTED_OF_ONE = range(1_000, 20_000)
_BOUND, _QUEUES, _TASKS, _DEPTHS, _OPEN, _ESTIMATE_QUEUED, _ESTIMATE_DUE, _ESTIMATE_OPEN = (
    text(read_sql(__file__, "backlog", name))
    for name in (
        *("bound", "queues", "tasks", "depths", "open_dead_letters"),
        *("estimate_queued", "estimate_due", "estimate_dead_letters"),
    )
)
_GUEST_QUEUES, _DEPTHS_OF_DEFAULT, _DEPTHS_OF_TENANT = (
    text(read_sql(__file__, "backlog", name))
    for name in ("guest_queues", "depths_of_default", "depths_of_tenant")
)
_RUNNING = Reached(__file__, "backlog", "running")


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
    connection.execute(_BOUND)


def counted_up_to(names: int) -> int:
    """How far each of so many queues or tasks is counted. Pure.

    Example:
        >>> counted_up_to(1), counted_up_to(10), counted_up_to(1_000)
        (20000, 10000, 1000)
    """
    return max(COUNTED_OF_ONE.start, min(COUNTED_OF_ONE.stop, COUNTED // max(1, names)))


def _estimate(connection: Connection, statement: TextClause, name: str) -> int:
    plan = connection.execute(statement, {"name": name}).scalar_one()
    read: list[dict[str, Any]] = json.loads(plan) if isinstance(plan, str) else plan
    return int(read[0]["Plan"]["Plan Rows"])


def depths(connection: Connection, reach: Reach) -> Depths:
    """Unfinished jobs of every queue that has some and is reached; nothing of it depends on what other queues and tenants have."""
    found = list(connection.execute(_QUEUES).scalars()) if reach.queues is None else sorted(reach.queues)
    values = {"most": COUNTED_OF_ONE.stop} | reach_values(reach)
    processing = {row[0]: row[1] for row in connection.execute(_RUNNING.by(reach), values)}
    whole, shared = _told_apart(connection, reach, list(filter(reach.has, found)))
    queues, is_beyond = _depths(connection, whole)
    of_one, is_more = _depths_of_one(connection, reach, shared)
    is_capped = sum(processing.values()) == COUNTED_OF_ONE.stop
    return Depths(queues | of_one, processing, is_beyond or is_more or is_capped)


def _told_apart(
    connection: Connection, reach: Reach, names: Sequence[str]
) -> tuple[Sequence[str], Sequence[str]]:
    """Which queues are counted as a whole for a caller, and which have jobs of other tenants."""
    if reach.number is None:
        return names, ()
    if reach.is_guest:
        return (), names
    shared = set(connection.execute(_GUEST_QUEUES).scalars())
    return [name for name in names if name not in shared], [name for name in names if name in shared]


def _depths_of_one(
    connection: Connection, reach: Reach, names: Sequence[str]
) -> tuple[dict[str, Depth], bool]:
    """What a tenant has in queues that it shares; and whether that is more than is counted. No estimate tells of what others have."""
    if not names:
        return {}, False
    most, queues, estimated = counted_up_to(len(names)), {}, False
    values = {"names": list(names), "most": most, "tenant": reach.number}
    statement = _DEPTHS_OF_TENANT if reach.is_guest else _DEPTHS_OF_DEFAULT
    for name, new, sent, due, oldest, looked_at in connection.execute(statement, values):
        estimated = estimated or looked_at == most
        if new + sent:
            queues[name] = Depth(new + sent, due, oldest or 0.0)
    return queues, estimated


def _depths(connection: Connection, names: Sequence[str]) -> tuple[dict[str, Depth], bool]:
    """What there is in queues that are seen as a whole; and whether that is more than is counted."""
    if not names:
        return {}, False
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
        if queued:
            queues[name] = Depth(queued, due, oldest or 0.0)
    return queues, estimated


def open_dead_letters(connection: Connection) -> Counts:
    """Dead letters of each task that no one has dealt with; '' for those of no task."""
    names: Sequence[str] = list(connection.execute(_TASKS).scalars())
    most = counted_up_to(len(names))
    found = {row[0]: row[1] for row in connection.execute(_OPEN, {"names": names, "most": most})}
    beyond = [name for name, count in found.items() if count == most]
    for name in beyond:
        found[name] = max(most, _estimate(connection, _ESTIMATE_OPEN, name)) if name else most
    return Counts(found, estimated=bool(beyond))
