"""Beat's tasks: dispatch what is due, recover what is stuck, prune what is old.

Each is a `run_once()`-like function that returns counts, and a Celery task around it. Any number of beats
and workers may run them at once: rows are taken with `FOR UPDATE SKIP LOCKED`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy import Connection

from tasks.presence import lost_jobs
from tasks.runtime import Runtime, runtime
from tasks.sweeps.base import Each, sweep
from webapp.infra.telemetry import metrics
from webapp.jobs import bulk, expiry, insert, store
from webapp.jobs.handlers import MAINTENANCE_QUEUE, registry

logger = logging.getLogger(__name__)

#: How long one dispatch pass goes on, seconds: until just before the next tick, so that a retry starts when
#: it is due and not up to a tick later.
DISPATCH_WINDOW = 0.9
#: Messages of the maintenance queue that may wait meanwhile: as many as beat sends in a second.
TICKS_AT_ONCE = 5
#: Shortest pause between two looks of one pass, seconds.
SHORTEST_PAUSE = 0.01
#: Longest pause between two looks of one pass, seconds.
LONGEST_PAUSE = 0.25
#: Jobs recovered in one transaction.
RECOVERY_BATCH = 200
#: Jobs deleted in one transaction.
PRUNE_BATCH = 1_000
#: Jobs cancelled in one transaction because nobody started them in time.
EXPIRY_BATCH = 1_000
#: Rest after a batch, in times of what it took: submission must not feel the pruning.
PRUNE_REST = 3.0
#: How long one prune pass goes on, seconds.
PRUNE_WINDOW = 20.0


@sweep("dispatch_due")
def dispatch_due() -> None:
    """Sends due jobs to their broker queues for one second, or once when this worker is behind with its messages."""
    parts = runtime()
    is_behind = (parts.broker.room.length(MAINTENANCE_QUEUE) or 0) > TICKS_AT_ONCE
    run_dispatch(parts, 0.0 if is_behind else DISPATCH_WINDOW)


@sweep("recover_stuck")
def recover_stuck() -> None:
    """Takes over jobs whose lease ran out."""
    run_recovery(runtime())


@sweep("expire")
def expire() -> None:
    """Cancels jobs that were not started by their `expires_at`."""
    run_expiry(runtime())


@sweep("prune")
def prune() -> None:
    """Deletes final jobs older than RETENTION_DAYS and idempotency keys that have run out."""
    parts = runtime()
    with Each("rows") as each:
        each.do("idempotency keys", lambda: run_key_prune(parts, PRUNE_WINDOW))
        each.do("final jobs", lambda: run_prune(parts, PRUNE_WINDOW))


def run_dispatch(parts: Runtime, window: float = 0.0) -> int:
    """Fills every broker queue from what is due; returns how many messages were sent.

    Args:
        window: seconds to go on looking for what becomes due; 0 looks once.
    """
    end = time.monotonic() + window
    queues = registry.queues()
    total = 0
    with Each("queue") as each:
        each.do("refill", parts.dispatcher.refill)
        while True:
            total += sum(each.do(name, partial(_fill, parts, name)) or 0 for name in queues)
            left = end - time.monotonic()
            if left <= 0:
                break
            # The jobs of a queue that fails stay due, and are no reason to look again at once.
            time.sleep(min(left, _pause(parts, [name for name in queues if name not in each.failed], left)))
    if total:
        logger.info("jobs dispatched", extra={"jobs": total})
    return total


def _fill(parts: Runtime, queue: str) -> int:
    """Fills one broker queue; returns how many messages were sent."""
    settings = parts.settings
    sent = parts.dispatcher.dispatch(
        queue, buffer=settings.broker_buffer, redispatch_after=settings.redispatch_after
    )
    return sum(sent.values())


def _pause(parts: Runtime, queues: Sequence[str], left: float) -> float:
    """Seconds until the next look: when the next job is due, and never long."""
    due_in = parts.dispatcher.seconds_to_next_due(queues, left)
    if due_in is None:
        return LONGEST_PAUSE
    if due_in <= 0:
        # A job is due and was not taken: its queue is full, or Redis is away. The workers need a moment.
        return LONGEST_PAUSE / 5
    return min(max(due_in, SHORTEST_PAUSE), LONGEST_PAUSE)


def run_recovery(parts: Runtime) -> int:
    """Settles every job whose lease ran out as lost; returns how many.

    Right after PostgreSQL was restarted nothing is taken for one lease: live workers renew theirs first.
    """
    with parts.engine.connect() as connection:
        if store.seconds_since_start(connection) < parts.settings.stuck_job_threshold:
            return 0
    return lost_jobs.settle(
        parts.engine,
        parts.policy,
        "lease_expired",
        lambda connection: store.take_stuck(connection, RECOVERY_BATCH),
        send_alone=parts.dispatcher.send_each,
    )


def run_expiry(parts: Runtime) -> int:
    """Cancels jobs that were not started in time; returns how many."""
    total = 0
    while True:
        with parts.engine.begin() as connection:
            cancelled = expiry.cancel_expired(connection, EXPIRY_BATCH)
        total += cancelled
        if cancelled < EXPIRY_BATCH:
            break
    if total:
        metrics.jobs_expired.inc(total)
        logger.warning("jobs expired before they were started", extra={"jobs": total})
    return total


def run_key_prune(parts: Runtime, window: float) -> int:
    """Deletes idempotency keys that have run out; returns how many.

    Args:
        window: seconds after which the rest is left to the next pass.
    """
    return _in_batches(
        parts,
        window,
        lambda connection: insert.prune_keys(connection, PRUNE_BATCH),
        "idempotency keys pruned",
    )


def run_prune(parts: Runtime, window: float) -> int:
    """Deletes old final jobs in small batches; returns how many.

    Args:
        window: seconds after which the rest is left to the next pass.
    """
    days = parts.settings.retention_days
    if days == 0:
        return 0
    return _in_batches(
        parts,
        window,
        lambda connection: bulk.prune(connection, days=days, limit=PRUNE_BATCH),
        "old jobs pruned",
    )


def _in_batches(parts: Runtime, window: float, delete: Callable[[Connection], int], done: str) -> int:
    """Deletes batch after batch, with rests in between; returns how many rows went, and logs `done`."""
    end = time.monotonic() + window
    total = 0
    while True:
        began = time.monotonic()
        with parts.engine.begin() as connection:
            deleted = delete(connection)
        total += deleted
        if deleted < PRUNE_BATCH or time.monotonic() > end:
            break
        time.sleep(PRUNE_REST * (time.monotonic() - began))
    if total:
        logger.info(done, extra={"rows": total})
    return total
