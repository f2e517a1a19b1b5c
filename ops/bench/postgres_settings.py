"""What PostgreSQL's settings make of a backlog: its speed, and how much is written ahead for a job."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from ops.bench import ours
from ops.bench.figures import Round
from ops.bench.plan import Plan
from ops.bench.servers import Servers
from ops.bench.system import DATABASE, System

#: Settings beside the defaults of a new cluster. All of them can be changed while the server runs.
VARIANTS: dict[str, dict[str, str]] = {
    "default": {},
    "wal_compression": {"wal_compression": "on"},
    "checkpoints_rare": {"max_wal_size": "'8GB'", "checkpoint_timeout": "'30min'"},
    "checkpoints_often": {"max_wal_size": "'64MB'", "checkpoint_timeout": "'30s'"},
    "commit_delay": {"commit_delay": "200", "commit_siblings": "2"},
    # Never to be used: it says what waiting for the disk costs.
    "commit_not_awaited": {"synchronous_commit": "off"},
}

Say = Callable[[str], None]


def measure(plan: Plan, servers: Servers, say: Say, figures: Round) -> None:
    """Executes a backlog with each variant, from the first claim to the last end, after a checkpoint.

    Raises:
        BenchError: a process does not do its work.
    """
    try:
        for name, settings in VARIANTS.items():
            servers.execute("postgres", "ALTER SYSTEM RESET ALL")
            for setting, value in settings.items():
                servers.execute("postgres", f"ALTER SYSTEM SET {setting} = {value}")
            servers.execute("postgres", "SELECT pg_reload_conf()")
            with (
                tempfile.TemporaryDirectory(prefix="djps-bench-") as folder,
                System(servers, Path(folder)) as system,
            ):
                found, written = _executed(system, plan, lambda _: None)
            figures[f"settings_{name}_per_s"] = found
            figures[f"settings_{name}_wal_bytes"] = written
            say(f"{name}: {found:,.0f} jobs/s, {written:,.0f} bytes written ahead a job")
    finally:
        servers.execute("postgres", "ALTER SYSTEM RESET ALL")
        servers.execute("postgres", "SELECT pg_reload_conf()")


def _executed(system: System, plan: Plan, say: Say) -> tuple[float, float]:
    """Jobs a second, and bytes written ahead for each from its INSERT on."""
    before = _written(system.servers)
    found = ours.backlog(system, plan.backlog_jobs, plan.window, say)
    written = _written(system.servers) - before
    return found["backlog_per_s"], written / found["backlog_jobs"]


def _written(servers: Servers) -> float:
    return float(servers.rows(DATABASE, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")[0][0])
