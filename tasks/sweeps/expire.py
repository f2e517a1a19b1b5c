"""The sweep that cancels jobs that were not started by their `expires_at`."""

from __future__ import annotations

import logging

from tasks.runtime import Runtime, runtime
from tasks.sweeps.base import sweep
from webapp.infra.postgres.engine import in_transaction
from webapp.infra.telemetry import metrics
from webapp.jobs import retention
from webapp.settings import sweeps

logger = logging.getLogger(__name__)

PLAN = sweeps.EXPIRE


@sweep(PLAN)
def expire() -> None:
    """Cancels jobs that were not started by their `expires_at`."""
    run_expiry(runtime())


def run_expiry(parts: Runtime, batch: int = PLAN.batch) -> int:
    """Cancels jobs that were not started in time; returns how many."""
    total = 0
    while True:
        cancelled = in_transaction(
            parts.engine, lambda connection: retention.cancel_expired(connection, batch)
        )
        total += cancelled
        if cancelled < batch:
            break
    if total:
        metrics.jobs_expired.inc(total)
        logger.warning("jobs expired before they were started", extra={"jobs": total})
    return total
