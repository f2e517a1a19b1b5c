"""Ends one attempt, in the words of the tests; everything goes through the one statement that ends attempts."""

from __future__ import annotations

from sqlalchemy import Connection

from webapp.jobs import ends
from webapp.jobs.ends import end_attempt
from webapp.jobs.error_report import ErrorReport
from webapp.jobs.model import Claim, LeasedJob
from webapp.jobs.retry import DeathReason
from webapp.jobs.states import AttemptOutcome, JobStatus


def complete(connection: Connection, claim: Claim, result: str | None) -> bool:
    """Completes an attempt's job; False when its lease was lost."""
    return end_attempt(connection, ends.completed(claim, result)) is not None


def end_again(
    connection: Connection,
    held: Claim | LeasedJob,
    outcome: AttemptOutcome,
    error: ErrorReport | None,
    *,
    delay: float,
) -> JobStatus | None:
    """Queues the job again, or cancels it where that was asked; the job's status now, None when its lease was lost."""
    ended = end_attempt(connection, ends.again(held, outcome, error, delay))
    return None if ended is None else JobStatus(ended.status)


def end_last(
    connection: Connection,
    held: Claim | LeasedJob,
    outcome: AttemptOutcome,
    error: ErrorReport,
    *,
    reason: DeathReason = DeathReason.EXHAUSTED,
) -> JobStatus | None:
    """Ends a job's last attempt; `processing` when it waits for its dead letter, None when its lease was lost."""
    ended = end_attempt(connection, ends.last(held, outcome, error, reason))
    return None if ended is None else JobStatus(ended.status)


def end_cancelled(connection: Connection, held: Claim | LeasedJob, error: ErrorReport | None = None) -> bool:
    """Ends an attempt that was asked to stop; False when that was not asked, or its lease was lost."""
    return end_attempt(connection, ends.cancelled(held, error)) is not None
