"""The part of the store that operators and clients use: cancel, requeue, look at attempts. The rules of `store` hold here too.

Functions take a connection and never commit; every statement is guarded by state and attempt, and a write
that its guard refuses changes no row and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection, text

from webapp.infra.postgres.literals import array_of

#: Why a job is cancelled when whoever asked did not say.
REQUESTED = "requested"


class CancelAnswer(StrEnum):
    """What asking for a job's cancellation led to."""

    #: The job was waiting and is cancelled; it will not run.
    CANCELLED = "cancelled"
    #: The job runs: its attempt is asked to stop, now or before, and no other will follow.
    ASKED = "asked"
    #: The job is final or unknown, or its last attempt has failed already; nothing was changed.
    NOTHING = "nothing"


#: True while no end of a running job's newest attempt is on record.
_STILL_RUNS = """status = 'processing' AND NOT EXISTS (
             SELECT FROM job_attempts AS ended WHERE ended.job_id = jobs.id AND ended.attempt = jobs.attempt)"""

_LOCK = text("""
    SELECT FROM jobs WHERE id = :id AND status IN ('queued', 'processing') FOR NO KEY UPDATE""")

_ASK_CANCEL = text(f"""
    UPDATE jobs
       SET status = CASE status WHEN 'queued' THEN 'cancelled' ELSE status END,
           finished_at = CASE status WHEN 'queued' THEN now() END,
           cancel_requested_at = CASE status WHEN 'processing' THEN coalesce(cancel_requested_at, now()) END,
           cancel_reason = CASE WHEN cancel_requested_at IS NULL THEN :reason ELSE cancel_reason END,
           updated_at = now()
     WHERE id = :id AND (status = 'queued' OR {_STILL_RUNS})
    RETURNING status""")


def ask_cancel(connection: Connection, job_id: UUID, reason: str = REQUESTED) -> CancelAnswer:
    """Cancels a job that waits, and asks the attempt of one that runs to stop; its lease goes on.

    Two statements of one transaction: an attempt's end that is being written meanwhile is waited for by the first, and
    seen by the second.

    Args:
        reason: kept in the row; the first one that was given stays.
    """
    connection.execute(_LOCK, {"id": job_id})
    status = connection.execute(_ASK_CANCEL, {"id": job_id, "reason": reason}).scalar()
    if status is None:
        return CancelAnswer.NOTHING
    return CancelAnswer.CANCELLED if status == "cancelled" else CancelAnswer.ASKED


_REQUEUE = text("""
    UPDATE jobs
       SET status = 'queued', run_at = now(), dispatched_at = NULL, retry_count = 0, last_error = NULL,
           finished_at = NULL, cancel_requested_at = NULL, cancel_reason = NULL, callback_job_id = NULL,
           updated_at = now(), expires_at = CASE WHEN expires_at > now() THEN expires_at END
     WHERE id = :id AND status IN ('failed', 'cancelled')""")

_CLOSE_LETTER = text("""
    UPDATE dead_letters SET requeued_at = now()
     WHERE job_id = :id AND requeued_at IS NULL AND discarded_at IS NULL""")


def requeue(connection: Connection, job_id: UUID) -> bool:
    """Queues a failed or cancelled job once more with a fresh retry budget; False when it is neither.

    The attempt is kept: it is the fence, so what earlier attempts write late still changes nothing.
    """
    if connection.execute(_REQUEUE, {"id": job_id}).rowcount == 0:
        return False
    # A statement of its own: after a wait for the row it also sees the letter of whoever held it.
    connection.execute(_CLOSE_LETTER, {"id": job_id})
    return True


_IS_ASKED = text(
    "SELECT cancel_requested_at IS NOT NULL FROM jobs"
    " WHERE id = :id AND status = 'processing' AND attempt = :attempt"
)


def is_cancel_asked(connection: Connection, job_id: UUID, attempt: int) -> bool:
    """Whether an attempt should stop: its cancellation was asked, or it is not this attempt's job any more."""
    asked: bool | None = connection.execute(_IS_ASKED, {"id": job_id, "attempt": attempt}).scalar()
    return asked is None or asked


_LOCK_OVERDUE = text(f"""
    SELECT id FROM jobs
     WHERE {_STILL_RUNS} AND cancel_requested_at < now() - make_interval(secs => :grace)
       AND starts_with(worker_id, :family)
       FOR NO KEY UPDATE SKIP LOCKED""")

_HOLDERS_OF = text(
    f"SELECT DISTINCT worker_id FROM jobs WHERE id = ANY(CAST(:ids AS uuid[])) AND {_STILL_RUNS}"
)


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
    # An end that was recorded while the first statement ran is seen by the second.
    return list(connection.execute(_HOLDERS_OF, {"ids": array_of(ids)}).scalars())


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt; `outcome` and `ended_at` are None while it runs."""

    attempt: int
    worker_id: str
    outcome: str | None
    started_at: datetime
    ended_at: datetime | None
    error_type: str | None
    error_message: str | None
    traceback: str | None


_ATTEMPTS = text("""
    WITH newest AS (
        SELECT attempt, worker_id, outcome, started_at, ended_at, error_type, error_message, traceback
          FROM job_attempts WHERE job_id = :id AND attempt < :before
         UNION ALL
        SELECT attempt, worker_id, NULL, last_attempt_at, NULL, NULL, NULL, NULL
          FROM jobs WHERE id = :id AND status = 'processing' AND attempt < :before AND NOT EXISTS (
               SELECT FROM job_attempts AS ended WHERE ended.job_id = jobs.id AND ended.attempt = jobs.attempt)
         ORDER BY attempt DESC LIMIT :limit),
    measured AS (
        SELECT *, sum(coalesce(octet_length(traceback), 0) + coalesce(octet_length(error_message), 0)) OVER last AS bytes,
               count(*) OVER () AS found, row_number() OVER last AS number
          FROM newest WINDOW last AS (ORDER BY attempt DESC))
    SELECT attempt, worker_id, outcome, started_at, ended_at, error_type, error_message, traceback, found
      FROM measured WHERE bytes <= :room OR number = 1 ORDER BY attempt DESC""")


def attempts(
    connection: Connection, job_id: UUID, *, before: int, limit: int, room: int
) -> tuple[list[AttemptRow], bool]:
    """A job's attempts from the newest on, the running one among them; and whether there may be more.

    Args:
        before: only attempts with a smaller number.
        limit: most attempts.
        room: largest page, bytes of messages and tracebacks.
    """
    values = {"id": job_id, "before": before, "limit": limit, "room": room}
    rows = connection.execute(_ATTEMPTS, values).all()
    found = rows[0].found if rows else 0
    return [AttemptRow(*row[:-1]) for row in rows], found == limit or len(rows) < found


_WATCH = text("""
    UPDATE jobs SET watched = true
     WHERE id = :id AND NOT watched AND status IN ('queued', 'processing')""")


def watch(connection: Connection, job_id: UUID) -> None:
    """Makes a job that is not final tell of its changes, on the channel `djps_watched`."""
    connection.execute(_WATCH, {"id": job_id})


_NOTE_PROGRESS = text("""
    UPDATE jobs
       SET progress = jsonb_build_object('done', CAST(:done AS float8), 'total', CAST(:total AS float8),
                                         'note', CAST(:note AS text), 'at',
                                         to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')),
           updated_at = now()
     WHERE id = :id AND status = 'processing' AND attempt = :attempt""")


def note_progress(
    connection: Connection, job_id: UUID, attempt: int, *, done: float, total: float | None, note: str
) -> bool:
    """Writes how far an attempt is; False when it is not this attempt's job any more."""
    values = {"id": job_id, "attempt": attempt, "done": done, "total": total, "note": note}
    return connection.execute(_NOTE_PROGRESS, values).rowcount == 1
