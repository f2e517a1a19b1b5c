"""100,000 schedules that are due at the same minute: how long until the last has fired, and whether each fired once."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from ops.bench.figures import Round
from ops.bench.plan import Plan
from ops.bench.processes import BenchError
from ops.bench.servers import Servers
from ops.bench.size import Say
from ops.bench.system import DATABASE, NOOP, WORKERS, System

#: Schedules in a full run, and in a quick one.
SCHEDULES, QUICK_SCHEDULES = 100_000, 10_000
#: Seconds ahead at which all of them are due: the workers have started by then.
AHEAD = 20.0
#: Seconds that the firing may take before the run is given up.
PATIENCE = 180.0

_FILL = """
WITH made AS (
    INSERT INTO schedules (id, name, queue, version, next_at, due_at, tz_version)
    SELECT gen_random_uuid(), 's' || number, 'default', 1, due.at, due.at, '{rules}'
      FROM generate_series(1, {count}) AS number,
           (SELECT date_bin('1 second', now() + interval '{ahead} seconds', 'epoch') AS at) AS due
    RETURNING id, next_at)
INSERT INTO schedule_versions (schedule_id, version, spec)
SELECT id, 1, json_build_object('every', 86400, 'start_at', next_at, 'job', CAST('{job}' AS json)) FROM made"""
_FIRED = "SELECT count(*), count(DISTINCT (schedule_id, at)), count(DISTINCT job_id) FROM firings WHERE outcome = 'fired'"
_LAST = """SELECT extract(epoch FROM max(f.fired_at) - min(f.at))::float8, extract(epoch FROM min(f.fired_at) - min(f.at))::float8
    FROM firings AS f WHERE f.outcome = 'fired' AND f.at = (SELECT min(at) FROM firings)"""


def measure(plan: Plan, servers: Servers, say: Say, figures: Round) -> None:
    """Has all of them be due at once, by two beats and a maintenance worker beside a worker that runs the jobs.

    Raises:
        BenchError: not all have fired in time, or one has fired twice.
    """
    count = SCHEDULES if plan.rounds > 1 else QUICK_SCHEDULES
    with (
        tempfile.TemporaryDirectory(prefix="djps-bench-") as folder,
        System(servers, Path(folder)) as system,
    ):
        fill(system, count)
        system.launch(*WORKERS)
        system.children.start(
            "second beat", system.commands["beat"], system.environment, system.folder.parent
        )
        wait(system, count)
        fired, distinct, jobs = servers.rows(DATABASE, _FIRED)[0]
        if not fired == distinct == jobs == count:
            raise BenchError(f"{fired} firings, {distinct} distinct, {jobs} jobs, of {count} schedules")
        last, first = servers.rows(DATABASE, _LAST)[0]
        figures["schedules_count"] = float(count)
        figures["schedules_first_s"] = float(first)
        figures["schedules_last_s"] = float(last)
        figures["schedules_per_s"] = count / max(float(last) - float(first), 0.001)
        say(
            f"{count:,} schedules of one second: the first fired after {first:.2f} s, the last after {last:.1f} s"
            f" ({figures['schedules_per_s']:,.0f}/s), each once, while their jobs ran"
        )


def fill(system: System, count: int) -> None:
    """Makes so many schedules that are due at the same second."""
    from webapp.schedules.zones import rules_version  # noqa: PLC0415 - of the tree that is measured

    job = json.dumps({"payload": {"task": NOOP}})
    statement = _FILL.format(rules=rules_version(), count=count, ahead=AHEAD, job=job)
    system.servers.execute(DATABASE, statement, "VACUUM ANALYZE")


def wait(system: System, count: int) -> None:
    """Waits until so many have fired.

    Raises:
        BenchError: they have not, in time.
    """
    end = time.monotonic() + AHEAD + PATIENCE
    while time.monotonic() < end:
        system.children.require_alive()
        if system.servers.rows(DATABASE, _FIRED)[0][0] >= count:
            return
        time.sleep(0.5)
    raise BenchError("not all schedules have fired in time")
