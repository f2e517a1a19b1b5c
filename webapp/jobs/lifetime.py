"""What an id tells of a job that is not there any more. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

#: The version of the ids that jobs get (RFC 9562, 5.7); its first 48 bits are milliseconds since 1970.
_VERSION = 7
#: The last second that a `datetime` can be, since 1970.
_LAST_SECOND = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()


def made_at(job_id: UUID) -> datetime:
    """When a job with this UUIDv7 was submitted, by the clock of the process that took it in.

    Ids from outside may say any time; one beyond the year 9999 is the end of it.
    """
    return datetime.fromtimestamp(min((job_id.int >> 80) / 1_000, _LAST_SECOND), UTC)


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
