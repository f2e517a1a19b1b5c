"""Ends the attempts of children that died, and leaves to the dispatcher what their messages named and they had not claimed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID

from tasks.presence import lost_jobs
from tasks.presence.context import WorkerContext
from tasks.presence.drain import Drain
from tasks.presence.running import is_tracked, pid_of
from tasks.processes import process_group, run_table
from tasks.processes.process_group import is_alive
from webapp.infra.background import Step
from webapp.infra.postgres.engine import in_transaction
from webapp.jobs import store
from webapp.jobs.loss import LastSeen
from webapp.queues import store as queue_store


class DeadChildren:
    """Looks for children that died while they held jobs.

    Args:
        worker: whose children they are.
        drain: has those that were stopped on purpose, whose jobs are given back and not lost.
    """

    def __init__(self, worker: WorkerContext, drain: Drain) -> None:
        self._worker = worker
        self._drain = drain
        #: True until no holder of a lease is left that may be dead.
        self.suspicious = False
        #: Jobs whose message a child took and died with; it may not have claimed them.
        self.unclaimed: deque[UUID] = deque()
        #: Seconds that a handler was allowed whose child was killed because it took longer, by the child's name.
        self._timed_out: dict[str, float] = {}

    def steps(self) -> list[Step]:
        """The look comes after all steps that kill children, so that their jobs are settled in the same round."""
        return [
            Step("lost messages", self.give_back_unclaimed, when=lambda: bool(self.unclaimed)),
            Step("dead children", self.recover, when=lambda: self.suspicious),
        ]

    def suspect(self) -> None:
        """A child may have died: look at the next turn, and until no dead child holds a job."""
        self.suspicious = True

    def note_lost(self, job_ids: Iterable[UUID]) -> None:
        """A child died with a message that names these jobs. Called by Celery's thread."""
        self.unclaimed.extend(job_ids)
        self.suspect()

    def note_timeout(self, holder: str, seconds: float) -> None:
        """A child was killed because its handler took longer than it was allowed."""
        self._timed_out[holder] = seconds
        self.suspect()

    def give_back_unclaimed(self) -> None:
        """Leaves jobs to the dispatcher whose message is gone with a child that had not claimed them."""
        ids = list(self.unclaimed)
        with self._worker.bounded():
            in_transaction(
                self._worker.engine, lambda connection: queue_store.mark_undispatched(connection, ids)
            )
        for _ in ids:
            self.unclaimed.popleft()

    def recover(self) -> int:
        """Settles the jobs of children that died as lost; returns how many."""
        # Taken down before the look: a death that Celery's thread tells of meanwhile is looked at in the next turn.
        self.suspicious = False
        try:
            return self._settle_dead()
        except BaseException:
            self.suspicious = True
            raise

    def _settle_dead(self) -> int:
        worker = self._worker
        with worker.bounded(), worker.engine.connect() as connection:
            held_by = store.holders(connection, worker.holders_prefix)
        held_by = [holder for holder in held_by if holder not in self._drain.to_release]
        # The holders are read before the processes are looked at: a child born in between is not missed.
        dead = [holder for holder in held_by if not is_alive(pid_of(holder))]
        if any(holder not in dead and not is_tracked(holder) for holder in held_by):
            self.suspicious = True
        if not dead:
            self._timed_out.clear()
            return 0
        for holder in dead:
            process_group.end_rest_of_dead(pid_of(holder))
        with worker.bounded():
            settled = lost_jobs.settle(
                worker.engine,
                worker.policy,
                "child_died",
                lambda connection: store.take_held_by(connection, dead),
                witness=self._last_seen,
            )
        for holder in dead:
            self._timed_out.pop(holder, None)
        return settled

    def _last_seen(self, holder: str) -> LastSeen:
        """What a child ran when it died, and whether it was killed because that took too long."""
        seen = run_table.current().last_seen(holder)
        return replace(seen, timed_out=self._timed_out.get(holder))
