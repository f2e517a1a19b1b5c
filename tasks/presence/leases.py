"""Renews the leases of what runs, and stops children whose lease could not be renewed."""

from __future__ import annotations

import logging
from uuid import UUID

from tasks.presence.context import WorkerContext
from tasks.presence.dead_children import DeadChildren
from tasks.presence.drain import Drain
from tasks.presence.running import running_jobs, something_runs
from tasks.processes.process_group import is_child
from tasks.runtime import child_name
from webapp.infra.background import Step
from webapp.infra.postgres.engine import in_transaction
from webapp.jobs import store

logger = logging.getLogger(__name__)

#: Renewals in one lease.
RENEWALS_PER_LEASE = 3
#: Share of a lease without renewal after which a job's process is stopped: before the sweeper may take it.
LEASE_SHARE = 0.75


class Leases:
    """Keeps the leases of this worker's running jobs.

    Args:
        worker: whose they are.
        drain: gives back what was stopped.
        dead_children: is asked to look whether the children live.
    """

    def __init__(self, worker: WorkerContext, drain: Drain, dead_children: DeadChildren) -> None:
        self._worker = worker
        self._drain = drain
        self._dead_children = dead_children
        #: When the lease of each running job was renewed last, on the worker's clock.
        self.renewed_at: dict[UUID, float] = {}

    def steps(self) -> list[Step]:
        """Stops before it renews: a stop needs no server, and must not wait for a renewal that waits for PostgreSQL."""
        return [
            Step("unrenewed", self.stop_unrenewed),
            Step("renewal", self.renew, period=self._worker.lease / RENEWALS_PER_LEASE, when=something_runs),
        ]

    def stop_unrenewed(self) -> None:
        """Stops children whose lease could not be renewed for three quarters of its time; their jobs are given back."""
        running, now = running_jobs(), self._worker.clock()
        self.renewed_at = {job_id: self.renewed_at.get(job_id, now) for job_id in running}
        for job_id, pid in running.items():
            if now - self.renewed_at[job_id] > self._worker.lease * LEASE_SHARE and is_child(pid):
                logger.error("lease could not be renewed, the job is stopped", extra={"job_id": str(job_id)})
                self._drain.stop_children([pid])
                self.renewed_at.pop(job_id)

    def renew(self) -> None:
        """Renews the leases of what runs; from then on it is looked whether its children live."""
        running = running_jobs()
        holders = [child_name(pid) for pid in set(running.values())]
        with self._worker.bounded():
            in_transaction(
                self._worker.engine,
                lambda connection: store.renew(
                    connection, list(running), workers=holders, lease=self._worker.lease
                ),
            )
        # Jobs that were not renewed are settled, and the table of running jobs is a moment ahead: nothing is left to protect.
        self.renewed_at |= dict.fromkeys(running, self._worker.clock())
        self._dead_children.suspect()
