"""How long a job is kept: cancels what expired, deletes what is old, and tells by an id whether its job was deleted.

Functions that take a connection never commit.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, text

from webapp.flow import lanes
from webapp.infra.postgres.sql_files import read_sql

#: Before any job, and after all of them.
BEGINNING, END = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
#: Most jobs end within this time after they were submitted.
SOON = timedelta(days=3)
#: What the clock of a process that takes jobs in may be ahead of PostgreSQL's.
CLOCK_SLACK = timedelta(days=1)
#: What `cancel_reason` says of a job that was not started by its `expires_at`.
EXPIRED = "expired"
#: The version of the ids that jobs get (RFC 9562, 5.7); its first 48 bits are milliseconds since 1970.
_VERSION = 7
#: The last second that a `datetime` can be, since 1970.
_LAST_SECOND = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()

_CANCEL_EXPIRED = text(read_sql(__file__, "cancel_expired"))
_PRUNE = text(read_sql(__file__, "prune"))


def cancel_expired(connection: Connection, limit: int) -> int:
    """Cancels jobs whose `expires_at` passed before their first attempt; returns how many."""
    of_lanes = connection.execute(_CANCEL_EXPIRED, {"reason": EXPIRED, "limit": limit}).scalars().all()
    lanes.call_after(connection, of_lanes)
    return len(of_lanes)


def prune(connection: Connection, *, days: int, limit: int) -> int:
    """Deletes final jobs that ended more than `days` ago, with their attempts; returns how many."""
    return connection.execute(_PRUNE, {"days": days, "limit": limit}).rowcount


def made_at(job_id: UUID) -> datetime:
    """When a job with this UUIDv7 was submitted, by the clock of the process that took it in.

    Ids from outside may say any time; one beyond the year 9999 is the end of it.
    """
    return datetime.fromtimestamp(min((job_id.int >> 80) / 1_000, _LAST_SECOND), UTC)


def may_end_from(*job_ids: UUID) -> datetime:
    """The moment before which none of these jobs ended, unless the clock of a process that took one in was wrong by a day.

    Example:
        >>> may_end_from(UUID("01a21c7c-f48d-7521-86c1-1dfd6718c5ef")).isoformat()
        '2026-11-26T10:10:12.493000+00:00'
    """
    return max(made_at(min(job_ids)), BEGINNING + CLOCK_SLACK) - CLOCK_SLACK


def ends_within(job_id: UUID) -> tuple[datetime, datetime]:
    """When a job most likely ends, if it has: a look there spares one at all of history.

    Example:
        >>> [str(one.date()) for one in ends_within(UUID("01a21c7c-f48d-7521-86c1-1dfd6718c5ef"))]
        ['2026-11-26', '2026-11-30']
    """
    since = may_end_from(job_id)
    return since, min(since, END - CLOCK_SLACK - SOON) + CLOCK_SLACK + SOON


def is_past(job_id: UUID, now: datetime, retention_days: int) -> bool:
    """True if a job with this id would have been deleted for its age, unless it ended long after it was submitted.

    A job is deleted RETENTION_DAYS after its end, which is never before its id was made. So an id that is younger was not
    deleted; whether one that is older belonged to a job or was never given out is not known.

    Args:
        now: the moment of the question.
        retention_days: days a final job is kept; 0: for ever.
    """
    if retention_days == 0 or job_id.version != _VERSION:
        return False
    return made_at(job_id) < now - timedelta(days=retention_days)
