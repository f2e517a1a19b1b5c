"""Runs the statements about dead letters: move a job among them, find them, group them, requeue and discard what matches.

Functions take a connection and never commit.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from webapp.dead_letters import tallies
from webapp.dead_letters.model import (
    DeadLetter,
    DeadLetterFilter,
    Group,
    NewDeadLetter,
    Resolved,
    ResolveRequest,
)
from webapp.flow.reached import Reached
from webapp.infra.postgres.literals import array_of
from webapp.infra.postgres.sql_files import read_sql
from webapp.jobs import control, pages
from webapp.jobs.error_report import ErrorReport
from webapp.jobs.model import JobRow
from webapp.jobs.retry import DeathReason
from webapp.jobs.search import Seen


def _of(statement: Reached, wanted: DeadLetterFilter) -> TextClause:
    return statement.of(wanted.tenant, of_queues=wanted.queues is not None)


_PAGE, _COUNT, _JOBS, _GROUPS, _TAKE = (
    Reached(__file__, "dead_letters", name) for name in ("page", "count", "jobs", "groups", "take")
)
_DISCARD = text(read_sql(__file__, "dead_letters", "discard"))
_LAST_ATTEMPT, _MOVE = (text(read_sql(__file__, "move", name)) for name in ("last_attempt", "move"))

#: A job fails in the transaction that writes its dead letter; in databases of releases before, about then.
DEAD_WITHIN = timedelta(days=1)

#: How an attempt that was recorded by a release without `death_reason` tells that it was discarded.
_DISCARD_TYPE = "webapp.jobs.errors.Discard"


def page(
    connection: Connection, wanted: DeadLetterFilter, *, limit: int, before: int | None
) -> list[DeadLetter]:
    """Dead letters from the newest on.

    Args:
        before: only those with a smaller number.
    """
    given = wanted.values() | {"limit": limit, "before": before}
    return [DeadLetter(*row) for row in connection.execute(_of(_PAGE, wanted), given)]


def count(connection: Connection, wanted: DeadLetterFilter) -> int:
    """How many dead letters match; of open ones, by what makes them alike, this costs the same however many there are."""
    if wanted.is_tallied:
        return tallies.total(connection, wanted)
    return int(connection.execute(_of(_COUNT, wanted), wanted.values()).scalar_one())


def jobs(
    connection: Connection,
    wanted: DeadLetterFilter,
    *,
    limit: int,
    offset: int,
    large: Collection[str] = pages.LARGE,
) -> tuple[list[JobRow], bool]:
    """The jobs of open dead letters, the newest first, as many as fit into a page; and whether there may be more.

    Args:
        large: fields that may be large and are wanted.
    """
    given = wanted.values() | {"limit": limit, "offset": offset}
    rows = connection.execute(_of(_JOBS, wanted), given).all()
    if not rows:
        return [], False
    died = [row[1] for row in rows]
    seen = Seen(min(died) - DEAD_WITHIN, max(died) + DEAD_WITHIN, rows[0][2])
    found, all_fit = pages.fetch(connection, [row[0] for row in rows], large, seen=seen)
    return found, not all_fit or len(rows) == limit


def groups(connection: Connection, wanted: DeadLetterFilter, *, limit: int) -> list[Group]:
    """Dead letters by task, queue, error class and fingerprint, the largest group first."""
    if wanted.is_tallied:
        return tallies.groups(connection, wanted, limit=limit)
    return [
        Group(*row) for row in connection.execute(_of(_GROUPS, wanted), wanted.values() | {"limit": limit})
    ]


def requeue(
    connection: Connection, request: ResolveRequest, *, limit: int, first: datetime | None
) -> Resolved:
    """Queues the jobs of the oldest open dead letters that match again, each with a fresh budget of retries.

    Args:
        limit: most dead letters.
        first: when the first job is due; None: now.
    """
    taken = _take(connection, request, limit)
    due = control.requeue_many(
        connection,
        list(taken),
        ended_from=min(taken.values(), default=None),
        first=first,
        gap=request.gap,
        by=request.by,
        why=request.why,
    )
    return Resolved(len(due), max(due, default=None))


def discard(connection: Connection, request: ResolveRequest, *, limit: int) -> Resolved:
    """Puts the oldest open dead letters that match aside: their jobs stay failed, and leave the dead letter queue."""
    given = {"ids": array_of(_take(connection, request, limit)), "by": request.by, "why": request.why}
    return Resolved(connection.execute(_DISCARD, given).rowcount)


def _take(connection: Connection, request: ResolveRequest, limit: int) -> dict[UUID, datetime]:
    """Locks the oldest open dead letters that match, and returns their jobs in that order, each with when it ended."""
    rows = connection.execute(_of(_TAKE, request.wanted), request.wanted.values() | {"limit": limit})
    return {row[0]: row[1] for row in rows}


def move_to_dead_letters(connection: Connection, job_id: UUID, attempt: int) -> NewDeadLetter | None:
    """Moves a job whose last attempt is recorded to the dead letter queue; None when there is nothing to move."""
    last = connection.execute(_LAST_ATTEMPT, {"id": job_id, "attempt": attempt}).first()
    if last is None:
        return None
    by_type = DeathReason.DISCARDED if last.error_type == _DISCARD_TYPE else DeathReason.EXHAUSTED
    reason = last.death_reason or by_type.value
    report = ErrorReport(last.error_type or "", last.error_message or "")
    connection.execute(
        _MOVE,
        {
            "id": job_id,
            "attempt": attempt,
            "reason": reason,
            "error_type": last.error_type,
            "error_message": last.error_message,
            "fingerprint": report.fingerprint,
        },
    )
    return NewDeadLetter(
        job_id, last.task, last.queue, reason, last.request_id, last.traceparent, last.tenant
    )
