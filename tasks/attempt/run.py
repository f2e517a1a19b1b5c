"""Runs one attempt: calls the job's handler with its payload and a context, under its time limit."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from billiard.common import terminate_handler_fired
from celery.exceptions import SoftTimeLimitExceeded

from tasks.attempt import handler_log, pace
from tasks.attempt.cancellation import CancelWatch
from tasks.attempt.coroutines import callable_of
from tasks.attempt.errors import AttemptFailed, HandlerMissing, failure
from tasks.attempt.kept_log import KeptLog, writer_of
from tasks.attempt.progress import ProgressReport
from tasks.attempt.results import Kept, keepable
from tasks.attempt.soft_limit import SoftLimit
from tasks.processes import forks, process_state, run_table
from tasks.runtime import Runtime, batches, submissions
from webapp.batches import store as batch_store
from webapp.batches.inside import BatchFront, OwnBatch
from webapp.batches.model import Member
from webapp.infra.postgres import database_errors
from webapp.infra.postgres.engine import in_one_trip
from webapp.infra.telemetry import traces
from webapp.infra.telemetry.traceparent import here
from webapp.jobs import store
from webapp.jobs.children import Children
from webapp.jobs.context import JobContext
from webapp.jobs.errors import Cancelled, JobTimeout, Snooze
from webapp.jobs.handlers import HandlerFunction, registry
from webapp.jobs.known import check_late, is_of_a_transaction
from webapp.jobs.model import Claim
from webapp.jobs.origins import of_attempt
from webapp.jobs.states import AttemptOutcome
from webapp.jobs.submitter import OriginFront

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection, Engine

    from webapp.infra.telemetry.spans import RunningSpan
    from webapp.jobs.submission import Origin

logger = logging.getLogger(__name__)


def run_handler(parts: Runtime, claim: Claim, limited: SoftLimit) -> Kept:
    """Calls the job's handler, in a span of its own where there are traces; returns what is kept of its result.

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
            # What a database quotes of a row is kept with the attempt, and told to no one else.
            message = database_errors.described(failed.error)
            trace = database_errors.traceback_of(failed.error)
        span.fail(failed.report.type, message, trace)


def _call(parts: Runtime, claim: Claim, limited: SoftLimit) -> Kept:
    state = process_state.kept()
    started = time.monotonic()
    progress = ProgressReport(parts.engine, claim)
    log = _log_of(parts, claim)
    place = here() or claim.traceparent
    context = JobContext(
        claim.id,
        claim.attempt,
        claim.retry_count,
        started + claim.timeout,
        handler_log.logger if log is None else log.logger,
        CancelWatch(parts.engine, claim),
        progress,
        place,
        claim.callback_of,
        partial(_tenant_of, parts.engine, claim.id),
        Children(claim.id, claim.attempt, partial(_front_of, parts, claim, place)),
        OwnBatch(claim.id, partial(_batch_of, parts, claim, place)),
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
        raise failure(claim, JobTimeout(claim.timeout), error) from error
    except BaseException as error:
        if terminate_handler_fired():
            # Not the handler's: the process was told to end, and this is how billiard ends it.
            raise
        raise failure(claim, error, error) from error
    finally:
        seconds = time.monotonic() - started
        # Before anything is said to a server: a job may have closed the connections, and opened other files in their places.
        if state is not None and (limited.is_for_one or state.wants_look(claim.task, seconds)):
            state.put_back(claim.task, alarm=False)
            limited.take_back()
        runs.ended()
        progress.flush()
        if log is not None:
            log.end(wait=limited.is_for_one)
        pace.measure(parts, claim.task, seconds)


def _tenant_of(engine: Engine, job_id: UUID) -> str:
    return in_one_trip(engine, lambda connection: store.tenant_of(connection, job_id))


def _log_of(parts: Runtime, claim: Claim) -> KeptLog | None:
    """Where what the handler logs is kept; None where it is not."""
    found = registry.get(claim.task)
    asked = found.keep_log if found is not None else None
    if not (parts.settings.keep_job_logs if asked is None else asked):
        return None
    return KeptLog(claim, writer_of(parts.engine))


def _front_of(parts: Runtime, claim: Claim, traceparent: str | None) -> OriginFront:
    """Where the jobs go that an attempt submits."""
    origin = in_one_trip(
        parts.engine, lambda connection: of_attempt(connection, claim.id, claim.attempt, traceparent)
    )
    return OriginFront(submissions(), origin, parts.settings.max_payload_bytes)


def _batch_of(parts: Runtime, claim: Claim, traceparent: str | None) -> BatchFront:
    """Where the jobs go that an attempt adds to its batch."""

    def look(connection: Connection) -> tuple[UUID | None, Origin]:
        origin = of_attempt(connection, claim.id, claim.attempt, traceparent)
        return batch_store.batch_of(connection, claim.id), origin

    batch, origin = in_one_trip(parts.engine, look)
    member = Member(claim.id, claim.attempt)
    return BatchFront(batches(), batch, member, origin, largest=parts.settings.max_payload_bytes)


def _function_of(claim: Claim) -> HandlerFunction:
    found = registry.get(claim.task)
    if found is None:
        raise HandlerMissing(claim.task)
    if found.model is not None and is_of_a_transaction(claim.request_id):
        check_late(found, claim.payload)
    return callable_of(found)
