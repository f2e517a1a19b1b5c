"""Settles attempts: writes how each ended, then counts and logs it. Each outcome is a value, settled in one place."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from uuid import UUID

from sqlalchemy import Connection

from tasks import dead_letter
from tasks.attempt import claims
from tasks.attempt.errors import AttemptFailed, NotStorable, unstorable
from tasks.attempt.results import Kept
from tasks.processes import run_table
from tasks.retrying import DATABASE_ERRORS, until_database_answers
from tasks.runtime import Runtime
from webapp.infra.postgres.database_errors import never_works
from webapp.infra.postgres.engine import in_one_trip
from webapp.infra.telemetry import logs, metrics, traces
from webapp.jobs import ends
from webapp.jobs.ends import End
from webapp.jobs.errors import Cancelled
from webapp.jobs.handlers import MAINTENANCE_QUEUE
from webapp.jobs.model import Claim
from webapp.jobs.retry import ComeBack, DeathReason, GiveUp, TryAgain
from webapp.jobs.states import AttemptOutcome, JobStatus

logger = logging.getLogger(__name__)


def attempt_of(claim: Claim) -> AbstractContextManager[None]:
    """Puts the attempt's fields on every line that is logged inside."""
    return logs.bound(fields_of(claim))


def fields_of(claim: Claim) -> dict[str, str | int | UUID]:
    """What every line about an attempt says; the id as it is, for most attempts write one line or none."""
    fields: dict[str, str | int | UUID] = {
        "job_id": claim.id,
        "attempt": claim.attempt,
        "worker_id": claim.worker_id,
        **traces.fields_of(claim.id, claim.attempt, claim.traceparent),
    }
    return fields if claim.request_id is None else fields | {"request_id": claim.request_id}


def settle_completed(parts: Runtime, claim: Claim, kept: Kept) -> None:
    """Writes a completed attempt, unless its lease was lost.

    Args:
        kept: its result.

    Raises:
        AttemptFailed: the result cannot be stored.
    """
    try:
        status = _settle(parts, ends.completed(claim, kept.text, note=kept.note))
    except Exception as error:
        if not never_works(error):
            raise
        raise unstorable(claim, error) from None
    if status is not None:
        metrics.jobs_completed.inc()
        logger.info("job completed", extra={"task": claim.task, "waited_seconds": round(claim.waited, 3)})
        if claim.group_id is not None:
            # What waits for it in a workflow need not wait for the dispatcher's next look.
            parts.advancer.after([claim.group_id])


def settle_failed(parts: Runtime, failed: AttemptFailed) -> JobStatus | None:
    """Writes an attempt that did not complete: its job is queued again for later, or goes to the dead letter queue.

    What cannot be stored of it is given up, and said instead. Returns the job's status by then; None when the attempt's end
    was not written.
    """
    try:
        return _settle_failed(parts, failed)
    except Exception as error:
        if not never_works(error):
            raise
        if isinstance(failed.error, NotStorable):
            logger.exception(
                "attempt's end cannot be stored, its lease will run out", extra=fields_of(failed.claim)
            )
            return None
        return settle_failed(parts, unstorable(failed.claim, error))


def _settle_failed(parts: Runtime, failed: AttemptFailed) -> JobStatus | None:
    claim = failed.claim
    decision = parts.policy.of_job(claim.backoff).after_failure(
        failed.error, retry_count=claim.retry_count, max_retries=claim.max_retries
    )
    # The task's context is over when Celery calls retry(), so the fields are bound again.
    with attempt_of(claim):
        match decision:
            case TryAgain(delay):
                return _settle_again(parts, failed, AttemptOutcome.FAILED, delay)
            case ComeBack(delay):
                return _settle_again(parts, failed, AttemptOutcome.SNOOZED, delay)
            case GiveUp(reason):
                return _settle_last(parts, failed, reason)


def _settle_again(
    parts: Runtime, failed: AttemptFailed, outcome: AttemptOutcome, delay: float
) -> JobStatus | None:
    """Queues the job again, unless its cancellation was asked."""
    claim, report = failed.claim, failed.report
    kept = report if outcome is AttemptOutcome.FAILED else None

    end = ends.again(claim, outcome, kept, delay, is_cancelled=isinstance(failed.error, Cancelled))

    match status := _settle(parts, end):
        case None:
            pass
        case JobStatus.CANCELLED:
            _note_cancelled(claim)
        case _ if kept is None:
            metrics.jobs_snoozed.inc()
            logger.info("job was snoozed", extra={"task": claim.task, "back_in_seconds": delay})
        case _:
            metrics.count_retry(claim.task)
            logger.warning(
                "job failed and will be retried",
                extra={"task": claim.task, "error_type": report.type, "retry_in_seconds": delay},
            )
    return status


def _settle_last(parts: Runtime, failed: AttemptFailed, reason: DeathReason) -> JobStatus | None:
    """Leaves the job to the dead letter task, unless its cancellation was asked."""
    claim, report = failed.claim, failed.report

    match status := _settle(parts, ends.last(claim, AttemptOutcome.FAILED, report, reason)):
        case None:
            pass
        case JobStatus.CANCELLED:
            _note_cancelled(claim)
        case _:
            logger.error(
                "job failed for the last time",
                extra={"task": claim.task, "error_type": report.type, "reason": reason.value},
            )
            send_to_dead_letters(parts, claim)
            return JobStatus.FAILED
    return status


def _note_cancelled(claim: Claim) -> None:
    metrics.jobs_cancelled.inc()
    logger.info("job was cancelled while it ran", extra={"task": claim.task})


def send_to_dead_letters(parts: Runtime, claim: Claim) -> None:
    """Hands the job to the dead letter task, or moves it right here when the message cannot be sent.

    Should this process die in between, the lease runs out and the sweeper moves it.
    """
    if not parts.broker.send_dead_letter(claim.id, claim.attempt, MAINTENANCE_QUEUE):
        dead_letter.move(parts.engine, claim.id, claim.attempt)


def _settle(parts: Runtime, end: End[Claim]) -> JobStatus | None:
    """Commits the end of an attempt; finished work is worth waiting for a database that is away.

    Returns the job's status by then, None when the lease was lost.

    It is tried again until three quarters of a lease have passed: by then the sweeper may own the job. A
    commit whose answer was lost is no problem: the write is fenced, and the second one finds the attempt
    on record.
    """
    claim = end.held

    def write(connection: Connection) -> JobStatus | None:
        return _end(connection, end) or ends.status_after(connection, claim)

    try:
        status = until_database_answers(
            lambda: in_one_trip(parts.engine, write),
            parts.settings.stuck_job_threshold,
            "attempt could not be settled yet",
        )
    except DATABASE_ERRORS as error:
        if never_works(error):
            raise
        status = None
    finally:
        run_table.current().clear()
    if status is not None:
        return status
    claims.give_up([claim])
    metrics.leases_lost.inc()
    logger.error("lease was lost, the attempt's outcome is dropped", extra={"task": claim.task})
    return None


def _end(connection: Connection, end: End[Claim]) -> JobStatus | None:
    """Ends an attempt; one that completed its job by the shorter statement, which PostgreSQL plans in half the time."""
    if end.follows is None:
        return JobStatus.COMPLETED if ends.complete_many(connection, [end]) else None
    ended = ends.end_attempt(connection, end)
    return JobStatus(ended.status) if ended else None
