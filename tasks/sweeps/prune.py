"""The sweep that deletes old rows: keys that ran out, final jobs that do not lie in history, changes of flow, firings of schedules."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sqlalchemy import Connection

from tasks.runtime import Runtime, runtime
from tasks.sweeps.base import Each, sweep
from webapp.batches import control_store as batches
from webapp.flow import store as flow_store
from webapp.jobs import insert, job_logs, retention, unique_keys
from webapp.schedules import store as schedule_store
from webapp.schedules.firer import FIRST
from webapp.settings import sweeps
from webapp.workflows import store as workflow_store

logger = logging.getLogger(__name__)

PLAN = sweeps.PRUNE
#: Rest after a batch, in times of what it took: submission must not feel the pruning.
REST = 3.0
#: Schedules in one transaction: of each a thousand firings are passed over.
SCHEDULES_BATCH = 200
#: Batches in one transaction: each may have a hundred parts.
BATCHES_BATCH = 100
#: Workflows in one transaction: each may have a thousand steps.
WORKFLOWS_BATCH = 50


@sweep(PLAN)
def prune() -> None:
    """Deletes final jobs, lines of handlers, changes of flow and firings older than RETENTION_DAYS, and keys that have run out or count no more."""
    parts = runtime()
    with Each("rows") as each:
        each.do("idempotency keys", lambda: run_key_prune(parts, PLAN.seconds))
        each.do("unique keys", lambda: run_unique_prune(parts, PLAN.seconds))
        each.do("final jobs", lambda: run_prune(parts, PLAN.seconds))
        each.do("logs", lambda: run_log_prune(parts, PLAN.seconds))
        each.do("changes", lambda: run_change_prune(parts, PLAN.seconds))
        each.do("firings", lambda: run_firing_prune(parts, PLAN.seconds))
        each.do("batches", lambda: run_batch_prune(parts, PLAN.seconds))
        each.do("workflows", lambda: run_workflow_prune(parts, PLAN.seconds))
        each.do("times", lambda: run_renewal(parts))


def run_key_prune(parts: Runtime, window: float, batch: int = PLAN.batch) -> int:
    """Deletes idempotency keys that have run out; returns how many.

    Args:
        window: seconds after which the rest is left to the next run.
        batch: rows in one transaction.
    """
    return in_batches(
        parts,
        window,
        batch,
        lambda connection: insert.prune_keys(connection, batch),
        "idempotency keys pruned",
    )


def run_unique_prune(parts: Runtime, window: float, batch: int = PLAN.batch) -> int:
    """Looks through the unique keys and deletes those that count no more; returns how many.

    Args:
        window: seconds after which the rest is left to the next run.
        batch: rows that are looked at in one transaction.
    """
    after, deleted = "", 0

    def look_on(connection: Connection) -> int:
        nonlocal after, deleted
        step = unique_keys.prune(connection, after, batch)
        after, deleted = step.last or after, deleted + step.deleted
        return step.looked

    in_batches(parts, window, batch, look_on, "unique keys looked through")
    return deleted


def run_prune(parts: Runtime, window: float, batch: int = PLAN.batch) -> int:
    """Deletes old final jobs in small batches; returns how many.

    Args:
        window: seconds after which the rest is left to the next run.
        batch: rows in one transaction.
    """
    return _prune_old(parts, window, batch, retention.prune, "old jobs pruned")


def run_log_prune(parts: Runtime, window: float, batch: int = PLAN.batch) -> int:
    """Deletes what handlers logged on days that are over; returns of how many rows.

    Args:
        window: seconds after which the rest is left to the next run.
        batch: rows in one transaction.
    """
    return _prune_old(parts, window, batch, job_logs.prune, "old lines of jobs pruned")


def run_change_prune(parts: Runtime, window: float, batch: int = PLAN.batch) -> int:
    """Deletes old changes of flow from the record; returns how many.

    Args:
        window: seconds after which the rest is left to the next run.
        batch: rows in one transaction.
    """
    return _prune_old(parts, window, batch, flow_store.prune_changes, "old changes of flow pruned")


def run_batch_prune(parts: Runtime, window: float, batch: int = BATCHES_BATCH) -> int:
    """Deletes batches that ended long ago, with their parts; returns how many.

    Args:
        window: seconds after which the rest is left to the next run.
        batch: batches in one transaction.
    """
    return _prune_old(parts, window, batch, batches.prune, "old batches pruned")


def run_workflow_prune(parts: Runtime, window: float, batch: int = WORKFLOWS_BATCH) -> int:
    """Deletes workflows that ended long ago, with their steps; returns how many.

    Args:
        window: seconds after which the rest is left to the next run.
        batch: workflows in one transaction.
    """
    return _prune_old(parts, window, batch, workflow_store.prune, "old workflows pruned")


def run_firing_prune(parts: Runtime, window: float, batch: int = SCHEDULES_BATCH) -> int:
    """Looks through the schedules, and deletes firings that are too old or too many; returns how many.

    Args:
        window: seconds after which the rest is left to the next run.
        batch: schedules in one transaction, and firings of each.
    """
    after, deleted = FIRST, 0
    days = parts.settings.retention_days or None

    def look_on(connection: Connection) -> int:
        nonlocal after, deleted
        step = schedule_store.prune(connection, after, batch, days)
        after, deleted = step.last or after, deleted + step.deleted
        return step.looked

    in_batches(parts, window, batch, look_on, "schedules looked through")
    return deleted


def run_renewal(parts: Runtime) -> int:
    """Computes the next times of schedules anew, where the rules of time zones are others by now; returns of how many."""
    total = 0
    while renewed := parts.firer.renew_times():
        total += renewed
    if total:
        logger.info("times of schedules renewed", extra={"schedules": total})
    return total


def _prune_old(parts: Runtime, window: float, batch: int, prune_some: Callable[..., int], done: str) -> int:
    """Deletes what is older than RETENTION_DAYS; nothing where all is kept for ever."""
    days = parts.settings.retention_days
    if days == 0:
        return 0
    return in_batches(
        parts, window, batch, lambda connection: prune_some(connection, days=days, limit=batch), done
    )


def in_batches(
    parts: Runtime, window: float, batch: int, delete: Callable[[Connection], int], done: str
) -> int:
    """Deletes batch after batch, with rests in between; returns how many rows went, and logs `done`."""
    end = time.monotonic() + window
    total = 0
    while True:
        began = time.monotonic()
        with parts.engine.begin() as connection:
            deleted = delete(connection)
        total += deleted
        if deleted < batch or time.monotonic() > end:
            break
        time.sleep(REST * (time.monotonic() - began))
    if total:
        logger.info(done, extra={"rows": total})
    return total
