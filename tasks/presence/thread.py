"""Presence: one thread in the worker's parent that speaks for its children.

It writes the worker's heartbeat to Redis, renews the leases of the jobs that really run, takes back the
jobs of a child that died, and ends a drain that takes too long. It sits in the parent because a handler
that holds the GIL for a minute must not cost its job the lease.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from uuid import UUID

from celery.worker import state
from redis.exceptions import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from tasks.liveness import FRESH, Beacon
from tasks.presence import dead_workers, lost_jobs
from tasks.presence.watchdog import EXIT_CODE, LOOK_EVERY, Watchdog
from tasks.processes import process_group, run_table, shutdown
from tasks.processes.process_group import is_alive, is_child, kill
from tasks.runtime import child_name, unpooled_engine, worker_name
from webapp.infra import prefork
from webapp.infra.broker import heartbeats
from webapp.infra.broker.client import waiting_in
from webapp.infra.broker.messages import EXECUTE_DUE, EXECUTE_JOB, EXECUTE_JOBS, HARD_LIMIT_GRACE
from webapp.infra.guarded import Step, Steps, VitalThread
from webapp.infra.postgres import deadlines
from webapp.infra.telemetry import logs, metrics
from webapp.jobs import bulk, control, store
from webapp.jobs.error_report import ErrorReport
from webapp.jobs.loss import LastSeen
from webapp.jobs.retry import RetryPolicy
from webapp.settings import Settings

logger = logging.getLogger(__name__)

#: Seconds between two looks at the children.
TICK = 0.5
#: Renewals in one lease.
RENEWALS_PER_LEASE = 3
#: Heartbeats in one time to live.
BEATS_PER_TTL = 3
#: Seconds before a heartbeat that could not be written is tried again.
BEAT_AGAIN = 2.0
#: Share of a lease without renewal after which a job's process is stopped: before the sweeper may take it.
LEASE_SHARE = 0.75
#: Share of a lease that one step may wait for PostgreSQL.
WAIT_SHARE = 1 / 6
#: How long Redis may take to take a heartbeat, seconds.
REDIS_TIMEOUT = 1.0
#: Seconds between two looks for jobs that should have stopped.
CANCELS_EVERY = 1.0
#: Seconds between two looks for workers of this machine that have died.
DEAD_WORKERS_EVERY = 1.0
#: Seconds in which a worker that ends in a hurry must have ended by itself.
HURRY_PATIENCE = 5.0
#: What is kept of an attempt that was killed because it did not stop.
KILLED = ErrorReport("djps.Killed", "the handler did not stop within CANCEL_GRACE of being asked")
#: The tasks that run jobs.
EXECUTING = frozenset({EXECUTE_JOB, EXECUTE_JOBS, EXECUTE_DUE})
#: The step that writes the liveness file.
LIVENESS = "liveness file"
#: What a step raises when a server is away.
UNREACHABLE = (DBAPIError, RedisError)


class Presence(VitalThread):
    """The worker's voice in PostgreSQL and Redis.

    Args:
        settings: lease, heartbeat and grace.
        role: what the worker calls itself, for the heartbeat.
        queues: those that the worker takes messages from.
        capacity: the worker's children.
    """

    def __init__(
        self, settings: Settings, role: str, *, queues: Iterable[str] = (), capacity: int = 0
    ) -> None:
        super().__init__("presence", self._go_on)
        self._settings = settings
        self._role = role
        self._family = worker_name() + "/"
        self._engine: Engine = unpooled_engine()
        self._redis = heartbeats.connect(settings.redis_url, REDIS_TIMEOUT)
        self._policy = RetryPolicy(settings.backoff_base, settings.max_backoff, settings.backoff_jitter)
        self._lease = float(settings.stuck_job_threshold)
        self._beat_every = settings.worker_heartbeat_ttl / BEATS_PER_TTL
        self._queues = tuple(queues)
        self._capacity = capacity
        self._beacon = Beacon(settings.data_dir, role)
        self._watchdog = Watchdog()
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._suspicious = False
        self._drain_by: float | None = None
        #: When a worker that ends in a hurry is ended.
        self._end_by = math.inf
        self._received = 0
        self._claimed_at = time.monotonic()
        self._leased_at: dict[UUID, float] = {}
        #: Seconds that a handler was allowed whose child was killed because it took longer, by the child's name.
        self._timed_out: dict[str, float] = {}
        #: Jobs whose message a child took and died with; it may not have claimed them.
        self._unclaimed: deque[UUID] = deque()
        #: Children that were stopped, and whose jobs are still to be given back.
        self.to_release: set[str] = set()
        duties = self._duties()
        self.steps = Steps(duties, metrics.count_failed_step("presence", [step.name for step in duties]))

    def _duties(self) -> list[Step]:
        """What is looked at, in this order."""
        lease = self._lease / RENEWALS_PER_LEASE
        return [
            Step("claims", self._note_claims),
            Step("late", self._stop_late),
            Step("unrenewed", self._stop_unrenewed),
            Step("renewal", self._renew, period=lease, when=_something_runs),
            Step("heartbeat", self._beat, period=self._beat_every, again=BEAT_AGAIN),
            Step("cancels", self.stop_cancelled, period=CANCELS_EVERY, when=_something_runs),
            Step("lost messages", self._give_back_unclaimed, when=lambda: bool(self._unclaimed)),
            Step("dead children", self.recover_dead_children, when=lambda: self._suspicious),
            Step("dead workers", self.take_over, period=DEAD_WORKERS_EVERY),
            Step("watchdog", self._watch, period=LOOK_EVERY, when=lambda: self._drain_by is None),
            Step("drain", self._release, when=self._has_to_release),
            Step("hurry", self._end_at_last, when=lambda: time.monotonic() >= self._end_by),
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
        self._beacon.light(ready=not trouble, says=trouble)

    def child_lost(self, job_ids: Iterable[UUID] = ()) -> None:
        """A child died: look at once, and until no dead child holds a job.

        Args:
            job_ids: those that its message names.
        """
        self._unclaimed.extend(job_ids)
        self._suspicious = True
        self._wake.set()

    def _give_back_unclaimed(self) -> None:
        """Leaves jobs to the dispatcher whose message is gone with a child that had not claimed them."""
        ids = list(self._unclaimed)
        with self._bounded(), self._engine.begin() as connection:
            store.mark_undispatched(connection, ids)
        for _ in ids:
            self._unclaimed.popleft()

    def drain(self) -> None:
        """The worker is shutting down: what runs gets SHUTDOWN_GRACE, what is left is released.

        Being told again makes the grace no longer. It is called in signal handlers, where waking the thread could wait for
        itself; the thread's next look is soon.
        """
        ends = time.monotonic() + self._settings.shutdown_grace
        self._drain_by = ends if self._drain_by is None else min(self._drain_by, ends)

    def hurry(self) -> None:
        """The worker must end now: what runs is released. Called in signal handlers, too."""
        self._drain_by = time.monotonic()
        self._end_by = min(self._end_by, self._drain_by + HURRY_PATIENCE)

    def stop(self) -> None:
        """The worker is gone."""
        self._stopped.set()
        self._wake.set()
        self._beacon.put_out()
        try:
            heartbeats.leave(self._redis, worker_name())
        except RedisError:
            logger.warning("heartbeat could not be taken back")

    def _has_to_release(self) -> bool:
        """True while jobs of stopped children are to be given back, and once the grace of a drain is over."""
        return bool(self.to_release) or self._grace_is_over()

    def _grace_is_over(self) -> bool:
        return self._drain_by is not None and time.monotonic() >= self._drain_by

    def _note_claims(self) -> None:
        """Remembers when the worker last took a message."""
        received = sum(state.total_count.values())
        if received != self._received:
            self._received, self._claimed_at = received, time.monotonic()

    def _beat(self) -> None:
        """Writes the heartbeat; Redis may have lost the key when it is back, so a failure is made up for soon."""
        described = json.dumps(
            {
                "role": self._role,
                "pid": os.getpid(),
                "queues": self._queues,
                "children": self._capacity,
                "running": len(running_jobs()),
                "busy": len(busy_children()),
                "idle": round(time.monotonic() - self._claimed_at, 1),
            }
        )
        heartbeats.beat(self._redis, worker_name(), self._settings.worker_heartbeat_ttl, described)

    def _bounded(self) -> AbstractContextManager[None]:
        """Bounds the waits for PostgreSQL of one step, so that the steps that need another server are not late."""
        return deadlines.within(min(self._lease * WAIT_SHARE, self._beat_every, FRESH / 2))

    def _watch(self) -> None:
        """Ends the worker when it does not hear; its supervisor starts it again."""
        try:
            length = waiting_in(self._redis, self._queues)
            busy = 0
            if length:
                with self._bounded(), self._engine.connect() as connection:
                    busy = len(store.holders(connection, self._family))
        except UNREACHABLE:
            self._watchdog.forget()
            raise
        now, received = time.monotonic(), sum(state.total_count.values())
        if self._watchdog.is_deaf(now, waiting=length, received=received, busy=busy, capacity=self._capacity):
            logger.critical(
                "worker takes no messages and ends", extra={"waiting": length, "received": received}
            )
            self.release_running()
            os._exit(EXIT_CODE)

    def _renew(self) -> None:
        """Renews the leases of what runs; from then on it is looked whether its children live."""
        running = running_jobs()
        workers = [child_name(pid) for pid in set(running.values())]
        with self._bounded(), self._engine.begin() as connection:
            store.renew(connection, list(running), workers=workers, lease=self._lease)
        # Jobs that were not renewed are settled, and the table of running jobs is a moment ahead: nothing is left to protect.
        self._leased_at |= dict.fromkeys(running, time.monotonic())
        self._suspicious = True

    def _stop_unrenewed(self) -> None:
        """Stops children whose lease could not be renewed for three quarters of its time; their jobs are given back."""
        running, now = running_jobs(), time.monotonic()
        self._leased_at = {job_id: self._leased_at.get(job_id, now) for job_id in running}
        for job_id, pid in running.items():
            if now - self._leased_at[job_id] > self._lease * LEASE_SHARE and is_child(pid):
                logger.error("lease could not be renewed, the job is stopped", extra={"job_id": str(job_id)})
                self._stop_for_release([pid])
                self._leased_at.pop(job_id)

    def _stop_late(self) -> None:
        """Stops children whose handler runs on although its time is over; their attempts have failed."""
        table = run_table.current()
        for pid, run in list(table.running()):
            if not run.is_late(time.monotonic(), HARD_LIMIT_GRACE) or not is_child(pid):
                continue
            kill([pid])
            if table.of(pid) != run:
                # It ended at the last moment, so its child died with a job that is not to blame.
                self.to_release.add(child_name(pid))
                continue
            logger.error(
                "job did not stop at its time limit and was killed",
                extra={"job_id": str(run.job_id), "attempt": run.attempt, "timeout": run.timeout},
            )
            self._timed_out[child_name(pid)] = run.timeout
            self._suspicious = True

    def _last_seen(self, holder: str) -> LastSeen:
        """What a child ran when it died, and whether it was killed because that took too long."""
        seen = run_table.current().last_seen(holder)
        return replace(seen, timed_out=self._timed_out.get(holder))

    def stop_cancelled(self) -> int:
        """Stops children whose job was asked to stop and did not within CANCEL_GRACE; returns how many jobs were cancelled.

        What else a child held (the done ones of its chunk are settled by then) is recovered as the dead child's.
        """
        grace = self._settings.cancel_grace
        with self._bounded(), self._engine.begin() as connection:
            overdue = control.overdue_holders(connection, self._family, grace=grace)
            pids = {name: int(name.rpartition("/")[2]) for name in overdue}
            names = [name for name, pid in pids.items() if is_child(pid)]
            if not names:
                return 0
            # While their jobs are locked, for a child that had ended its attempt would be running somebody else's job.
            kill([pids[name] for name in names])
            taken = store.take_held_by(connection, names)
            stopped = [held for held in taken if control.settle_cancelled(connection, held, KILLED)]
        metrics.jobs_cancelled.inc(len(stopped))
        for held in stopped:
            with logs.bound(**lost_jobs.fields_of(held)):
                logger.warning("job did not stop when asked and was killed", extra={"task": held.task})
        self._suspicious = True
        return len(stopped)

    def recover_dead_children(self) -> int:
        """Settles the jobs of children that died as lost; returns how many."""
        with self._bounded(), self._engine.connect() as connection:
            held_by = store.holders(connection, self._family)
        held_by = [name for name in held_by if name not in self.to_release]
        # The holders are read before the processes are looked at: a child born in between is not missed.
        dead = [name for name in held_by if not is_alive(int(name.rpartition("/")[2]))]
        self._suspicious = any(name not in dead and not is_tracked(name) for name in held_by)
        if not dead:
            self._timed_out.clear()
            return 0
        for name in dead:
            process_group.end_rest_of_dead(int(name.rpartition("/")[2]))
        with self._bounded():
            settled = lost_jobs.settle(
                self._engine,
                self._policy,
                "child_died",
                lambda connection: store.take_held_by(connection, dead),
                witness=self._last_seen,
            )
        for name in dead:
            self._timed_out.pop(name, None)
        return settled

    def take_over(self) -> int:
        """Takes back the jobs of dead workers of this machine; returns how many."""
        # A child that is forked meanwhile would have a dead worker's lock for as long as it lives.
        with self._bounded(), prefork.held_off(waits_included=True):
            return dead_workers.take_over(
                self._settings.data_dir, worker_name(), self._engine, self._redis, self._policy
            )

    def _end_at_last(self) -> None:
        """Ends a worker that was told to hurry and is still there; what it could not give back, its successor will."""
        logger.warning("worker is ended, it was told to hurry")
        os._exit(shutdown.EXIT_CODE)

    def _stop_for_release(self, pids: Iterable[int]) -> None:
        """Stops children, and remembers that their jobs are to be given back."""
        living = [pid for pid in set(pids) if is_child(pid)]
        if living:
            logger.warning("running jobs are stopped and released", extra={"children": len(living)})
            kill(living)
            self.to_release |= {child_name(pid) for pid in living}

    def release_running(self) -> int:
        """Stops what still runs and gives it back: queued again, no retry burnt; returns how many jobs."""
        self._stop_for_release(busy_children())
        if self._end_by < math.inf:
            # Celery may not have heard yet of a job that was claimed a moment ago.
            with self._bounded(), self._engine.connect() as connection:
                held_by = store.holders(connection, self._family)
            self._stop_for_release(int(name.rpartition("/")[2]) for name in held_by)
        return self._give_back()

    def _give_back(self) -> int:
        """Queues the jobs of stopped children again; returns how many."""
        if not self.to_release:
            return 0
        with self._bounded(), self._engine.begin() as connection:
            taken = store.take_held_by(connection, list(self.to_release))
            released = [
                one
                for name in self.to_release
                if (held := [job for job in taken if job.worker_id == name and not job.recorded])
                for one in bulk.release_many(connection, held)
            ]
        lost_jobs.count_released(released)
        self.to_release.clear()
        return len(taken)

    def _release(self) -> None:
        """Gives back what is to be given back, after the grace of a drain all that runs."""
        if self._grace_is_over():
            self.release_running()
        else:
            self._give_back()


def _active_requests() -> list[Any]:
    """The messages that children of this worker have accepted."""
    while True:
        try:
            return [request for request in list(state.active_requests) if request.worker_pid]
        except RuntimeError:
            # The worker's main thread changed the set meanwhile.
            continue


def busy_children() -> set[int]:
    """The pids of the children that have accepted a message with jobs, and are not done with it."""
    return {request.worker_pid for request in _active_requests() if request.type in EXECUTING}


def running_jobs() -> dict[UUID, int]:
    """The jobs that living children of this worker run, or are about to settle, with the pid of each."""
    return {run.job_id: pid for pid, run in run_table.current().running() if is_child(pid)}


def jobs_of(args: Any) -> list[UUID]:
    """The jobs that a message names; a ticket and a forged message name none."""
    try:
        (given,) = args
        return [UUID(one) for one in (given if isinstance(given, list) else [given])]
    except (ValueError, TypeError, AttributeError):
        return []


def _something_runs() -> bool:
    return bool(busy_children() or running_jobs())


def _in_words(name: str, error: Exception) -> str:
    """What is wrong with a step, for the liveness file."""
    kind = type(error).__name__
    return f"a server could not be reached ({kind})" if isinstance(error, UNREACHABLE) else f"{name}: {kind}"


def is_tracked(name: str) -> bool:
    """True if a lease holder is at work on a message that Celery knows of."""
    return int(name.rpartition("/")[2]) in busy_children()
