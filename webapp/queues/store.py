"""Runs the statements about a queue: what is due at its head, and which of its jobs have a message.

Functions take a connection and never commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from webapp.flow.model import FlowRules
from webapp.infra.broker.hints import Hint
from webapp.infra.postgres.literals import array_of
from webapp.infra.postgres.sql_files import read_sql
from webapp.queues.plan import LOOKED_AT, Waiting

_LOOK, _TAKE = (text(read_sql(__file__, "head", name)) for name in ("look", "take"))
_COUNT_NAMED, _TAKE_UNCLAIMED, _MARK_UNDISPATCHED, _FORGET, _GIVE_BACK_PAUSED = (
    text(read_sql(__file__, "messages", name))
    for name in ("count_named", "take_unclaimed", "mark_undispatched", "forget", "give_back_paused")
)
_NEXT_DUE = text(read_sql(__file__, "next_due"))


def look_at_head(connection: Connection, queue: str, limit: int = LOOKED_AT) -> dict[str, Waiting]:
    """What is due at the head of a queue, by task; takes nothing and locks nothing."""
    rows = connection.execute(_LOOK, {"queue": queue, "limit": limit})
    return {row[0]: Waiting(*row[1:]) for row in rows}


def take_due(connection: Connection, queue: str, limit: int, *, besides: Sequence[str] = ()) -> list[Hint]:
    """Marks due jobs that were never sent as dispatched, and returns them in the order they should be sent.

    Args:
        limit: how many of the queue's first jobs are looked at.
        besides: tasks whose jobs are left where they are.
    """
    values = {"queue": queue, "limit": limit, "besides": list(besides)}
    return _in_order(connection.execute(_TAKE, values))


def take_unclaimed(connection: Connection, queue: str, limit: int, age: float) -> list[Hint]:
    """Takes jobs that were sent more than `age` seconds ago and never claimed: their message may be lost."""
    return _in_order(connection.execute(_TAKE_UNCLAIMED, {"queue": queue, "limit": limit, "age": age}))


def _in_order(rows: Iterable[Row[Any]]) -> list[Hint]:
    urgent_first = sorted(rows, key=lambda row: (-row.priority, row.run_at))
    return [Hint(row.id, row.task, row.queue, row.timeout, row.priority) for row in urgent_first]


def count_named(connection: Connection, queue: str, limit: int) -> int:
    """How many waiting jobs have a message that names them, counted up to `limit`: the other messages are tickets."""
    return int(connection.execute(_COUNT_NAMED, {"queue": queue, "limit": limit}).scalar_one())


def mark_undispatched(connection: Connection, ids: Iterable[UUID]) -> int:
    """Gives jobs whose message could not be sent back to the dispatcher."""
    return connection.execute(_MARK_UNDISPATCHED, {"ids": array_of(ids)}).rowcount


def forget_dispatched(connection: Connection) -> int:
    """Gives every job that was sent and not claimed back to the dispatcher: its message is gone."""
    return connection.execute(_FORGET).rowcount


def give_back_paused(connection: Connection, ids: Iterable[UUID], rules: FlowRules) -> int:
    """Gives those of these jobs back to the dispatcher that a message named and a pause holds; returns how many."""
    values = {
        "ids": array_of(ids),
        "closed_queues": list(rules.barred_queues),
        "closed_tasks": list(rules.barred_tasks),
    }
    return connection.execute(_GIVE_BACK_PAUSED, values).rowcount


def seconds_to_next_due(connection: Connection, queues: Sequence[str], within: float) -> float | None:
    """Seconds until the next undispatched job is due, when that is less than `within`; 0 when one is overdue."""
    seconds: float | None = connection.execute(_NEXT_DUE, {"queues": list(queues), "within": within}).scalar()
    return seconds
