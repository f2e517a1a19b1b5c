"""Every counter and histogram of DJPS, declared once, true across processes.

Values live in memory-mapped files under `PROMETHEUS_MULTIPROC_DIR`, which API, workers and beat of one
host share. Gauges are not here: they are read from PostgreSQL and Redis at each scrape
(`webapp.api.metrics`). No job or client id is ever a label.
"""

from __future__ import annotations

import collections
import os
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

from webapp.settings import current
from webapp.slots import Slots

#: prometheus_client reads this variable at import, so it is set before the import below.
FOLDER = Path(
    os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str((current().data_dir / "metrics").absolute()))
)
FOLDER.mkdir(parents=True, exist_ok=True)

from prometheus_client import CollectorRegistry, Counter, Histogram, multiprocess, values  # noqa: E402

_slots = Slots(FOLDER)
values.ValueClass = values.MultiProcessValue(process_identifier=_slots.number)  # type: ignore[no-untyped-call]

#: Seconds; from a no-op to the longest default timeout.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

jobs_created = Counter("jobs_created_total", "Jobs accepted and stored.")
jobs_completed = Counter("jobs_completed_total", "Jobs that completed.")
jobs_failed = Counter("jobs_failed_total", "Jobs that went to the dead letter queue.")
jobs_retried = Counter("jobs_retried_total", "Attempts that failed and were given another try.")
jobs_recovered = Counter("jobs_recovered_total", "Jobs taken back from a dead or silent worker.", ["reason"])
jobs_refused = Counter(
    "job_claims_refused_total", "Messages whose job was not there to claim: duplicates, stale."
)
leases_lost = Counter("job_leases_lost_total", "Results dropped because the attempt's lease was lost.")
jobs_dispatched = Counter("jobs_dispatched_total", "Messages sent by the dispatcher.", ["reason"])
job_duration = Histogram("job_duration_seconds", "How long attempts ran.", buckets=_BUCKETS)
job_wait = Histogram("job_wait_seconds", "From due to started.", buckets=_BUCKETS)


def observe_all(histogram: Histogram, values: Sequence[float]) -> None:
    """What `Histogram.observe` does, with one addition to each bucket; the library has no call for many values.

    An observation touches two values in mapped files; for hundreds of jobs in a moment that adds up.
    """
    counts = collections.Counter(bisect_left(histogram._upper_bounds, value) for value in values)
    histogram._sum.inc(sum(values))
    for bucket, count in counts.items():
        histogram._buckets[bucket].inc(count)


def stored() -> CollectorRegistry:
    """A registry that sums the counters and histograms of all processes."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=str(FOLDER))  # type: ignore[no-untyped-call]
    return registry
