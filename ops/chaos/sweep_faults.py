"""Faults of what beat asks for: it raises, in all or for one queue alone."""

from __future__ import annotations

import time

import requests

from ops.chaos.message_faults import worker_held
from ops.chaos.redis_faults import redis_command
from ops.chaos.stage import Stage
from ops.chaos.switches import QUEUE_THAT_RAISES, SWEEPS_RAISE

#: How long a queue goes on raising, seconds: longer than a mutant gets to finish its jobs.
LASTING = 40.0


def sweeps_raise(stage: Stage) -> None:
    """Every sweep raises for a while; then one queue does for good, and what the others had in Redis is flushed."""
    before = failures(stage)
    with stage.fault("every sweep raises for 4 s"):
        _raise_until(stage, SWEEPS_RAISE, 4.0)
        stage.hold(4)
    stage.hold(1)
    _raise_until(stage, QUEUE_THAT_RAISES, LASTING)
    with worker_held(stage), stage.fault("FLUSHALL, while dispatch of another queue raises"):
        redis_command(stage, "FLUSHALL")
    stage.hold(2)
    stage.await_that(lambda: failures(stage) > before, 10, "sweeps that failed to be counted")


def _raise_until(stage: Stage, place: str, seconds: float) -> None:
    """Has a place of the product raise from now on, for so long."""
    (stage.system.folder / place).write_text(str(time.time() + seconds))


def failures(stage: Stage) -> float:
    """How many sweeps have failed, as `/metrics` has it."""
    text = requests.get(f"{stage.system.url}/metrics", timeout=10).text
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("sweep_runs_total{") and 'outcome="failed"' in line
    )
