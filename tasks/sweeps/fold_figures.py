"""The sweep that folds: notes of dead letters into their tallies, samples into longer spans. What is read is right before and after; this
keeps it small.

Any number of beats and workers may run it at once; one of them folds.
"""

from __future__ import annotations

import logging
import time
from functools import partial

from tasks.runtime import Runtime, runtime
from tasks.sweeps.base import sweep
from webapp.dead_letters import tallies
from webapp.infra.postgres.engine import in_transaction
from webapp.settings import sweeps
from webapp.system import samples

logger = logging.getLogger(__name__)

PLAN = sweeps.FOLD_FIGURES


@sweep(PLAN)
def fold_figures() -> None:
    """Folds what was noted since the last tick."""
    run_fold(runtime())


def run_fold(parts: Runtime, batch: int = PLAN.batch) -> int:
    """Returns how many notes were counted.

    Args:
        batch: notes in one transaction.
    """
    total, end = 0, time.monotonic() + PLAN.seconds
    while True:
        counted = in_transaction(parts.engine, partial(tallies.fold, limit=batch))
        total += counted
        if counted < batch or time.monotonic() > end:
            break
    in_transaction(parts.engine, tallies.forget)
    in_transaction(parts.engine, partial(samples.fold, limit=batch))
    if total:
        logger.info("changes of the dead letter queue were counted", extra={"notes": total})
    return total
