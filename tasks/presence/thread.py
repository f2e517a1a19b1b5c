"""Presence: one thread in the worker's parent that speaks for its children, in steps.

It sits in the parent because a handler that holds the GIL for a minute must not cost its job the lease. Each step is a file
of this room, with its own period and its own guard: what one raises costs it its turn, and no other step anything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from uuid import UUID

from tasks.liveness import LivenessFile
from tasks.presence.cancel import CancelGrace
from tasks.presence.context import UNREACHABLE, WorkerContext
from tasks.presence.dead_children import DeadChildren
from tasks.presence.dead_workers import DeadWorkers
from tasks.presence.drain import Drain
from tasks.presence.hard_limit import HardLimit
from tasks.presence.heartbeat import Heartbeat
from tasks.presence.leases import Leases
from tasks.presence.watchdog import DeafnessCheck
from webapp.infra import prefork
from webapp.infra.background import Clock, Step, Steps, VitalThread
from webapp.infra.postgres import deadlines
from webapp.infra.telemetry import metrics
from webapp.settings import Settings
from webapp.system.sampling import EVERY, Sampler

#: Seconds between two looks at the children.
TICK = 0.5
#: The step that writes the liveness file.
LIVENESS = "liveness file"


class Presence(VitalThread):
    """The worker's voice in PostgreSQL and Redis.

    Args:
        settings: lease, heartbeat and grace.
        role: what the worker calls itself, for the heartbeat.
        queues: those that the worker takes messages from.
        capacity: the worker's children.
        clock: seconds, monotonic; the same as the children's.
    """

    def __init__(
        self,
        settings: Settings,
        role: str,
        *,
        queues: Iterable[str] = (),
        capacity: int = 0,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__("presence", self._go_on)
        self.worker = WorkerContext.of(settings, role, queues=queues, capacity=capacity, clock=clock)
        self.liveness_file = LivenessFile(settings.data_dir, role)
        self.drain_step = Drain(self.worker)
        self.dead_children = DeadChildren(self.worker, self.drain_step)
        self.hard_limit = HardLimit(self.worker, self.drain_step, self.dead_children)
        self.leases = Leases(self.worker, self.drain_step, self.dead_children)
        self.cancel = CancelGrace(self.worker, self.dead_children)
        self.heartbeat = Heartbeat(self.worker)
        self.dead_workers = DeadWorkers(self.worker)
        self.sampler = Sampler(self.worker.engine)
        self.watchdog = DeafnessCheck(self.worker, self.drain_step)
        self._wake = threading.Event()
        self._stopped = threading.Event()
        steps = self._all_steps()
        failed = metrics.count_failed_step("presence", [step.name for step in steps])
        self.steps = Steps(steps, failed, clock)

    def _all_steps(self) -> list[Step]:
        """The steps, in their order."""
        return [
            # First what needs no server: it must not wait behind a step that waits for one.
            *self.hard_limit.steps(),
            *self.leases.steps(),
            *self.heartbeat.steps(),
            *self.cancel.steps(),
            # After all steps that kill children whose jobs are lost, failed or cancelled: those are settled in the same round.
            *self.dead_children.steps(),
            *self.dead_workers.steps(),
            *self.watchdog.steps(),
            Step("samples", self.sampler.turn, period=EVERY),
            # After the dead children: a job whose child died by itself is lost, and must not be given back as released.
            *self.drain_step.steps(),
            # Last: it says which of the steps before it fail.
            Step(LIVENESS, self._say_alive),
        ]

    def _go_on(self) -> None:
        """Looks at the children until the worker is gone."""
        # A server that says nothing must not keep this thread from stopping children whose lease runs out.
        deadlines.install()
        while not self._stopped.is_set():
            self.run_once()
            self._wake.wait(TICK)
            self._wake.clear()

    def run_once(self) -> None:
        """One look: each step that is due has its turn, whatever became of those before it.

        No child is born meanwhile, but for the moments in which PostgreSQL is waited for: it would inherit the locks of the
        database's driver, of the resolver and of the metrics as this thread holds them.
        """
        with prefork.held_off():
            self.steps.run()

    def _say_alive(self) -> None:
        """Writes the liveness file: ready when no other step fails."""
        failing = (_in_words(name, error) for name, error in self.steps.failing() if name != LIVENESS)
        trouble = next(failing, "")
        self.liveness_file.write(ready=not trouble, says=trouble)

    def wake(self) -> None:
        """Has it look at once."""
        self._wake.set()

    def child_lost(self, job_ids: Iterable[UUID] = ()) -> None:
        """A child died: look at once, and until no dead child holds a job.

        Args:
            job_ids: those that its message names.
        """
        self.dead_children.note_lost(job_ids)
        self.wake()

    def drain(self) -> None:
        """The worker is shutting down in order.

        It is called in signal handlers, where waking the thread could wait for itself; the thread's next look is soon.
        """
        self.drain_step.start()

    def hurry(self) -> None:
        """The worker must end now. Called in signal handlers, too."""
        self.drain_step.hurry()

    def stop(self) -> None:
        """The worker is gone."""
        self._stopped.set()
        self.wake()
        self.liveness_file.remove()
        self.heartbeat.take_back()

    @property
    def has_jobs_to_release(self) -> bool:
        """True while jobs of stopped children could not be given back."""
        return bool(self.drain_step.to_release)


def _in_words(name: str, error: Exception) -> str:
    """What is wrong with a step, for the liveness file."""
    kind = type(error).__name__
    return f"a server could not be reached ({kind})" if isinstance(error, UNREACHABLE) else f"{name}: {kind}"
