"""The dead letter task: moves a job whose last attempt is on record to the dead letter queue."""

from __future__ import annotations

import logging
from uuid import UUID

from sqlalchemy import Engine

from tasks.runtime import runtime
from webapp.infra.broker.client import celery
from webapp.infra.telemetry import logs, metrics, traces
from webapp.jobs import store

logger = logging.getLogger(__name__)


@celery.task(name="tasks.bury_job", acks_late=True)  # type: ignore[untyped-decorator] # Celery ships no types
def bury_job(job_id: str, attempt: int) -> None:
    """Moves one job; a message that comes twice or late moves nothing."""
    bury(runtime().engine, UUID(job_id), attempt)


def bury(engine: Engine, job_id: UUID, attempt: int) -> bool:
    """Moves one job in one transaction: `failed`, a dead letter, the counter; False when it was moved before."""
    with engine.begin() as connection:
        burial = store.bury(connection, job_id, attempt)
    if burial is None:
        return False
    note(burial, attempt)
    return True


def note(burial: store.Burial, attempt: int) -> None:
    """Counts and logs a job that was moved."""
    metrics.count_burial(burial.task, burial.reason)
    place = traces.fields_of(burial.id, attempt, burial.traceparent)
    with logs.bound(job_id=str(burial.id), attempt=attempt, request_id=burial.request_id, **place):
        logger.error(
            "job moved to the dead letter queue", extra={"task": burial.task, "reason": burial.reason}
        )
