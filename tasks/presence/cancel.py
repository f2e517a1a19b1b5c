"""Kills children whose job was asked to stop and did not within CANCEL_GRACE."""

from __future__ import annotations

import logging

from sqlalchemy import Connection

from tasks.presence import lost_jobs
from tasks.presence.context import WorkerContext
from tasks.presence.dead_children import DeadChildren
from tasks.presence.running import pid_of, something_runs
from tasks.processes.process_group import is_child, kill
from webapp.infra.background import Step
from webapp.infra.postgres.engine import in_transaction
from webapp.infra.telemetry import logs, metrics
from webapp.jobs import control, ends, store
from webapp.jobs.error_report import ErrorReport
from webapp.jobs.model import LeasedJob

logger = logging.getLogger(__name__)

#: Seconds between two looks for jobs that should have stopped.
CANCELS_EVERY = 1.0
#: What is kept of an attempt that was killed because it did not stop.
KILLED = ErrorReport("djps.Killed", "the handler did not stop within CANCEL_GRACE of being asked")


class CancelGrace:
    """Ends jobs that do not stop when asked.

    Args:
        worker: whose children run them.
        dead_children: settles what else the killed children held.
    """

    def __init__(self, worker: WorkerContext, dead_children: DeadChildren) -> None:
        self._worker = worker
        self._dead_children = dead_children

    def steps(self) -> list[Step]:
        """One, a second after the other."""
        return [Step("cancels", self.stop_cancelled, period=CANCELS_EVERY, when=something_runs)]

    def stop_cancelled(self) -> int:
        """Stops children whose job was asked to stop and did not within CANCEL_GRACE; returns how many jobs were cancelled.

        What else a child held (the done ones of its chunk are settled by then) is recovered as the dead child's.
        """
        worker = self._worker
        grace = worker.settings.cancel_grace

        def stop(connection: Connection) -> list[LeasedJob]:
            overdue = control.overdue_holders(connection, worker.holders_prefix, grace=grace)
            holders = [holder for holder in overdue if is_child(pid_of(holder))]
            if not holders:
                return []
            # While their jobs are locked, for a child that had ended its attempt would be running somebody else's job.
            kill([pid_of(holder) for holder in holders])
            taken = store.take_held_by(connection, holders)
            return [held for held in taken if ends.end_attempt(connection, ends.cancelled(held, KILLED))]

        with worker.bounded():
            stopped = in_transaction(worker.engine, stop)
        metrics.jobs_cancelled.inc(len(stopped))
        for held in stopped:
            with logs.bound(**lost_jobs.fields_of(held)):
                logger.warning("job did not stop when asked and was killed", extra={"task": held.task})
        self._dead_children.suspect()
        return len(stopped)
