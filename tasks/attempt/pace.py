"""How long the jobs of each task take in this process, told to the senders: by that they put quick jobs together."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tasks.runtime import Runtime
from webapp.infra.broker import pace

#: Seconds between two reports of a task's pace where it has not changed much, ...
PACE_EVERY = 30.0
#: ... and between two looks whether it has.
PACE_PAUSE = 0.25


@dataclass(slots=True)
class Pace:
    """What this process knows of how long a task's jobs take, and what it told the others of it.

    Moments are on the monotonic clock.
    """

    seconds: float = 0.0
    count: int = 0
    told: float | None = None
    told_at: float = 0.0
    look_at: float = 0.0


_paces: dict[str, Pace] = {}


def measure(parts: Runtime, task: str, seconds: float) -> None:
    """Keeps the pace of a task, and tells it to the senders when it has changed or some time has passed."""
    seen = _paces.get(task)
    if seen is None:
        seen = _paces[task] = Pace()
    seen.seconds = pace.updated(seen.seconds, seen.count, seconds)
    seen.count += 1
    now = time.monotonic()
    if now < seen.look_at:
        return
    seen.look_at = now + PACE_PAUSE
    if seen.told is None or now - seen.told_at > PACE_EVERY or not pace.is_similar(seen.seconds, seen.told):
        parts.broker.paces.tell(task, seen.seconds)
        seen.told, seen.told_at = seen.seconds, now


def jobs_run() -> int:
    """How many jobs this process has run."""
    return sum(seen.count for seen in _paces.values())
