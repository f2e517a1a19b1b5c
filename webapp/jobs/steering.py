"""The part of the store that operators and clients use: cancel and requeue. The rules of `store` hold here too.

Functions take a connection and never commit; every statement is guarded by state and attempt, and a write
that its guard refuses changes no row and says so.
"""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection, text

from webapp.jobs.store import OPEN_ATTEMPT, Claim, Held


class CancelAnswer(StrEnum):
    """What asking for a job's cancellation led to."""

    #: The job was waiting and is cancelled; it will not run.
    CANCELLED = "cancelled"
    #: The job runs: its attempt is asked to stop, now or before, and no other will follow.
    ASKED = "asked"
    #: The job is final or unknown; nothing was changed.
    NOTHING = "nothing"


_ASK_CANCEL = text("""
    UPDATE jobs
       SET status = CASE status WHEN 'queued' THEN 'cancelled' ELSE status END,
           finished_at = CASE status WHEN 'queued' THEN now() END,
           cancel_requested_at = CASE status WHEN 'processing' THEN coalesce(cancel_requested_at, now()) END,
           updated_at = now()
     WHERE id = :id AND status IN ('queued', 'processing')
    RETURNING status""")


def ask_cancel(connection: Connection, job_id: UUID) -> CancelAnswer:
    """Cancels a job that waits, and asks the attempt of one that runs to stop; its lease goes on."""
    status = connection.execute(_ASK_CANCEL, {"id": job_id}).scalar()
    if status is None:
        return CancelAnswer.NOTHING
    return CancelAnswer.CANCELLED if status == "cancelled" else CancelAnswer.ASKED


_SETTLE_CANCELLED = text(f"""
    WITH settled AS (
        UPDATE jobs
           SET status = 'cancelled', finished_at = now(), updated_at = now(), lease_expires_at = NULL,
               worker_id = NULL
         WHERE {OPEN_ATTEMPT} AND cancel_requested_at IS NOT NULL
        RETURNING id, attempt, last_attempt_at)
    INSERT INTO job_attempts (job_id, attempt, worker_id, started_at, outcome)
    SELECT id, attempt, :worker_id, last_attempt_at, 'cancelled' FROM settled""")


def settle_cancelled(connection: Connection, held: Claim | Held) -> bool:
    """Ends an attempt that was asked to stop, and its job; False when nobody asked or its lease was lost."""
    values = {"id": held.id, "attempt": held.attempt, "worker_id": held.worker_id}
    return connection.execute(_SETTLE_CANCELLED, values).rowcount == 1


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
