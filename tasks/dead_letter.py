"""The dead letter task: moves a job whose last attempt is on record to the dead letter queue."""

from __future__ import annotations

import logging
from uuid import UUID

from sqlalchemy import Engine

from tasks.runtime import runtime
from webapp.dead_letters.model import NewDeadLetter
from webapp.dead_letters.store import move_to_dead_letters
from webapp.infra.broker.client import celery
from webapp.infra.postgres.engine import in_transaction
from webapp.infra.telemetry import logs, metrics, traces

logger = logging.getLogger(__name__)


@celery.task(name="tasks.bury_job", acks_late=True)  # type: ignore[untyped-decorator] # Celery ships no types
def move_job(job_id: str, attempt: int) -> None:
    """Moves one job; a message that comes twice or late moves nothing."""
    move(runtime().engine, UUID(job_id), attempt)


def move(engine: Engine, job_id: UUID, attempt: int) -> bool:
    """Moves one job in one transaction: `failed`, a dead letter, the counter; False when it was moved before."""
    dead = in_transaction(engine, lambda connection: move_to_dead_letters(connection, job_id, attempt))
    if dead is None:
        return False
    note(dead, attempt)
    return True


def note(dead: NewDeadLetter, attempt: int) -> None:
    """Counts and logs a job that was moved."""
    metrics.count_dead_letter(dead.task, dead.reason)
    place = traces.fields_of(dead.id, attempt, dead.traceparent)
    with logs.bound(
        job_id=str(dead.id), attempt=attempt, request_id=dead.request_id, tenant=dead.tenant, **place
    ):
        logger.error("job moved to the dead letter queue", extra={"task": dead.task, "reason": dead.reason})
