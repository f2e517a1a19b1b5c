"""The sweep that keeps lanes in order, where queues or tasks have limits: it brings back what a restored dump or a fault has forgotten.

Claims keep lanes in order by themselves. What this one mends is counted and has an alert.
"""

from __future__ import annotations

import logging
from functools import partial

from tasks.runtime import Runtime, runtime
from tasks.sweeps.base import sweep
from webapp.flow import lane_repairs
from webapp.infra.postgres.engine import in_transaction
from webapp.infra.telemetry import metrics
from webapp.settings import sweeps

logger = logging.getLogger(__name__)

PLAN = sweeps.REPAIR_LANES


@sweep(PLAN)
def repair_lanes() -> None:
    """Calls lanes that were forgotten, and forgets those of which nothing is left to know."""
    run_repair(runtime())


def run_repair(parts: Runtime, batch: int = PLAN.batch) -> int:
    """Returns how many lanes were out of order; where nothing has limits it asks for nothing.

    Args:
        batch: rows of each kind in one run.
    """
    rules = parts.book.rules()
    if not (rules.limited_queues or rules.limited_tasks or rules.leaving_queues or rules.leaving_tasks):
        return 0
    done = in_transaction(parts.engine, partial(lane_repairs.repair, limit=batch))
    if done.mended:
        metrics.lane_repairs.inc(done.mended)
        logger.error("lanes were out of order and are mended", extra={"lanes": done.mended})
    return done.mended
