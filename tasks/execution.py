"""Runs a job: claim, run, settle. Each outcome is a value, settled in one place.

`execute_job` is an ordinary Celery task with `autoretry_for`; its base class overrides `retry()`, so that
a retry moves the row first and only then ends the message. No message waits in Redis or in a worker for
a retry to be due.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Container, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from billiard.common import terminate_handler_fired
from celery import Task
from celery.exceptions import Ignore, SoftTimeLimitExceeded
from celery.exceptions import Retry as MessageDone
from sqlalchemy import Connection

from tasks.attempt import handler_log
from tasks.attempt.cancellation import CancelWatch
from tasks.attempt.coroutines import callable_of
from tasks.attempt.progress import ProgressReport
from tasks.attempt.results import keepable
from tasks.attempt.soft_limit import SoftLimit
from tasks.dead_letter import move
from tasks.processes import forks, process_state, run_table
from tasks.retrying import DATABASE_ERRORS, until_database_answers
from tasks.runtime import Runtime, child_name, runtime
from webapp.infra.broker import pace
from webapp.infra.broker.client import celery
from webapp.infra.postgres import database_errors
from webapp.infra.postgres.database_errors import never_works
from webapp.infra.postgres.engine import in_one_trip
from webapp.infra.telemetry import logs, metrics, traces
from webapp.infra.telemetry.traceparent import here
from webapp.jobs import ends, store
from webapp.jobs.ends import End
from webapp.jobs.error_report import ErrorReport
from webapp.jobs.error_text import trace_of
from webapp.jobs.errors import Cancelled, JobTimeout, Snooze, meant
from webapp.jobs.handlers import MAINTENANCE_QUEUE, HandlerFunction, JobContext, registry
from webapp.jobs.model import Claim
from webapp.jobs.retry import ComeBack, DeathReason, GiveUp, TryAgain
from webapp.jobs.states import AttemptOutcome, JobStatus

if TYPE_CHECKING:
    from webapp.infra.telemetry.spans import RunningSpan

logger = logging.getLogger(__name__)

#: Seconds between two reports of a task's pace where it has not changed much, ...
PACE_EVERY = 30.0
#: ... and between two looks whether it has.
PACE_PAUSE = 0.25


@dataclass(slots=True)
class Pace:
    """What this process knows of how long a task's jobs take, and what it told the others of it.

    Moments are on the monotonic clock.
    """

    seconds: float = 0.0
    count: int = 0
    told: float | None = None
    told_at: float = 0.0
    look_at: float = 0.0


_paces: dict[str, Pace] = {}
#: Attempts of this process whose end could not be written, by job and number; as many as a child runs jobs.
_given_up: set[tuple[UUID, int]] = set()


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


class JobsFailed(Exception):
    """What a message ends with whose job failed for good: Celery's events, and so Flower, call it a failure.

    All of it is settled by then. Its text names the error's class at most, for others may read Celery's events.
    """


class JobTask(Task):  # type: ignore[misc] # Celery ships no types
    """The base of tasks that run jobs: a retry is a row that is queued again, not a message."""

    abstract = True
    autoretry_for = (Exception,)
    max_retries = None
    acks_late = True

    def retry(
        self, args: Any = None, kwargs: Any = None, exc: BaseException | None = None, **_: Any
    ) -> NoReturn:
        """Settles a failed attempt, then ends the message.

        `autoretry_for` calls this with the error. Celery's own budget and countdown are not used: the
        limit is the row's, and passing `max_retries` on would leak it to the next job of this process.

        Raises:
            celery.exceptions.Retry: the row is settled, acknowledge the message.
            JobsFailed: the same, and there is no other attempt.
            celery.exceptions.Ignore: nothing was claimed (the database was away); the dispatcher sends
                the job again.
        """
        if isinstance(exc, JobsFailed):
            raise exc
        if not isinstance(exc, AttemptFailed):
            logger.warning("job could not be claimed", extra={"error_type": type(exc).__name__})
            raise Ignore from exc
        if settle_failed(runtime(), exc) is JobStatus.FAILED:
            raise JobsFailed(exc.report.type) from None
        # The handler's own exception may not be one that can be sent to the parent.
        raise MessageDone(message=exc.report.type, exc=JobsFailed(exc.report.type))


@celery.task(name="tasks.execute_job", base=JobTask, bind=True)  # type: ignore[untyped-decorator] # Celery ships no types
def execute_job(self: JobTask, job_id: str) -> None:
    """Runs one job to the end of one attempt; a message whose job is not there to claim does nothing."""
    parts = runtime()
    claim = claim_one(parts, UUID(job_id))
    if claim is None:
        metrics.jobs_refused.inc()
        return
    with attempt_of(claim):
        metrics.observe_wait(claim.task, claim.queue, claim.waited)
        began = time.monotonic()
        try:
            with SoftLimit(is_for_one=True) as limited:
                result = run(parts, claim, limited)
        finally:
            metrics.observe_run(claim.task, claim.queue, time.monotonic() - began)
        settle_completed(parts, claim, result)


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


def claim_one(parts: Runtime, job_id: UUID) -> Claim | None:
    """Takes a job's lease and commits; None when it is not queued and due."""
    claims = claim_all(parts, [job_id])
    return claims[0] if claims else None


def claim_all(parts: Runtime, ids: Sequence[UUID]) -> list[Claim]:
    """Takes the leases of those jobs that are queued and due, and commits.

    Raises:
        DBAPIError: the database did not answer for most of a lease.
    """
    taker = child_name()
    lease = parts.settings.stuck_job_threshold
    again = False

    def claim(connection: Connection) -> list[Claim]:
        nonlocal again
        own = claimed_before(connection, ids) if again else []
        again = True
        return own + store.claim(connection, ids, worker_id=taker, lease=lease)

    return until_database_answers(
        lambda: in_one_trip(parts.engine, claim), lease, "jobs could not be claimed yet"
    )


def claimed_before(connection: Connection, ids: Container[UUID] | None = None) -> list[Claim]:
    """What this process claimed with an earlier try whose answer was lost.

    Args:
        ids: the jobs that were to be claimed; None: any.
    """
    return [
        claim
        for claim in store.claimed_by(connection, child_name())
        if (ids is None or claim.id in ids) and (claim.id, claim.attempt) not in _given_up
    ]


def give_up(claims: Iterable[Claim]) -> None:
    """Remembers attempts whose end could not be written: should they be met again, they are not run again."""
    _given_up.update((claim.id, claim.attempt) for claim in claims)


def run(parts: Runtime, claim: Claim, limited: SoftLimit) -> str | None:
    """Calls the job's handler, in a span of its own where there are traces; returns its result as JSON text.

    Args:
        limited: sets the soft time limit.

    Raises:
        AttemptFailed: the handler raised, ran past its time limit, or is not known here.
    """
    span = traces.attempt(claim)
    if span is None:
        return _call(parts, claim, limited)
    with span:
        try:
            result = _call(parts, claim, limited)
        except AttemptFailed as failed:
            _note_failure(span, failed)
            raise
        span.note("djps.job.outcome", AttemptOutcome.COMPLETED.value)
        return result


def _note_failure(span: RunningSpan, failed: AttemptFailed) -> None:
    """Says on a span what became of the attempt; one that asked to come back, or was cancelled, is no error."""
    if isinstance(failed.error, Snooze):
        span.note("djps.job.outcome", AttemptOutcome.SNOOZED.value)
    elif isinstance(failed.error, Cancelled):
        span.note("djps.job.outcome", AttemptOutcome.CANCELLED.value)
    else:
        span.note("djps.job.outcome", AttemptOutcome.FAILED.value)
        message, trace = failed.report.message, failed.report.traceback
        if database_errors.holds_database_error(failed.error):
            # What a database quotes of a row is kept with the attempt, and told to nobody else.
            message = database_errors.described(failed.error)
            trace = database_errors.traceback_of(failed.error)
        span.fail(failed.report.type, message, trace)


def _call(parts: Runtime, claim: Claim, limited: SoftLimit) -> str | None:
    state = process_state.kept()
    started = time.monotonic()
    progress = ProgressReport(parts.engine, claim)
    context = JobContext(
        claim.id,
        claim.attempt,
        claim.retry_count,
        started + claim.timeout,
        handler_log.logger,
        CancelWatch(parts.engine, claim),
        progress,
        here() or claim.traceparent,
        claim.callback_of,
    )
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug("job started", extra={"task": claim.task})
    runs = run_table.current()
    runs.begin(claim.id, claim.attempt, claim.timeout, started)
    try:
        function = _function_of(claim)
        limited.begin(claim.timeout)
        try:
            result = forks.call(function, claim.payload, context)
            return keepable(result, parts.settings.max_result_bytes)
        finally:
            limited.end()
    except SoftTimeLimitExceeded as error:
        raise _failure(claim, JobTimeout(claim.timeout), error) from error
    except BaseException as error:
        if terminate_handler_fired():
            # Not the handler's: the process was told to end, and this is how billiard ends it.
            raise
        raise _failure(claim, error, error) from error
    finally:
        seconds = time.monotonic() - started
        # Before anything is said to a server: a job may have closed the connections, and opened other files in their places.
        if state is not None and (limited.is_for_one or state.wants_look(claim.task, seconds)):
            state.put_back(claim.task, alarm=False)
            limited.take_back()
        runs.ended()
        progress.flush()
        measure(parts, claim.task, seconds)


def measure(parts: Runtime, task: str, seconds: float) -> None:
    """Keeps the pace of a task, and tells it to the senders when it has changed or some time has passed."""
    seen = _paces.get(task)
    if seen is None:
        seen = _paces[task] = Pace()
    seen.seconds = pace.updated(seen.seconds, seen.count, seconds)
    seen.count += 1
    now = time.monotonic()
    if now < seen.look_at:
        return
    seen.look_at = now + PACE_PAUSE
    if seen.told is None or now - seen.told_at > PACE_EVERY or not pace.is_similar(seen.seconds, seen.told):
        parts.broker.paces.tell(task, seen.seconds)
        seen.told, seen.told_at = seen.seconds, now


def jobs_run() -> int:
    """How many jobs this process has run."""
    return sum(seen.count for seen in _paces.values())


def _function_of(claim: Claim) -> HandlerFunction:
    found = registry.get(claim.task)
    if found is None:
        raise HandlerMissing(claim.task)
    return callable_of(found)


def _failure(claim: Claim, error: BaseException, raised: BaseException) -> AttemptFailed:
    try:
        return AttemptFailed(claim, meant(error), ErrorReport.of(error, trace_of(raised)))
    except Exception as broken:  # noqa: BLE001 - a handler's exception class may raise wherever it is looked at
        return AttemptFailed(claim, error, ErrorReport.undescribed(error, broken))


class NotStorable(Exception):
    """PostgreSQL does not take what an attempt ended with."""

    def __init__(self, error: BaseException) -> None:
        # The driver's error, without SQLAlchemy's list of the statement's values.
        found = getattr(error, "orig", None) or error
        super().__init__(f"how the attempt ended cannot be stored ({type(found).__name__})")


def _unstorable(claim: Claim, error: BaseException) -> AttemptFailed:
    told = NotStorable(error).with_traceback(error.__traceback__)
    return _failure(claim, told, told)


def settle_completed(parts: Runtime, claim: Claim, kept: str | None) -> None:
    """Writes a completed attempt, unless its lease was lost.

    Args:
        kept: its result, JSON text.

    Raises:
        AttemptFailed: the result cannot be stored.
    """
    try:
        status = _settle(parts, ends.completed(claim, kept))
    except Exception as error:
        if not never_works(error):
            raise
        raise _unstorable(claim, error) from None
    if status is not None:
        metrics.jobs_completed.inc()
        logger.info("job completed", extra={"task": claim.task, "waited_seconds": round(claim.waited, 3)})


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
        return settle_failed(parts, _unstorable(failed.claim, error))


def _settle_failed(parts: Runtime, failed: AttemptFailed) -> JobStatus | None:
    claim = failed.claim
    decision = parts.policy.of_job(claim.backoff).after_failure(
        failed.error, retry_count=claim.retry_count, max_retries=claim.max_retries
    )
    # The task's context is over when Celery calls retry(), so the fields are bound once more.
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
    """Queues the job once more, unless its cancellation was asked."""
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
        move(parts.engine, claim.id, claim.attempt)


def _settle(parts: Runtime, end: End[Claim]) -> JobStatus | None:
    """Commits the end of an attempt; finished work is worth waiting for a database that is away.

    Returns the job's status by then, None when the lease was lost.

    It is tried again until three quarters of a lease have passed: by then the sweeper may own the job. A
    commit whose answer was lost is no problem: the write is fenced, and the second one finds the attempt
    on record.
    """
    claim = end.held

    def write(connection: Connection) -> JobStatus | None:
        ended = ends.end_attempt(connection, end)
        return JobStatus(ended.status) if ended else ends.status_after(connection, claim)

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
    give_up([claim])
    metrics.leases_lost.inc()
    logger.error("lease was lost, the attempt's outcome is dropped", extra={"task": claim.task})
    return None
