"""Runs the statements by which batches are cancelled, queued again and deleted, portion by portion.

Functions take a connection and never commit.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from webapp.batches.model import OUTSIDE
from webapp.flow import lanes
from webapp.groups.model import Kind
from webapp.infra.postgres.sql_files import read_sql
from webapp.jobs import control

(
    _ASK_CANCEL,
    _CANCEL_WAITING,
    _ASK_RUNNING,
    _CANCEL_CHILDREN,
    _TO_CANCEL,
    _ASK_RETRY,
    _RETRY_CHILDREN,
    _TO_RETRY,
    _TAKE_RETRY,
    _FAILED_MEMBERS,
    _RETRIED,
    _PRUNE,
) = (
    text(read_sql(__file__, "control", name))
    for name in (
        *("ask_cancel", "cancel_waiting", "ask_running", "cancel_children", "to_cancel", "ask_retry"),
        *("retry_children", "to_retry", "take_retry", "failed_members", "retried", "prune"),
    )
)
#: Before all ids.
FIRST = OUTSIDE


class Cancelled(NamedTuple):
    """What was cancelled in a portion.

    Args:
        cancelled: members that waited.
        asked: members that run, and were asked to stop.
        children: batches that are members and were closed by that; they are to be judged.
        more: there may be others.
    """

    cancelled: int
    asked: int
    children: list[UUID]
    more: bool


class Retried(NamedTuple):
    """What was queued again in a portion.

    Args:
        more: there may be others.
        is_last: all of them were looked at, so the batch, which is locked, may be judged.
    """

    requeued: int
    more: bool
    is_last: bool = False


def ask_cancel(connection: Connection, batch_id: UUID, reason: str) -> bool:
    """Closes a batch and has its members be cancelled; False where that was asked before, or the batch is over."""
    return connection.execute(_ASK_CANCEL, {"id": batch_id, "reason": reason}).first() is not None


def cancel_members(connection: Connection, batch_id: UUID, reason: str, limit: int) -> Cancelled:
    """Cancels members that wait, and asks those that run to stop.

    Args:
        limit: most of each.
    """
    values = {"id": batch_id, "reason": reason, "limit": limit}
    of_lanes = connection.execute(_CANCEL_WAITING, values).scalars().all()
    lanes.call_after(connection, of_lanes)
    asked = connection.execute(_ASK_RUNNING, values).rowcount
    children = connection.execute(_CANCEL_CHILDREN, values).all()
    is_full = max(len(of_lanes), asked, len(children)) >= limit
    batches = [row[0] for row in children if row[1] == Kind.BATCH]
    return Cancelled(len(of_lanes), asked, batches, is_full)


def to_cancel(connection: Connection, after: UUID, limit: int) -> list[tuple[UUID, str]]:
    """Batches that are being cancelled, the next ones by id, and why."""
    rows = connection.execute(_TO_CANCEL, {"after": after, "limit": limit})
    return [(row[0], row[1] or control.REQUESTED) for row in rows]


def ask_retry(connection: Connection, batch_id: UUID) -> None:
    """Has all members be queued again that have failed by now."""
    connection.execute(_ASK_RETRY, {"id": batch_id})


def to_retry(connection: Connection, after: UUID, limit: int) -> list[UUID]:
    """Batches of which members are being queued again, the next ones by id."""
    return list(connection.execute(_TO_RETRY, {"after": after, "limit": limit}).scalars())


def retry_members(
    connection: Connection, batch_id: UUID, limit: int, *, by: str | None = None, why: str | None = None
) -> Retried:
    """Queues failed members again, the next ones by id; nothing where another session does.

    Args:
        limit: most members that are looked at.
        by, why: kept with their dead letters.
    """
    row = connection.execute(_TAKE_RETRY, {"id": batch_id}).first()
    if row is None:
        return Retried(0, more=False)
    until, after, since = row
    values: dict[str, UUID | datetime | int] = {
        "id": batch_id,
        "after": after,
        "since": since,
        "until": until,
        "limit": limit,
    }
    looked, last, first_end, failed = connection.execute(_FAILED_MEMBERS, values).one()
    requeued = 0
    if failed:
        ids = [UUID(one) for one in failed]
        requeued = len(control.requeue_many(connection, ids, ended_from=first_end, by=by, why=why))
    more = looked == limit
    connection.execute(_RETRIED, {"id": batch_id, "after": last if more else None, "goes_on": requeued > 0})
    connection.execute(_RETRY_CHILDREN, {"id": batch_id, "limit": limit})
    return Retried(requeued, more, is_last=not more)


def prune(connection: Connection, *, days: int, limit: int) -> int:
    """Deletes batches that ended more than `days` ago; returns how many. Their members go with their day."""
    return connection.execute(_PRUNE, {"days": days, "limit": limit}).rowcount
