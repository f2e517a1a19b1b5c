"""Sets jobs of paused tasks aside, so that the other tasks of their queue do not wait behind them, and brings them back.

A paused queue needs none of that: all of it waits. Functions take a connection and never commit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import Connection, text

from webapp.infra.postgres.sql_files import read_sql

#: Jobs that are set aside or brought back in one transaction.
#: It holds the row of a task, for which a resume waits.
BATCH = 2_000
#: Batches of a queue between two looks at the others.
BATCHES = 10

_LOCK_PAUSED, _SET_ASIDE, _BRING_BACK, _ALL_ARE_BACK = (
    text(read_sql(__file__, "aside", name))
    for name in ("lock_paused", "set_aside", "bring_back", "all_are_back")
)


def set_aside(connection: Connection, queue: str, tasks: Collection[str], limit: int = BATCH) -> int:
    """Sets the jobs of tasks aside that are due in a queue; returns how many.

    A task that is not paused any more is left alone.

    Args:
        limit: how many of the queue's first jobs are looked at.
    """
    paused = list(connection.execute(_LOCK_PAUSED, {"tasks": sorted(tasks)}).scalars())
    if not paused:
        return 0
    return connection.execute(_SET_ASIDE, {"queue": queue, "tasks": paused, "limit": limit}).rowcount


def bring_back(connection: Connection, queue: str, tasks: Collection[str], limit: int = BATCH) -> int:
    """Leaves jobs of a queue that were set aside to the dispatcher; returns how many.

    Args:
        tasks: those that are open again.
        limit: most of them.
    """
    values = {"queue": queue, "tasks": sorted(tasks), "limit": limit}
    return connection.execute(_BRING_BACK, values).rowcount


def note_all_back(connection: Connection, tasks: Iterable[str]) -> int:
    """Notes of those tasks that are open and have no job aside that this is so; returns how many there are."""
    return connection.execute(_ALL_ARE_BACK, {"tasks": sorted(tasks)}).rowcount
