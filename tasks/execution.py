"""The Celery task that runs one job: claim, run, settle.

`execute_job` is an ordinary Celery task with `autoretry_for`; its base class overrides `retry()`, so that
a retry moves the row first and only then ends the message. No message waits in Redis or in a worker for
a retry to be due.
"""

from __future__ import annotations

import logging
import time
from typing import Any, NoReturn
from uuid import UUID

from celery import Task
from celery.exceptions import Ignore
from celery.exceptions import Retry as MessageDone

from tasks.attempt import claims, release, run, settle
from tasks.attempt.errors import AttemptFailed
from tasks.attempt.soft_limit import SoftLimit
from tasks.runtime import runtime
from webapp.infra.broker.client import celery
from webapp.infra.telemetry import metrics
from webapp.jobs.states import JobStatus

logger = logging.getLogger(__name__)


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
        if settle.settle_failed(runtime(), exc) is JobStatus.FAILED:
            raise JobsFailed(exc.report.type) from None
        # The handler's own exception may not be one that can be sent to the parent.
        raise MessageDone(message=exc.report.type, exc=JobsFailed(exc.report.type))


@celery.task(name="tasks.execute_job", base=JobTask, bind=True)  # type: ignore[untyped-decorator] # Celery ships no types
def execute_job(self: JobTask, job_id: str) -> None:
    """Runs one job to the end of one attempt; a message whose job is not there to claim does nothing."""
    parts = runtime()
    claim = claims.claim_one(parts, UUID(job_id))
    if claim is None:
        metrics.jobs_refused.inc()
        return
    if not release.may_begin(parts, [(claim.queue, claim.task)]):
        release.give_back(parts, [claim])
        return
    with settle.attempt_of(claim):
        metrics.observe_wait(claim.task, claim.queue, claim.waited)
        began = time.monotonic()
        try:
            with SoftLimit(is_for_one=True) as limited:
                result = run.run_handler(parts, claim, limited)
        finally:
            metrics.observe_run(claim.task, claim.queue, time.monotonic() - began)
        settle.settle_completed(parts, claim, result)
