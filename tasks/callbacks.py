"""Beat's task that tells the outside of jobs that ended: a job of its own for each, made once for each end.

Nothing of it is on the way of a job that has no callback, and nothing waits for it: the dispatcher sends the new
jobs like all others. Any number of beats and workers may run it at once.
"""

from __future__ import annotations

import logging

from uuid_utils.compat import uuid7

from tasks.runtime import Runtime, runtime
from webapp import metrics
from webapp.broker import celery
from webapp.jobs import callbacks
from webapp.jobs.handlers import DEFAULT_QUEUE, registry

logger = logging.getLogger(__name__)

#: Callbacks made in one transaction.
BATCH = 200
#: Batches of one pass; the next tick goes on.
MOST_BATCHES = 25


@celery.task(name="tasks.deliver_callbacks", send_events=False)  # type: ignore[untyped-decorator] # Celery ships no types
def deliver_callbacks() -> None:
    """Makes the callbacks of jobs that ended since the last tick."""
    run_callbacks(runtime())


def run_callbacks(parts: Runtime) -> int:
    """Stores an `http` job for every final job with a callback that has none yet; returns how many."""
    total = 0
    for _ in range(MOST_BATCHES):
        made = _make_batch(parts)
        total += made
        if made < BATCH:
            break
    if total:
        metrics.jobs_created.inc(total)
        logger.info("callbacks made", extra={"jobs": total})
    return total


def _make_batch(parts: Runtime) -> int:
    """Takes endings and stores their callbacks in one transaction, so each end has one callback."""
    found = registry.get(callbacks.TASK)
    with parts.engine.begin() as connection:
        endings = callbacks.take_ended(connection, BATCH)
        if not endings:
            return 0
        return callbacks.insert_callbacks(
            connection,
            endings,
            [uuid7() for _ in endings],
            queue=found.queue if found else DEFAULT_QUEUE,
            timeout=(found and found.timeout) or parts.settings.job_timeout,
        )
