"""What is done to jobs on request: cancels them, and queues ended ones again. Commits."""

from __future__ import annotations

import logging
from uuid import UUID

from sqlalchemy import Connection, Engine

from webapp.audit.model import Act, Event, Named
from webapp.audit.service import AuditRecord
from webapp.flow.reach import Reach
from webapp.infra.postgres.engine import in_transaction
from webapp.infra.telemetry import metrics
from webapp.jobs import control
from webapp.jobs.errors import JobEnded, NotForRetry
from webapp.jobs.lookup import Lookup
from webapp.jobs.model import CancelAnswer, JobRow
from webapp.jobs.states import JobStatus

logger = logging.getLogger(__name__)


class Acts(Lookup):
    """Cancels jobs and queues them again. What a caller does not reach is not there.

    Args:
        engine: the database.
        retention_days: days a final job is kept; 0: for ever.
        audit: notes who steers jobs; None: DJPS itself does.
    """

    def __init__(self, engine: Engine, retention_days: int, audit: AuditRecord | None = None) -> None:
        super().__init__(engine, retention_days)
        self._audit = audit or AuditRecord(engine)

    def cancel(self, job_id: UUID, reach: Reach, reason: str | None = None) -> tuple[JobRow, CancelAnswer]:
        """Cancels a job that waits, or asks one that runs to stop; asking twice changes nothing.

        Returns the job as it stands, and what became of it: `CANCELLED` or `ASKED`.

        Raises:
            JobNotFound: there is none with this id.
            JobGone: it was deleted for its age.
            JobEnded: it completed or failed before, or its last attempt did.
        """

        def once(connection: Connection) -> tuple[CancelAnswer, JobRow]:
            self.check(connection, job_id, reach)
            asked = control.cancel(connection, job_id, reason or control.REQUESTED)
            found = self.found(connection, job_id, reach)
            if asked.is_new:
                details = {"answer": asked.answer.value}
                act = Act(Event.JOB_CANCEL, Named("job", str(job_id)), reason=reason, details=details)
                self._audit.note(connection, act)
            return asked.answer, found

        answer, job = in_transaction(self._engine, once)
        if answer is CancelAnswer.NOTHING:
            if job.status != JobStatus.CANCELLED:
                raise JobEnded(job_id, job.status)
            return job, CancelAnswer.CANCELLED
        if answer is CancelAnswer.CANCELLED:
            metrics.jobs_cancelled.inc()
        logger.info("job's cancellation was asked", extra={"job_id": str(job_id), "answer": answer.value})
        return job, answer

    def requeue(self, job_id: UUID, reach: Reach, reason: str | None = None) -> JobRow:
        """Queues a failed or cancelled job again with a fresh budget of retries; the dispatcher sends it.

        Args:
            reason: why, for the record.

        Raises:
            JobNotFound: there is none with this id.
            JobGone: it was deleted for its age.
            NotForRetry: it is neither failed nor cancelled.
        """

        def once(connection: Connection) -> tuple[bool, JobRow]:
            self.check(connection, job_id, reach)
            changed, found = control.requeue(connection, job_id), self.found(connection, job_id, reach)
            if changed:
                act = Act(Event.JOB_RETRY, Named("job", str(job_id)), reason=reason)
                self._audit.note(connection, act)
            return changed, found

        changed, job = in_transaction(self._engine, once)
        if not changed:
            raise NotForRetry(job_id, job.status)
        metrics.jobs_requeued.inc()
        logger.info("job was queued again by request", extra={"job_id": str(job_id)})
        return job
