"""Runs a job: claim, run, settle. Each outcome is a value, settled in one place.

`execute_job` is an ordinary Celery task with `autoretry_for`; its base class overrides `retry()`, so that
a retry moves the row first and only then ends the message. No message waits in Redis or in a worker for
a retry to be due.
"""

from __future__ import annotations

import json
import logging
import re
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn
from uuid import UUID

from celery import Task
from celery.exceptions import Ignore, SoftTimeLimitExceeded
from celery.exceptions import Retry as MessageDone
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from tasks.dead_letter import bury
from tasks.runtime import Runtime, child_name, runtime
from webapp import logs, metrics
from webapp.broker import celery
from webapp.jobs import store
from webapp.jobs.errors import JobTimeout
from webapp.jobs.handlers import MAINTENANCE_QUEUE, HandlerFunction, JobContext, registry
from webapp.jobs.report import ErrorReport
from webapp.jobs.retry import Bury, TryAgain
from webapp.jobs.states import AttemptOutcome
from webapp.jobs.store import Claim

logger = logging.getLogger(__name__)
handler_logger = logging.getLogger("djps.handler")

#: Pause between tries to write the end of an attempt while the database is away, seconds.
SETTLE_PAUSE = 0.5
#: Share of the lease during which the end of an attempt is tried to be written; then the sweeper owns the job.
SETTLE_SHARE = 0.75

DATABASE_ERRORS = (DBAPIError, PoolTimeout)

#: A NUL in JSON text; with an odd number of backslashes before it, it is text about a NUL.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class HandlerMissing(Exception):
    """This worker has no handler of the job's name: an older or newer release took the job."""

    def __init__(self, name: str) -> None:
        super().__init__(f"this worker has no handler named {name!r} (it has: {', '.join(registry.names())})")


class AttemptFailed(Exception):
    """A claimed attempt ended with an error; carries what settling it needs."""

    def __init__(self, claim: Claim, error: BaseException, report: ErrorReport) -> None:
        super().__init__(report.type)
        self.claim = claim
        self.error = error
        self.report = report


class JobTask(Task):  # type: ignore[misc] # Celery ships no types
    """The base of tasks that run jobs: a retry is a row that is queued again, not a message."""

    abstract = True

    def retry(
        self, args: Any = None, kwargs: Any = None, exc: BaseException | None = None, **_: Any
    ) -> NoReturn:
        """Settles a failed attempt, then ends the message.

        `autoretry_for` calls this with the error. Celery's own budget and countdown are not used: the
        limit is the row's, and passing `max_retries` on would leak it to the next job of this process.

        Raises:
            celery.exceptions.Retry: the row is settled, acknowledge the message.
            celery.exceptions.Ignore: nothing was claimed (the database was away); the dispatcher sends
                the job again.
        """
        if not isinstance(exc, AttemptFailed):
            logger.warning("job could not be claimed", extra={"error_type": type(exc).__name__})
            raise Ignore from exc
        settle_failed(runtime(), exc)
        raise MessageDone(message=exc.report.type, exc=exc)


@celery.task(  # type: ignore[untyped-decorator] # Celery ships no types
    name="tasks.execute_job",
    base=JobTask,
    bind=True,
    autoretry_for=(Exception,),
    max_retries=None,
    acks_late=True,
)
def execute_job(self: JobTask, job_id: str) -> None:
    """Runs one job to the end of one attempt; a message whose job is not there to claim does nothing."""
    parts = runtime()
    claim = claim_one(parts, UUID(job_id))
    if claim is None:
        metrics.jobs_refused.inc()
        return
    with logs.bound(
        job_id=str(claim.id), attempt=claim.attempt, worker_id=claim.worker_id, request_id=claim.request_id
    ):
        metrics.job_wait.observe(max(0.0, claim.waited))
        result = run(parts, claim)
        settle_completed(parts, claim, result)


def claim_one(parts: Runtime, job_id: UUID) -> Claim | None:
    """Takes a job's lease and commits; None when it is not queued and due."""
    with parts.engine.begin() as connection:
        claims = store.claim(
            connection, [job_id], worker_id=child_name(), lease=parts.settings.stuck_job_threshold
        )
    return claims[0] if claims else None


def run(parts: Runtime, claim: Claim) -> Any:
    """Calls the job's handler.

    Raises:
        AttemptFailed: the handler raised, ran past its time limit, or is not known here.
    """
    started = time.monotonic()
    context = JobContext(claim.id, claim.attempt, claim.retry_count, started + claim.timeout, handler_logger)
    logger.info("job started", extra={"task": claim.task, "waited_seconds": round(claim.waited, 3)})
    try:
        return _function_of(claim)(claim.payload, context)
    except SoftTimeLimitExceeded as error:
        raise _failure(claim, JobTimeout(claim.timeout), error) from error
    except Exception as error:
        raise _failure(claim, error, error) from error
    finally:
        metrics.job_duration.observe(time.monotonic() - started)


def _function_of(claim: Claim) -> HandlerFunction:
    found = registry.get(claim.task)
    if found is None:
        raise HandlerMissing(claim.task)
    return found.run


def _failure(claim: Claim, error: BaseException, raised: BaseException) -> AttemptFailed:
    trace = "".join(traceback.format_exception(type(raised), None, raised.__traceback__))
    return AttemptFailed(claim, error, ErrorReport.of(error, trace))


def settle_completed(parts: Runtime, claim: Claim, result: Any) -> None:
    """Writes a completed attempt, unless its lease was lost."""
    kept = keepable(result, parts.settings.max_result_bytes)
    if _settle(parts, claim, lambda connection: store.settle_completed(connection, claim, kept)):
        metrics.jobs_completed.inc()
        logger.info("job completed", extra={"task": claim.task})


def settle_failed(parts: Runtime, failed: AttemptFailed) -> None:
    """Writes a failed attempt: the job is queued again for later, or goes to the dead letter queue."""
    claim, report = failed.claim, failed.report
    decision = parts.policy.after_failure(
        failed.error, retry_count=claim.retry_count, max_retries=claim.max_retries
    )
    # The task's context is over when Celery calls retry(), so the fields are bound once more.
    with logs.bound(
        job_id=str(claim.id), attempt=claim.attempt, worker_id=claim.worker_id, request_id=claim.request_id
    ):
        match decision:
            case TryAgain(delay):
                if _settle(
                    parts,
                    claim,
                    lambda connection: store.settle_again(
                        connection, claim, AttemptOutcome.FAILED, report, delay=delay
                    ),
                ):
                    metrics.jobs_retried.inc()
                    logger.warning(
                        "job failed and will be retried",
                        extra={"task": claim.task, "error_type": report.type, "retry_in_seconds": delay},
                    )
            case Bury(reason):
                if _settle(
                    parts,
                    claim,
                    lambda connection: store.record_last(connection, claim, AttemptOutcome.FAILED, report),
                ):
                    logger.error(
                        "job failed for the last time",
                        extra={"task": claim.task, "error_type": report.type, "reason": reason.value},
                    )
                    send_to_dead_letters(parts, claim)


def send_to_dead_letters(parts: Runtime, claim: Claim) -> None:
    """Hands the job to the dead letter task, or moves it right here when the message cannot be sent.

    Should this process die in between, the lease runs out and the sweeper moves it.
    """
    if not parts.broker.send_burial(claim.id, claim.attempt, MAINTENANCE_QUEUE):
        bury(parts.engine, claim.id, claim.attempt)


def _settle(parts: Runtime, claim: Claim, write: Callable[[Connection], bool]) -> bool:
    """Commits the end of an attempt; finished work is worth waiting for a database that is away.

    It is tried again until three quarters of a lease have passed: by then the sweeper may own the job. A
    commit whose answer was lost is no problem: the write is fenced, and the second one finds the attempt
    on record.
    """
    deadline = time.monotonic() + parts.settings.stuck_job_threshold * SETTLE_SHARE
    tried_before = False
    while True:
        try:
            with parts.engine.begin() as connection:
                if write(connection) or (tried_before and store.has_ended(connection, claim)):
                    return True
            break
        except (*DATABASE_ERRORS, SoftTimeLimitExceeded) as error:
            # The time limit can also strike here, when the handler has already returned.
            tried_before = True
            logger.warning("attempt could not be settled yet", extra={"error_type": type(error).__name__})
            if time.monotonic() > deadline:
                break
            time.sleep(SETTLE_PAUSE)
    metrics.leases_lost.inc()
    logger.error("lease was lost, the attempt's outcome is dropped", extra={"task": claim.task})
    return False


def keepable(result: Any, limit: int) -> str | None:
    """A handler's result as JSON text; one that cannot be kept is replaced by a note of why.

    The work is done by then, so a result that is too large must not fail the job.

    Args:
        limit: largest text, bytes.
    """
    if result is None:
        return None
    try:
        kept = json.dumps(result, ensure_ascii=False, allow_nan=False)
        size = len(kept.encode())
    except UnicodeEncodeError:
        return _dropped("lone surrogates are not storable")
    except (TypeError, ValueError, RecursionError) as error:
        return _dropped(f"not JSON ({type(error).__name__})")
    if size > limit:
        return _dropped(f"{size} bytes are more than MAX_RESULT_BYTES ({limit})")
    if _NUL.search(kept):
        return _dropped("\\u0000 is not storable")
    return kept


def _dropped(reason: str) -> str:
    return json.dumps({"djps_result_dropped": reason})
