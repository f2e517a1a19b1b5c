"""The sweep that keeps history: makes the partitions of the next days, and drops those that are older than RETENTION_DAYS;
and does the same for the record of acts.
"""

from __future__ import annotations

import logging
from datetime import datetime
from functools import partial

from tasks.runtime import Runtime, runtime
from tasks.sweeps.base import Each, sweep
from tasks.sweeps.prune import in_batches
from webapp.audit import months
from webapp.infra.postgres.engine import in_transaction
from webapp.jobs import history
from webapp.jobs.history import Period
from webapp.settings import sweeps

logger = logging.getLogger(__name__)

PLAN = sweeps.KEEP_HISTORY


@sweep(PLAN)
def keep_history() -> None:
    """Makes the days ahead, and drops those that are old."""
    run_keep_history(runtime())


def run_keep_history(parts: Runtime, now: datetime | None = None, batch: int = PLAN.batch) -> list[str]:
    """Makes the days ahead first, for it is them that jobs need; returns the names of the tables that were dropped.

    Args:
        now: the moment whose days these are; None: PostgreSQL's.
        batch: rows in one transaction.
    """
    days = parts.settings.retention_days
    if now is None:
        with parts.engine.connect() as connection:
            now = history.moment(connection)
    with Each("partition") as each:
        made = each.do("ahead", partial(history.make_ahead, parts.engine, now, days))
        if made:
            logger.info("history's next days were made", extra={"first": made[0].name, "last": made[-1].name})
        each.do("audit", partial(_keep_audit, parts, now))
        with parts.engine.connect() as connection:
            existing = history.periods(connection)
        for period in existing:
            if history.is_over(period, now, days):
                each.do(period.name, partial(_take_off, parts, period))
        with parts.engine.connect() as connection:
            gone = history.taken_off(connection)
        return [name for name in gone if each.do(name, partial(_drop, parts, name, batch))]


def _keep_audit(parts: Runtime, now: datetime) -> None:
    for name in months.keep(parts.engine, now, parts.settings.audit_days):
        logger.info("acts on record are gone for their age", extra={"partition": name})


def _take_off(parts: Runtime, period: Period) -> None:
    history.take_off(parts.engine, period)
    logger.info("jobs of history are gone for their age", extra={"partition": period.name})


def _drop(parts: Runtime, table: str, batch: int) -> bool:
    """Deletes what is left of a table's jobs, then the table; False when the next run must go on."""
    in_batches(
        parts,
        PLAN.seconds,
        batch,
        lambda connection: history.clear(connection, table, batch),
        "rows of old jobs deleted",
    )
    if in_transaction(parts.engine, lambda connection: history.clear(connection, table, 1)):
        return False
    history.drop(parts.engine, table)
    return True
