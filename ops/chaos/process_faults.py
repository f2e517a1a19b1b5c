"""Faults of processes: killed, stopped, doubled, told to end, gone deaf."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import libfaketime

from ops.chaos.redis_faults import redis_command
from ops.chaos.stage import Fault, Stage
from ops.chaos.system import LEASE, WORKERS, await_that

#: Two workers go on side by side before and after the fault, seconds.
BESIDE = 2.0
#: How far the skewed worker's clock is ahead, seconds.
SKEW = 600
#: A worker that has gone deaf must have noticed, and ended, within this, seconds.
DEAF_WITHIN = 30.0


def _skewed() -> dict[str, Any]:
    """The library libfaketime for the worker alone: its wall clock is ahead, its monotonic clock is right."""
    library = Path(libfaketime.__file__).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    ahead = {"LD_PRELOAD": str(library), "FAKETIME": f"+{SKEW}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return {"worker_environment": ahead}


SKEWED = _skewed()


def nothing(stage: Stage) -> None:
    """Does nothing, for a moment."""
    with stage.fault("nothing"):
        stage.hold(1)


def kill_once(name: str) -> Fault:
    """Kill -9 of a member's parent."""

    def inject(stage: Stage) -> None:
        with stage.fault(f"kill -9 {name}"):
            stage.system.kill(name)

    return inject


def kill_three_times(name: str) -> Fault:
    """Kill -9 of a member's parent, again and again."""

    def inject(stage: Stage) -> None:
        for _ in range(3):
            kill_once(name)(stage)
            stage.hold(stage.rng.uniform(2.5, 4))

    return inject


def hurry_worker(stage: Stage) -> None:
    """The worker is told to end now, and started again, three times.

    Raises:
        TimeoutError: a job of it was lost, which uses up a retry; it should have been given back.
    """
    for _ in range(3):
        stage.await_that(stage.busy_children, 10, "a child to be busy", 0.01)
        with stage.fault("SIGQUIT to the worker"):
            stage.system.stop("worker", signal.SIGQUIT)
            stage.system.start("worker")
        stage.hold(stage.rng.uniform(1.5, 3))
    ended = stage.system.rows(
        "SELECT outcome, count(*) FROM attempts JOIN jobs ON id = job_id WHERE idempotency_key LIKE %s GROUP BY 1",
        f"{stage.prefix}-%",
    )
    counts = dict(ended)
    stage.say(f"attempts: {counts}")
    if counts.get("lost") or not counts.get("released"):
        raise TimeoutError(f"a worker in a hurry gives back what it holds; attempts: {counts}")


def kill_children(stage: Stage) -> None:
    """Kill -9 of children that run a job."""
    for _ in range(8):
        pids = stage.busy_children()
        if pids:
            with stage.fault("kill -9 of a child"):
                _kill(stage.rng.choice(pids))
        stage.hold(stage.rng.uniform(0.5, 1.2))


def kill_api_workers(stage: Stage) -> None:
    """Kill -9 of gunicorn's workers."""
    for _ in range(6):
        pids = stage.system.children("api")
        if pids:
            with stage.fault("kill -9 of a gunicorn worker"):
                _kill(stage.rng.choice(pids))
        stage.hold(stage.rng.uniform(0.5, 1))


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def die_at(*places: str) -> Fault:
    """Processes kill themselves at chosen points, twice each."""

    def inject(stage: Stage) -> None:
        for place in places * 2:
            marker = stage.system.folder / f"die-{place}"
            with stage.fault(f"die {place}"):
                marker.touch()
                stage.await_that(lambda path=marker: not path.exists(), 20, f"a process to die {place}", 0.01)
            stage.hold(1)

    return inject


def no_beat(stage: Stage) -> None:
    """No beat for a while, in which Redis forgets everything."""
    with stage.fault("no beat for 8 s, and FLUSHALL"):
        stage.system.stop("beat", signal.SIGKILL)
        stage.hold(4)
        redis_command(stage, "FLUSHALL")
        stage.hold(4)
        stage.system.start("beat")


def two_beats(stage: Stage) -> None:
    """A second beat beside the first."""
    with stage.fault("two beats for 6 s"):
        stage.system.start("second-beat")
        stage.hold(6)
        stage.system.stop("second-beat")


def stop_children(stage: Stage) -> None:
    """Children that run a job are stopped for longer than a lease."""
    pids = stage.busy_children()
    with stage.fault(f"{len(pids)} children stopped for {2 * LEASE} s"), stage.stopped(*pids):
        stage.hold(2 * LEASE)


def _start_second_worker(stage: Stage) -> None:
    stage.system.start("second-worker")
    stage.await_that(lambda: stage.system.live_workers() == WORKERS + 1, 30, "the second worker")


def among_two_workers(fault: Fault) -> Fault:
    """A fault while a second worker runs beside the first."""

    def inject(stage: Stage) -> None:
        _start_second_worker(stage)
        stage.hold(BESIDE)
        fault(stage)
        stage.hold(BESIDE)
        stage.system.stop("second-worker")

    return inject


def stop_worker(stage: Stage) -> None:
    """The whole worker is stopped for longer than a lease while another goes on, and then wakes in the old world."""
    _start_second_worker(stage)
    stage.await_that(stage.busy_children, 10, "a child to be busy", 0.01)
    pids = [stage.system.pid("worker"), *stage.system.children("worker")]
    with stage.fault(f"worker stopped for {2 * LEASE} s"), stage.stopped(*pids):
        stage.hold(2 * LEASE)
    stage.system.stop("second-worker")


def rolling_restart(stage: Stage) -> None:
    """Every process is told to end, and started again, as a deploy does."""
    for name in ("worker", "maintenance", "beat", "api", "worker"):
        with stage.fault(f"SIGTERM to {name}"):
            stage.system.stop(name)
            stage.system.start(name)
        stage.hold(1.5)


def deafen(stage: Stage) -> None:
    """The worker no longer asks Redis for messages, and thinks that all is well."""
    before = len(stage.system.members["worker"].exits)
    with stage.fault("the worker is deaf"):
        (stage.system.folder / "be-deaf").touch()
        await_that(
            lambda: len(stage.system.members["worker"].exits) > before, DEAF_WITHIN, "the deaf worker to end"
        )
    took = stage.faults[-1][1] - stage.faults[-1][0]
    stage.say(f"the worker ended {took:.1f} s after it went deaf")
