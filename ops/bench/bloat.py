"""Whether the table of living jobs stays as large as its largest backlog, however many jobs go through it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ops.bench.figures import Round
from ops.bench.plan import Plan
from ops.bench.servers import Servers
from ops.bench.system import DATABASE, WORKERS, System

#: Jobs of one backlog, and how many follow each other, each when the one before is done.
BACKLOG, BACKLOGS = 200_000, 50
BACKLOG_QUICK, BACKLOGS_QUICK = 20_000, 5
#: Seconds a backlog gets; the whole takes ten minutes.
PATIENCE = 300.0
#: After so many backlogs the size is what the others are compared with: vacuuming has come round by then.
SETTLED = 3
MIBIBYTE = 1024.0**2
_SIZE = "SELECT pg_total_relation_size('jobs_living')"

Say = Callable[[str], None]


def measure(plan: Plan, servers: Servers, say: Say, figures: Round) -> None:
    """Executes backlog after backlog and looks at the size of `jobs_living`, with PostgreSQL's own vacuuming.

    Raises:
        BenchError: a backlog is not done in time.
    """
    jobs, times = (BACKLOG, BACKLOGS) if plan.rounds > 1 else (BACKLOG_QUICK, BACKLOGS_QUICK)
    sizes: list[float] = []
    with tempfile.TemporaryDirectory(prefix="djps-bench-") as folder, System(servers, Path(folder)) as system:
        system.launch(*WORKERS)
        began = time.monotonic()
        for number in range(times):
            system.fill(jobs)
            filled = _mib(servers)
            system.drain(PATIENCE)
            sizes.append(_mib(servers))
            say(
                f"{(number + 1) * jobs:,} jobs have gone through: jobs_living has {filled:,.0f} MiB full,"
                f" {sizes[-1]:,.0f} MiB empty"
            )
        took = time.monotonic() - began
    figures["bloat_jobs"] = float(jobs * times)
    figures["bloat_jobs_per_s"] = jobs * times / took
    figures["bloat_early_mib"] = max(sizes[:SETTLED])
    figures["bloat_late_mib"] = max(sizes[SETTLED:])
    figures["bloat_ratio"] = figures["bloat_late_mib"] / figures["bloat_early_mib"]


def _mib(servers: Servers) -> float:
    return float(servers.rows(DATABASE, _SIZE)[0][0]) / MIBIBYTE
