"""The sweep that moves workflows on, has schedules fire and sends due jobs to their broker queues.

Like every sweep it is a function that returns a count, and a Celery task around it. Any number of beats and workers may run
it at once: rows are taken with `FOR UPDATE SKIP LOCKED`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from functools import partial

from tasks.runtime import Runtime, runtime
from tasks.sweeps.base import Each, sweep
from webapp.jobs.handlers import MAINTENANCE_QUEUE, registry
from webapp.settings import sweeps

logger = logging.getLogger(__name__)

PLAN = sweeps.DISPATCH_DUE
#: Messages of the maintenance queue that may wait meanwhile: as many as beat sends in a second.
TICKS_AT_ONCE = 6
#: Shortest pause between two looks of one run, seconds.
SHORTEST_PAUSE = 0.01
#: Longest pause between two looks of one run, seconds.
LONGEST_PAUSE = 0.25


@sweep(PLAN)
def dispatch_due() -> None:
    """Sends due jobs to their broker queues for one second, or once when this worker is behind with its messages."""
    parts = runtime()
    is_behind = (parts.broker.room.most_urgent(MAINTENANCE_QUEUE) or 0) > TICKS_AT_ONCE
    run_dispatch(parts, 0.0 if is_behind else PLAN.seconds)


def run_dispatch(parts: Runtime, window: float = 0.0) -> int:
    """Moves workflows on, fires schedules that are due, and fills every broker queue from what is due; returns how many messages were sent.

    Where there are no schedules, one look of a run says so. Workflows are looked at four times a second: two indexes, which are empty where
    there are none.

    Args:
        window: seconds to go on looking for what becomes due; 0 looks once.
    """
    end = time.monotonic() + window
    queues = registry.queues()
    total = 0
    next_time: float | None = 0.0
    workflows_at = 0.0
    with Each("queue") as each:
        each.do("refill", parts.dispatcher.refill)
        each.do("handlers", parts.telling.turn)
        while True:
            if (now := time.monotonic()) >= workflows_at:
                each.do("workflows", parts.advancer.turn)
                workflows_at = now + LONGEST_PAUSE
            if next_time is not None:
                next_time = each.do("schedules", parts.firer.turn)
            each.do("bring back", partial(parts.dispatcher.bring_back, queues))
            total += sum(each.do(name, partial(_fill, parts, name)) or 0 for name in queues)
            left = end - time.monotonic()
            if left <= 0:
                break
            # The jobs of a queue that fails stay due, and are no reason to look again at once.
            pause = _pause(parts, [name for name in queues if name not in each.failed], left)
            time.sleep(min(left, pause, _until(next_time)))
    if total:
        logger.info("jobs dispatched", extra={"jobs": total})
    return total


def _fill(parts: Runtime, queue: str) -> int:
    """Fills one broker queue; returns how many messages were sent."""
    settings = parts.settings
    sent = parts.dispatcher.dispatch(
        queue, buffer=settings.broker_buffer, redispatch_after=settings.redispatch_after
    )
    return sum(sent.values())


def _until(next_time: float | None) -> float:
    """Seconds until schedules are looked at again: when the next one is due, never longer than jobs, and without end where there are none."""
    if next_time is None:
        return math.inf
    return max(next_time, SHORTEST_PAUSE)


def _pause(parts: Runtime, queues: Sequence[str], left: float) -> float:
    """Seconds until the next look: when the next job is due, and never long."""
    due_in = parts.dispatcher.seconds_to_next_due(queues, left)
    if due_in is None:
        return LONGEST_PAUSE
    if due_in <= 0:
        # A job is due and was not taken: its queue is full, or Redis is away. The workers need a moment.
        return LONGEST_PAUSE / 5
    return min(max(due_in, SHORTEST_PAUSE), LONGEST_PAUSE)
