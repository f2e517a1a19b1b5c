"""The sweeps: what beat asks for again and again. The one list that the schedule, the metrics and the docs follow.

It is data, so that the web application knows the names without loading `tasks`. `tasks/sweeps/` has a file for each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from webapp.settings import Settings

#: Queue of DJPS itself: what beat asks for, and dead letters.
MAINTENANCE_QUEUE = "maintenance"


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """When a sweep runs, and how much one run does.

    Args:
        name: in the schedule, of the Celery task (after `tasks.`), and in metrics.
        does: in a sentence, for the docs.
        period: seconds between two runs, or the name of the setting that has them.
        batch: rows in one transaction; 0: as many as it finds.
        seconds: how long a run goes on; what is left is the next one's.
        rows: how many rows a run takes; what is left is the next one's.
    """

    name: str
    does: str
    period: float | str
    batch: int = 0
    seconds: float = math.inf
    rows: float = math.inf

    def every(self, settings: Settings) -> float:
        """Seconds between two runs."""
        return float(getattr(settings, self.period.lower()) if isinstance(self.period, str) else self.period)


DISPATCH_DUE = SweepPlan(
    "dispatch_due",
    "moves workflows on, has schedules fire that are due, and sends what is due to the broker's queues",
    period=1.0,
    # Until just before the next run, so that a retry starts when it is due and not up to a second later.
    seconds=0.9,
)
DELIVER_CALLBACKS = SweepPlan(
    "deliver_callbacks", "makes the callbacks of jobs that ended", period=1.0, batch=200, rows=5_000
)
LATE_CALLBACKS = SweepPlan(
    "late_callbacks",
    "makes the callbacks of jobs that ended more than a day ago, where no sweep has run since",
    period=60.0,
    batch=200,
    rows=5_000,
)
RECOVER_STUCK = SweepPlan(
    "recover_stuck", "ends attempts whose lease ran out", period="STUCK_CHECK_INTERVAL", batch=200
)
EXPIRE = SweepPlan(
    "expire", "cancels jobs that were not started by their `expires_at`", period=1.0, batch=1_000
)
PRUNE = SweepPlan(
    "prune",
    "deletes idempotency keys that ran out, unique keys that count no more, and jobs older than `RETENTION_DAYS` that are in no day of history; changes of flow, firings, batches and workflows as old",
    period=60.0,
    batch=1_000,
    # For each of them.
    seconds=20.0,
)
KEEP_HISTORY = SweepPlan(
    "keep_history",
    "makes history's next days, and drops those older than `RETENTION_DAYS`; the same of the months of the record of acts, by `AUDIT_DAYS`",
    period=60.0,
    batch=1_000,
    seconds=20.0,
)

SEAL_AUDIT = SweepPlan(
    "seal_audit",
    "seals the acts on record that have no seal yet, looks at two seals that are there",
    period=60.0,
    batch=1_000,
    seconds=20.0,
)

REPAIR_LANES = SweepPlan(
    "repair_lanes",
    "where something has limits: mends lanes that are out of order, and forgets those of keys that have no jobs",
    period=10.0,
    batch=5_000,
    # Of each kind.
    rows=5_000,
)

COUNT_ENDS = SweepPlan(
    "count_ends",
    "adds the ends of batches' members to their counters, and does what follows from that; closes, cancels and queues again what was asked of batches",
    period=1.0,
    batch=5_000,
    seconds=0.8,
)

FOLD_FIGURES = SweepPlan(
    "fold_figures",
    "counts what came into the dead letter queue and left it, folds samples to minutes and hours, and deletes old ones",
    period=10.0,
    batch=5_000,
    seconds=5.0,
)

SWEEPS = (
    DISPATCH_DUE,
    DELIVER_CALLBACKS,
    COUNT_ENDS,
    FOLD_FIGURES,
    LATE_CALLBACKS,
    RECOVER_STUCK,
    EXPIRE,
    PRUNE,
    KEEP_HISTORY,
    SEAL_AUDIT,
    REPAIR_LANES,
)
