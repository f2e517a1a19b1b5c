"""Ends what runs when the worker must end, and gives it back: queued again, no retry burnt."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable

from sqlalchemy import Connection

from tasks.presence import lost_jobs
from tasks.presence.context import WorkerContext
from tasks.presence.running import busy_children, pid_of
from tasks.processes import shutdown
from tasks.processes.process_group import is_child, kill
from tasks.runtime import child_name
from webapp.infra.background import Step
from webapp.infra.postgres.engine import in_transaction
from webapp.jobs import ends, store
from webapp.jobs.model import LeasedJob

logger = logging.getLogger(__name__)

#: Seconds in which a worker that ends in a hurry must have ended by itself.
HURRY_PATIENCE = 5.0


class Drain:
    """The worker's end, and all jobs that are stopped on purpose.

    Args:
        worker: the one that ends.
    """

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        #: When what runs is stopped, on the worker's clock; infinite until the worker was told to end.
        self.stop_at = math.inf
        #: When a worker that ends in a hurry is ended.
        self.end_at = math.inf
        #: Children that were stopped, and whose jobs are still to be given back.
        self.to_release: set[str] = set()

    def steps(self) -> list[Step]:
        """Jobs are given back before the worker is ended."""
        return [
            Step("drain", self.release, when=self._has_to_release),
            Step("hurry", self._end_worker, when=lambda: self._worker.clock() >= self.end_at),
        ]

    def start(self) -> None:
        """The worker is shutting down: what runs gets SHUTDOWN_GRACE, what is left is released.

        Being told again makes the grace no longer. It is called in signal handlers.
        """
        self.stop_at = min(self.stop_at, self._worker.clock() + self._worker.settings.shutdown_grace)

    def hurry(self) -> None:
        """The worker must end now: what runs is released. Called in signal handlers, too."""
        self.stop_at = self._worker.clock()
        self.end_at = min(self.end_at, self.stop_at + HURRY_PATIENCE)

    @property
    def has_begun(self) -> bool:
        """True once the worker was told to end."""
        return self.stop_at < math.inf

    @property
    def grace_is_over(self) -> bool:
        """True when what runs is to be stopped."""
        return self._worker.clock() >= self.stop_at

    def _has_to_release(self) -> bool:
        """True while jobs of stopped children are to be given back, and once the grace of a drain is over."""
        return bool(self.to_release) or self.grace_is_over

    def release(self) -> None:
        """Gives back what is to be given back, after the grace of a drain all that runs."""
        if self.grace_is_over:
            self.release_running()
        else:
            self._give_back()

    def release_running(self) -> int:
        """Stops what still runs and gives it back; returns how many jobs."""
        self.stop_children(busy_children())
        if self.end_at < math.inf:
            # Celery may not have heard yet of a job that was claimed a moment ago.
            with self._worker.bounded(), self._worker.engine.connect() as connection:
                held_by = store.holders(connection, self._worker.holders_prefix)
            self.stop_children(pid_of(holder) for holder in held_by)
        return self._give_back()

    def stop_children(self, pids: Iterable[int]) -> None:
        """Stops children, and remembers that their jobs are to be given back."""
        living = [pid for pid in set(pids) if is_child(pid)]
        if living:
            logger.warning("running jobs are stopped and released", extra={"children": len(living)})
            kill(living)
            self.to_release |= {child_name(pid) for pid in living}

    def _give_back(self) -> int:
        """Queues the jobs of stopped children again; returns how many."""
        if not self.to_release:
            return 0
        with self._worker.bounded():
            taken, released = in_transaction(self._worker.engine, self._queue_again)
        lost_jobs.count_released(released)
        self.to_release.clear()
        return len(taken)

    def _queue_again(self, connection: Connection) -> tuple[list[LeasedJob], list[ends.Ended]]:
        """What stopped children held, and what of it is queued again."""
        taken = store.take_held_by(connection, list(self.to_release))
        return taken, [
            one
            for holder in self.to_release
            if (held := [job for job in taken if job.worker_id == holder and not job.recorded])
            for one in ends.end_attempts(connection, [ends.released(job) for job in held])
        ]

    def _end_worker(self) -> None:
        """Ends a worker that was told to hurry and is still there; what it could not give back, its successor will."""
        logger.warning("worker is ended, it was told to hurry")
        os._exit(shutdown.EXIT_CODE)
