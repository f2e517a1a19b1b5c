"""The store's statement for jobs that were not started in time. The rules of `webapp.jobs.store` hold here too."""

from __future__ import annotations

from sqlalchemy import Connection, text

#: What `cancel_reason` says of a job that was not started by its `expires_at`.
EXPIRED = "expired"

_CANCEL_EXPIRED = text("""
    UPDATE jobs
       SET status = 'cancelled', cancel_reason = :reason, finished_at = now(), updated_at = now()
     WHERE status = 'queued' AND id IN (
        SELECT id FROM jobs
         WHERE status = 'queued' AND expires_at <= now() AND attempt = 0
         ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED)""")


def cancel_expired(connection: Connection, limit: int) -> int:
    """Cancels jobs whose `expires_at` passed before their first attempt; returns how many.

    The claim refuses such a job by itself, so one that is late here does not run.
    """
    return connection.execute(_CANCEL_EXPIRED, {"reason": EXPIRED, "limit": limit}).rowcount
