"""Workers of this machine that died: their jobs are taken back once that is certain, not when their leases run out.

A process's number proves nothing: it is used again, and containers count for themselves. What proves a death is a lock that
the kernel gives back with the last process that has it. Each worker keeps one on a file of its own in the data folder, and its
children have it as well; so a file that can be locked is that of a worker of which no process is left. Where a dead worker's
folder cannot be seen, or was another machine's, nothing is taken, and the leases decide.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine

from tasks import liveness
from tasks.presence import lost_jobs
from tasks.presence.context import WorkerContext
from tasks.presence.lost_jobs import Witness, no_witness
from tasks.processes import run_table
from webapp.infra import prefork
from webapp.infra.background import Step
from webapp.infra.broker import heartbeats
from webapp.jobs import store
from webapp.jobs.retry import RetryPolicy

logger = logging.getLogger(__name__)

#: Seconds between two looks for workers of this machine that have died.
LOOK_EVERY = 1.0
#: The ending of the files.
SUFFIX = ".worker"
#: The ending of the files that say what a worker's children run.
RUNS_SUFFIX = ".runs"
#: How long a file of another machine, or of this one before it was started again, is left where it is, seconds.
FOREIGN_KEPT = 86_400.0
#: Tells one run of the kernel from all others; machines that share a folder differ in it.
_KERNEL_RUN = Path("/proc/sys/kernel/random/boot_id")


def _kernel_run() -> str:
    with suppress(OSError):
        return _KERNEL_RUN.read_text().strip()
    return ""


class LifeLock:
    """The lock that says that this worker lives; processes that it forks have it, too.

    Args:
        data_dir: the DJPS_DATA_DIR setting.
        worker: this worker's name.
    """

    def __init__(self, data_dir: Path, worker: str) -> None:
        self.file = liveness.folder(data_dir) / f"{worker}{SUFFIX}"
        #: Where this worker's table of running jobs is kept, for the worker that comes after it.
        self.runs = _runs_beside(self.file)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        # No process may find the file before it is locked.
        draft = self.file.with_suffix(".draft")
        self._held = os.open(draft, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(self._held, _kernel_run().encode())
        draft.rename(self.file)

    def give_up(self) -> None:
        """The worker ends in order, and holds nothing any more."""
        self.file.unlink(missing_ok=True)
        self.runs.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class DeadWorker:
    """A worker of which no process is left."""

    name: str
    file: Path

    def forget(self) -> None:
        """Nothing is left to take back."""
        self.file.unlink(missing_ok=True)
        _runs_beside(self.file).unlink(missing_ok=True)

    def witness(self) -> Witness:
        """What tells which job each of its children ran when it died."""
        table = run_table.read(_runs_beside(self.file))
        return no_witness if table is None else table.last_seen


def _runs_beside(file: Path) -> Path:
    return file.with_name(file.name.removesuffix(SUFFIX) + RUNS_SUFFIX)


def find(data_dir: Path, own: str) -> Iterator[DeadWorker]:
    """The dead workers whose files are in the data folder; each stays locked while its caller deals with it.

    Args:
        data_dir: the DJPS_DATA_DIR setting.
        own: the name of this worker, which lives.
    """
    for file in sorted(liveness.folder(data_dir).glob(f"*{SUFFIX}")):
        name = file.name.removesuffix(SUFFIX)
        if name == own:
            continue
        try:
            held = os.open(file, os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A lock says nothing of processes on another machine.
            if os.read(held, 100).decode() == _kernel_run():
                yield DeadWorker(name, file)
            elif time.time() - os.fstat(held).st_mtime > FOREIGN_KEPT:
                file.unlink(missing_ok=True)
                _runs_beside(file).unlink(missing_ok=True)
        except OSError:
            continue
        finally:
            os.close(held)


def take_over(data_dir: Path, own: str, engine: Engine, redis: Redis, policy: RetryPolicy) -> int:
    """Settles the jobs of every dead worker as lost; returns how many.

    Args:
        data_dir: the DJPS_DATA_DIR setting.
        own: the name of this worker.
        engine: the database.
        redis: where heartbeats are.
        policy: says what becomes of a job whose process died.

    Raises:
        DBAPIError: PostgreSQL is not answering; what is left is found again by the next look.
    """
    total = 0
    for dead in find(data_dir, own):
        with engine.connect() as connection:
            held_by = store.holders(connection, dead.name + "/")
        taken = _settle(engine, policy, held_by, dead.witness()) if held_by else 0
        dead.forget()
        total += taken
        logger.warning(
            "a worker had died, its jobs were taken back", extra={"holder": dead.name, "jobs": taken}
        )
        with suppress(RedisError):
            heartbeats.leave(redis, dead.name)
    return total


def _settle(engine: Engine, policy: RetryPolicy, held_by: list[str], witness: Witness) -> int:
    return lost_jobs.settle(
        engine,
        policy,
        "worker_died",
        lambda connection: store.take_held_by(connection, held_by),
        witness=witness,
    )


class DeadWorkers:
    """Looks for dead workers of this machine.

    Args:
        worker: the one that looks.
    """

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker

    def steps(self) -> list[Step]:
        """One, a second after the other."""
        return [Step("dead workers", self.take_over, period=LOOK_EVERY)]

    def take_over(self) -> int:
        """Takes back the jobs of dead workers; returns how many."""
        worker = self._worker
        # A child that is forked meanwhile would have a dead worker's lock for as long as it lives.
        with worker.bounded(), prefork.held_off(waits_included=True):
            return take_over(
                worker.settings.data_dir, worker.name, worker.engine, worker.redis, worker.policy
            )
