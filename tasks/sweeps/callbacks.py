"""The sweep that tells the outside of jobs that ended: a job of its own for each, made once for each end.

Nothing of it is on the way of a job that has no callback, and nothing waits for it: the dispatcher sends the new
jobs like all others. Any number of beats and workers may run it at once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import Connection
from uuid_utils.compat import uuid7

from tasks.runtime import Runtime, runtime
from tasks.sweeps.base import Each, is_of_the_server, of_rows, sweep
from webapp.infra.postgres.engine import in_transaction
from webapp.infra.telemetry import metrics
from webapp.jobs import callbacks, history, retention
from webapp.jobs.handlers import DEFAULT_QUEUE, registry
from webapp.settings import sweeps

logger = logging.getLogger(__name__)

PLAN = sweeps.DELIVER_CALLBACKS
#: How far back each second's look goes: history before is planned only where `late_callbacks` asks for it.
LATELY = timedelta(days=1)


@sweep(PLAN)
def deliver_callbacks() -> None:
    """Makes the callbacks of jobs that ended since the last tick."""
    run_callbacks(runtime())


def run_callbacks(parts: Runtime, batch: int = PLAN.batch, lately: timedelta | None = LATELY) -> int:
    """Stores an `http` job for every final job with a callback that has none yet; returns how many.

    Args:
        batch: rows in one transaction.
        lately: how long ago a job ended at most; None: whenever.
    """
    total = 0
    with Each("job") as each:
        for _ in range(int(PLAN.rows // batch)):
            try:
                made = _make_batch(parts, batch, lately)
            except Exception as error:
                if is_of_the_server(error):
                    raise
                made = _make_one_by_one(parts, each, batch, lately)
            total += made
            if made < batch:
                break
        if total:
            metrics.jobs_created.inc(total)
            metrics.callbacks_created.inc(total)
            logger.info("callbacks made", extra={"jobs": total})
    return total


def _take_ended(connection: Connection, batch: int, lately: timedelta | None) -> list[callbacks.Ending]:
    """What ended lately, by PostgreSQL's clock; as a value of the statement, so that the days before are not planned."""
    since = retention.BEGINNING if lately is None else history.moment(connection) - lately
    return callbacks.take_ended(connection, batch, since)


def _make_batch(parts: Runtime, batch: int, lately: timedelta | None) -> int:
    """Takes endings and stores their callbacks in one transaction, so each end has one callback."""

    def make(connection: Connection) -> int:
        endings = _take_ended(connection, batch, lately)
        return _insert(parts, connection, endings) if endings else 0

    return in_transaction(parts.engine, make)


def _make_one_by_one(parts: Runtime, each: Each, batch: int, lately: timedelta | None) -> int:
    """The same where one of the endings raises: it is left for the next run, and the others are told of."""
    done = of_rows(
        parts.engine,
        each,
        lambda connection: _take_ended(connection, batch, lately),
        lambda ending: ending.id,
        lambda connection, ending: _insert(parts, connection, [ending]),
    )
    return sum(made for _, made in done)


def _insert(parts: Runtime, connection: Connection, endings: Sequence[callbacks.Ending]) -> int:
    found = registry.get(callbacks.TASK)
    return callbacks.insert_callbacks(
        connection,
        endings,
        [uuid7() for _ in endings],
        queue=found.queue if found else DEFAULT_QUEUE,
        timeout=(found and found.timeout) or parts.settings.job_timeout,
    )
