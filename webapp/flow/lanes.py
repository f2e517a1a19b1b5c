"""Runs the statements about lanes: claims from them, looks at them, files jobs into them and out of them.

Functions take a connection and never commit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from webapp.flow.model import FlowRules
from webapp.infra.postgres.engine import Statement
from webapp.infra.postgres.sql_files import read_sql

#: Jobs that are filed, or leave, in one transaction.
BATCH = 5_000
#: Longest that a submission is on its way which goes by the rules before a change, seconds: a large batch, and as much again.
LONGEST_SUBMISSION = 60.0
#: What `djps_take` gives, for a statement that claims: its arguments are `:queue`, `:task`, `:timeout`, `:limit`, `:worker_id`, `:lease`.
TAKE_TEXT = read_sql(__file__, "lanes", "take")
_TAKE = Statement(TAKE_TEXT)
(
    _LOOK,
    _FILE_WAITING,
    _FILE_SENT,
    _FILE_RUNNING,
    _MAKE_GATE,
    _CALL,
    _CALL_AFTER,
    _LEAVE_RUNNING,
    _LEAVE,
    _NOTE_ALL_LEFT,
    _NOTE_TASKS_LEFT,
    _NEXT_START,
    _SLOTS,
) = (
    text(read_sql(__file__, "lanes", name))
    for name in (
        "look",
        "file_waiting",
        "file_sent",
        "file_running",
        "make_gate",
        "call",
        "call_after",
        "leave_running",
        "leave",
        "note_all_left",
        "note_tasks_left",
        "next_start",
        "slots",
    )
)


class LaneWork(NamedTuple):
    """What the lanes of a queue have of one task.

    Args:
        jobs: that are due, counted to a bound.
        timeout: longest an attempt of them may take, seconds.
        priority: that of the most urgent of them.
        room: processes that may begin; None: any number.
    """

    jobs: int
    timeout: float
    priority: int
    room: int | None


class SlotsUsed(NamedTuple):
    """A concurrency limit of a queue or a task, and how much of it is taken."""

    kind: str
    name: str
    limit: int
    used: int


def slots(connection: Connection) -> list[SlotsUsed]:
    """The concurrency limits of queues and tasks, and how much of each is taken."""
    return [SlotsUsed(*row) for row in connection.execute(_SLOTS)]


def take(connection: Connection, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Claims what the limits allow; each row has a priority and a claim."""
    return list(_TAKE.run(connection, values).rows)


def look(connection: Connection, queue: str, limit: int) -> dict[str, LaneWork]:
    """What the lanes of a queue have for processes that are free, by task.

    Args:
        limit: most jobs of a lane that are counted.
    """
    rows = connection.execute(_LOOK, {"queue": queue, "limit": limit})
    return {row[0]: LaneWork(int(row[1]), row[2], row[3], row[4]) for row in rows}


def startable(work: Mapping[str, LaneWork]) -> int:
    """How many jobs may start now, of what the lanes of a queue have. Pure.

    Example:
        >>> startable({"mail": LaneWork(3, 60.0, 5, None), "sms": LaneWork(2, 60.0, 5, 0)})
        3
    """
    return sum(one.jobs for one in work.values() if one.room is None or one.room > 0)


def seconds_to_next_start(connection: Connection, queues: Collection[str], within: float) -> float | None:
    """Seconds until lanes of these queues may have a start that they have not now; None when that is not within so many."""
    seconds: float | None = connection.execute(
        _NEXT_START, {"queues": sorted(queues), "within": within}
    ).scalar()
    return seconds


def file_beside(connection: Connection, queue: str, tasks: Collection[str] | None, limit: int = BATCH) -> int:
    """Files jobs that wait beside the lanes of a queue; returns how many, up to twice the limit.

    Args:
        tasks: of these only; None: all.
    """
    values = {"queue": queue, "tasks": None if tasks is None else sorted(tasks), "limit": limit}
    return sum(connection.execute(one, values).scalar() or 0 for one in (_FILE_WAITING, _FILE_SENT))


def file_running(connection: Connection, queues: Collection[str], tasks: Collection[str]) -> int:
    """Has jobs that run beside the lanes count; returns how many."""
    return connection.execute(_FILE_RUNNING, {"queues": sorted(queues), "tasks": sorted(tasks)}).rowcount


def call(connection: Connection, queue: str) -> None:
    """Brings the lanes of a queue up to date with what has come to them."""
    connection.execute(_MAKE_GATE, {"queue": queue})
    connection.execute(_CALL, {"queue": queue})


def call_after(connection: Connection, numbers: Collection[int | None]) -> None:
    """Has lanes of keys in order looked at again, where jobs of them became final without having run.

    Args:
        numbers: the jobs' lanes; None for one beside them.
    """
    if found := sorted({one for one in numbers if one is not None}):
        connection.execute(_CALL_AFTER, {"lanes": found})


def leave(connection: Connection, queue: str, rules: FlowRules, limit: int = BATCH) -> int:
    """Leaves jobs of a queue that are under no limit any more to the dispatcher; returns how many.

    The queue's row is not held meanwhile: a batch takes long, and claims and changes wait for that row.

    Args:
        rules: those in force; a task that they limit keeps its lanes.
    """
    values = {"queue": queue, "limited_tasks": sorted(rules.limited_tasks), "limit": limit}
    running = connection.execute(_LEAVE_RUNNING, values).rowcount
    left = running + connection.execute(_LEAVE, values).rowcount
    if not left:
        values["longest_submission"] = LONGEST_SUBMISSION
        connection.execute(_NOTE_ALL_LEFT, values)
        connection.execute(_NOTE_TASKS_LEFT, values | {"tasks": sorted(rules.leaving_tasks)})
    return left
