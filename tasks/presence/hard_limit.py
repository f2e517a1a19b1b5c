"""Kills children whose handler runs on although its time is over; their attempts have failed."""

from __future__ import annotations

import logging

from tasks.presence.context import WorkerContext
from tasks.presence.dead_children import DeadChildren
from tasks.presence.drain import Drain
from tasks.processes import run_table
from tasks.processes.process_group import is_child, kill
from tasks.runtime import child_name
from webapp.infra.background import Step
from webapp.infra.broker.messages import HARD_LIMIT_GRACE

logger = logging.getLogger(__name__)


class HardLimit:
    """Holds handlers to their time limit.

    Args:
        worker: whose children run them.
        drain: gives back what was stopped without being to blame.
        dead_children: settles the jobs of those that were killed.
    """

    def __init__(self, worker: WorkerContext, drain: Drain, dead_children: DeadChildren) -> None:
        self._worker = worker
        self._drain = drain
        self._dead_children = dead_children

    def steps(self) -> list[Step]:
        """One, which needs no server."""
        return [Step("late", self.stop_late)]

    def stop_late(self) -> None:
        """Stops children whose handler runs on although its time, and the grace after it, are over."""
        table = run_table.current()
        for pid, run in list(table.running()):
            if not run.is_late(self._worker.clock(), HARD_LIMIT_GRACE) or not is_child(pid):
                continue
            kill([pid])
            if table.of(pid) != run:
                # It ended at the last moment, so its child died with a job that is not to blame.
                self._drain.to_release.add(child_name(pid))
                continue
            logger.error(
                "job did not stop at its time limit and was killed",
                extra={"job_id": str(run.job_id), "attempt": run.attempt, "timeout": run.timeout},
            )
            self._dead_children.note_timeout(child_name(pid), run.timeout)
