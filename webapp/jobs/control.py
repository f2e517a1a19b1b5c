"""Runs the statements by which clients and operators steer a job: cancel it, queue it again.

Functions take a connection and never commit; every statement is guarded by state and attempt, and a write that its guard
refuses changes no row and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from webapp.flow import lanes
from webapp.flow.reach import EVERYTHING
from webapp.infra.postgres.literals import array_of
from webapp.infra.postgres.sql_files import read_sql
from webapp.jobs.model import CancelAnswer
from webapp.jobs.store import find

#: Why a job is cancelled when the request gives no reason.
REQUESTED = "requested"

#: By how many seconds the cancellation of a job is dated back that is not waited for: more than any grace.
LONG_AGO = 86_400.0

_LOCK, _ASK, _KILL, _IS_ASKED, _LOCK_OVERDUE, _HOLDERS_OF = (
    text(read_sql(__file__, "cancel", name))
    for name in ("lock", "ask", "kill", "is_asked", "lock_overdue", "holders_of")
)
_REQUEUE, _CLOSE_DEAD_LETTERS = (
    text(read_sql(__file__, "requeue", name)) for name in ("requeue", "close_dead_letters")
)


class Asked(NamedTuple):
    """What became of a request to cancel.

    Args:
        is_new: it changed something: the job was not asked to stop before.
    """

    answer: CancelAnswer
    is_new: bool


def ask_cancel(connection: Connection, job_id: UUID, reason: str = REQUESTED) -> CancelAnswer:
    """What `cancel` comes to, whether it was asked before or not."""
    return cancel(connection, job_id, reason).answer


def cancel(connection: Connection, job_id: UUID, reason: str = REQUESTED) -> Asked:
    """Cancels a job that waits, and asks the attempt of one that runs to stop; its lease goes on.

    Two statements of one transaction: an attempt's end that is being written meanwhile is waited for by the first, and
    seen by the second.

    Args:
        reason: kept in the row; the first one that was given stays.
    """
    connection.execute(_LOCK, {"id": job_id})
    asked = connection.execute(_ASK, {"id": job_id, "reason": reason}).first()
    if asked is None:
        return Asked(CancelAnswer.NOTHING, is_new=False)
    if asked.status != "cancelled":
        return Asked(CancelAnswer.ASKED, is_new=asked.is_new)
    lanes.call_after(connection, [asked.lane])
    return Asked(CancelAnswer.CANCELLED, is_new=True)


def kill(connection: Connection, job_id: UUID) -> bool:
    """Has a job that runs and was asked to stop not be waited for: its worker kills the process at its next look.

    Returns False where it does not run, or was not asked.
    """
    return bool(connection.execute(_KILL, {"id": job_id, "seconds": LONG_AGO}).rowcount)


def is_cancel_asked(connection: Connection, job_id: UUID, attempt: int) -> bool:
    """True if an attempt should stop: its cancellation was asked, or it is not this attempt's job any more."""
    asked: bool | None = connection.execute(_IS_ASKED, {"id": job_id, "attempt": attempt}).scalar()
    return asked is None or asked


def overdue_holders(connection: Connection, family: str, *, grace: float) -> list[str]:
    """The processes of one worker that run a job which was asked to stop more than `grace` seconds ago.

    The jobs are locked: until the transaction ends none of these processes can end its job's attempt and begin another
    job's. A job whose last attempt's end is on record waits for its dead letter; its process runs another job by now.

    Args:
        family: what their ids begin with.
    """
    ids = list(connection.execute(_LOCK_OVERDUE, {"family": family, "grace": grace}).scalars())
    if not ids:
        return []
    return list(connection.execute(_HOLDERS_OF, {"ids": array_of(ids)}).scalars())


def requeue(connection: Connection, job_id: UUID) -> bool:
    """Queues a failed or cancelled job again with a fresh retry budget; False when it is neither."""
    job = find(connection, job_id, EVERYTHING)
    return job is not None and bool(requeue_many(connection, [job_id], ended_from=job.finished_at))


def requeue_many(
    connection: Connection,
    ids: Sequence[UUID],
    *,
    ended_from: datetime | None,
    first: datetime | None = None,
    gap: float = 0.0,
    by: str | None = None,
    why: str | None = None,
) -> list[datetime]:
    """Queues those jobs that are failed or cancelled again, and closes their dead letters; returns when they are due.

    Args:
        ended_from: when the one ended that ended first; None: none of them has.
        first: when the first job is due; None: now.
        gap: seconds from one job to the next.
        by, why: kept with the dead letters.
    """
    asked = array_of(ids)
    values = {"ids": asked, "since": ended_from, "first": first, "gap": gap}
    due = list(connection.execute(_REQUEUE, values).scalars())
    if due:
        connection.execute(_CLOSE_DEAD_LETTERS, {"ids": asked, "by": by, "why": why})
    return due
