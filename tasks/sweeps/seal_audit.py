"""The sweep that seals the record of acts, so that what is changed in it later is found, and looks at seals that are there.

Any number of beats and workers may run it at once: one of them seals, and the others find that it does.
"""

from __future__ import annotations

import logging
import time

from tasks.runtime import Runtime, runtime
from tasks.sweeps.base import Each, sweep
from webapp.audit import sealing
from webapp.infra.telemetry import metrics
from webapp.settings import sweeps

logger = logging.getLogger(__name__)

PLAN = sweeps.SEAL_AUDIT


@sweep(PLAN)
def seal_audit() -> None:
    """Seals what waits for it, then looks at two seals."""
    parts = runtime()
    with Each("part") as each:
        each.do("seal", lambda: run_seal(parts))
        each.do("look", lambda: run_look(parts))


def run_seal(parts: Runtime, batch: int = PLAN.batch) -> int:
    """Seals acts, a batch in each transaction; returns how many.

    The log lines are the anchor outside of the database: with a seal's digest it can be shown that none is missing up to it.

    Args:
        batch: most lines of a seal.
    """
    end = time.monotonic() + PLAN.seconds
    total = 0
    while time.monotonic() < end:
        seal = sealing.seal_next(parts.engine, parts.settings.audit_keys, batch)
        if seal is None:
            break
        total += seal.events
        logger.info(
            "audit sealed", extra={"seal": seal.seq, "events": seal.events, "sha256": seal.sha256.hex()}
        )
        # One without lines begins a numbering, and is followed by those.
        if 0 < seal.events < batch:
            break
    return total


def run_look(parts: Runtime) -> int:
    """Looks at the newest seal and at one other, each minute at the next; returns how many do not fit."""
    broken = sealing.look_back(parts.engine, parts.settings.audit_keys, parts.settings.audit_days)
    for one in broken:
        metrics.audit_breaks.inc()
        logger.error("audit seal does not fit", extra={"seal": one.seq, "why": one.why})
    return len(broken)
