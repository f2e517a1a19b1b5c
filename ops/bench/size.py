"""Cost against size: the same statements and requests with more and more rows in the table."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, create_engine

from ops.bench import load
from ops.bench.figures import Round
from ops.bench.plan import Plan
from ops.bench.processes import BenchError
from ops.bench.servers import Servers
from ops.bench.system import DATABASE, NOOP, SUBMIT, System
from ops.stack.venv import ROOT
from webapp.jobs import store
from webapp.jobs.history import Period
from webapp.queues import store as queue_store

#: One row in this many is queued, the others are finished.
QUEUED_SHARE = 21
#: Days over which finished rows are spread, as many as are kept by default.
AGE_DAYS = 29.0
#: Rows that are processing: this many live, and this many whose lease ran out.
LIVE, STUCK = 200, 50
#: Rows of the comparison, and of the large table that is compared with it.
SMALL_ROWS, HUGE_ROWS = 10_500, 21_000_000
#: Rows added in one statement.
CHUNK = 500_000
#: Jobs that one dispatch takes.
DISPATCHED = 100
#: Rows of the day that is dropped while jobs are submitted.
PRUNED_ROWS = 5_000_000
PRUNED_ROWS_QUICK = 100_000
#: Age of those rows, days: older than jobs are kept by default.
OLD_DAYS = 33
#: Drops what is old as the product does, a moment after it was started, and says how long that took.
_PRUNER = """
import sys, time
from tasks.runtime import runtime
from tasks.sweeps.keep_history import run_keep_history
parts = runtime()
time.sleep(2)
began = time.monotonic()
dropped = run_keep_history(parts)
open(sys.argv[1], "w").write(f"{len(dropped)} {time.monotonic() - began}")
"""
#: Seconds it gets.
PRUNE_PATIENCE = 60.0
PRUNE_CLIENTS = 16
PRUNE_SECONDS = 12.0
#: The columns a finished, queued and processing row needs beyond those that all have.
_STATES = {
    "completed": (
        "attempt, run_at, created_at, updated_at, dispatched_at, last_attempt_at, finished_at, ended_by",
        "1, t, t, t, t, t, t, 'bench/1'",
    ),
    "queued": ("run_at, created_at, updated_at", "t, t, t"),
    "processing": (
        "attempt, run_at, created_at, updated_at, dispatched_at, last_attempt_at, worker_id, lease_expires_at",
        "1, t, t, t, t, t, 'bench/' || i, now() + interval '{lease}'",
    ),
}

Say = Callable[[str], None]


def fill(servers: Servers, rows: int, say: Say, *, age_days: float = AGE_DAYS) -> None:
    """Makes a table of this size, its finished jobs spread over `age_days`, each in the partition of its day."""
    servers.execute(DATABASE, "TRUNCATE jobs, job_attempts, dead_letters, idempotency_keys CASCADE")
    for number in range(int(age_days) + 2):
        _make_days(servers, datetime.now(UTC).date() - timedelta(days=number), 1)
    queued = max(1, rows // QUEUED_SHARE)
    add(servers, rows - queued, "completed", say, age_days=age_days)
    add(servers, queued, "queued", say, age_days=age_days / 100)
    add(servers, LIVE, "processing", say, lease="1 hour")
    add(servers, STUCK, "processing", say, lease="-1 minute")
    servers.settle(DATABASE)


def _make_days(servers: Servers, first: date, days: int) -> None:
    """Makes a partition of history, unless there is one of its name."""
    period = Period(first, first + timedelta(days=days))
    servers.execute(
        DATABASE,
        f"SELECT djps_make_history('{period.name}', '{period.first}Z', '{period.end}Z')"
        f" WHERE to_regclass('{period.name}') IS NULL",
    )


def add(
    servers: Servers,
    rows: int,
    status: str,
    say: Say,
    *,
    age_days: float = 1.0,
    until_days: float = 0.0,
    lease: str = "",
) -> None:
    """Adds rows of one status, created from `age_days` to `until_days` ago."""
    columns, values = _STATES[status]
    step = (age_days - until_days) * 86_400 / rows
    for start in range(0, rows, CHUNK):
        end = min(rows, start + CHUNK)
        ago = f"make_interval(secs => {age_days * 86_400} - i * {step})"
        statement = f"""
            INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint, status, {columns})
            SELECT uuidv7(-{ago}), '{NOOP}', jsonb_build_object('task', '{NOOP}', 'order', i), 'default', 3, 300,
                   sha256(i::text::bytea), '{status}', {values.format(lease=lease)}
              FROM generate_series({start + 1}, {end}) AS i, LATERAL (SELECT now() - {ago} AS t) AS at"""  # noqa: S608 - numbers and constants of this file
        servers.execute(DATABASE, statement)
        if rows > CHUNK:
            say(f"{end:,} of {rows:,} {status} rows")


def measure(plan: Plan, servers: Servers, say: Say, figures: Round) -> None:
    """Measures every operation at every size of the plan."""
    _at_sizes(plan.sizes, plan.repetitions, servers, say, figures)


def measure_huge(plan: Plan, servers: Servers, say: Say, figures: Round) -> None:
    """Compares twenty million finished and one million queued rows with ten thousand and five hundred."""
    _at_sizes((SMALL_ROWS, HUGE_ROWS), max(plan.repetitions, 50), servers, say, figures)
    for operation in ("claim", "dispatch", "recover", "status", "list", "filtered", "total"):
        small = figures[f"size_{SMALL_ROWS}_{operation}_ms"]
        figures[f"size_huge_{operation}_ratio"] = figures[f"size_{HUGE_ROWS}_{operation}_ms"] / small


def _at_sizes(sizes: Sequence[int], repetitions: int, servers: Servers, say: Say, figures: Round) -> None:
    with tempfile.TemporaryDirectory(prefix="djps-bench-") as folder, System(servers, Path(folder)) as system:
        system.start_api()
        engine = create_engine(servers.sqlalchemy_url(DATABASE))
        try:
            for rows in sizes:
                fill(servers, rows, say)
                found = _operations(system, engine, repetitions)
                figures |= {f"size_{rows}_{name}_ms": 1000 * seconds for name, seconds in found.items()}
                figures[f"size_{rows}_gib"] = float(servers.rows(DATABASE, _BYTES)[0][0]) / 1024**3
                shown = ", ".join(f"{name} {1000 * seconds:.2f} ms" for name, seconds in found.items())
                say(f"{rows:,} rows: {shown}")
        finally:
            engine.dispose()


def _operations(system: System, engine: Engine, repetitions: int) -> dict[str, float]:
    """The median seconds of each operation."""
    servers = system.servers
    queued = [UUID(str(row[0])) for row in servers.rows(DATABASE, _SAMPLE, ("queued", repetitions))]
    finished = [str(row[0]) for row in servers.rows(DATABASE, _SAMPLE, ("completed", repetitions))]
    connection = load.Connection(system.port)
    try:
        found = {
            "list": _requests(connection, ["/jobs?limit=100"], repetitions),
            "filtered": _requests(connection, ["/jobs?limit=100&status=completed"], repetitions),
            "total": _requests(connection, ["/jobs?limit=1"], repetitions),
            "status": _requests(connection, [f"/jobs/{one}" for one in finished], repetitions),
        }
    finally:
        connection.close()
    found["claim"] = _statements(
        engine,
        lambda made, number: store.claim(made, [queued[number % len(queued)]], worker_id="bench/1", lease=60),
        repetitions,
    )
    found["dispatch"] = _statements(
        engine, lambda made, _: queue_store.take_due(made, "default", DISPATCHED), repetitions
    )
    found["recover"] = _statements(engine, lambda made, _: store.take_stuck(made, STUCK), repetitions)
    return found


#: What all jobs take with their indexes.
_BYTES = "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('jobs') WHERE isleaf"
#: Some ids of one status, from all over the table's index.
_SAMPLE = "SELECT id FROM jobs WHERE status = %s ORDER BY fingerprint LIMIT %s"


def _requests(connection: load.Connection, paths: Sequence[str], repetitions: int) -> float:
    times = []
    for number in range(repetitions + 1):
        payload = load.request("GET", paths[number % len(paths)])
        began = time.perf_counter()
        status, body = connection.ask(payload)
        times.append(time.perf_counter() - began)
        if status != 200:  # noqa: PLR2004
            raise BenchError(f"GET {paths[0]} answered {status}: {body[:200]!r}")
    # The first one opens a connection and plans its statements.
    return median(times[1:])


def _statements(engine: Engine, run: Callable[[Connection, int], Any], repetitions: int) -> float:
    """Median seconds of a statement that is rolled back, so that the next one finds the same table."""
    times = []
    with engine.connect() as connection:
        for number in range(repetitions + 1):
            began = time.perf_counter()
            taken = run(connection, number)
            times.append(time.perf_counter() - began)
            connection.rollback()
            if not taken:
                raise BenchError("a statement that should find rows found none")
    return median(times[1:])


def measure_prune(plan: Plan, servers: Servers, say: Say, figures: Round) -> None:
    """Compares the rate of POST /jobs while a day of history is dropped with the rate while none is."""
    rows = PRUNED_ROWS if plan.rounds > 1 else PRUNED_ROWS_QUICK
    seconds = PRUNE_SECONDS if plan.rounds > 1 else plan.post_seconds
    with tempfile.TemporaryDirectory(prefix="djps-bench-") as folder, System(servers, Path(folder)) as system:
        system.start_api()
        # A day of any hour lies in three of the calendar's.
        _make_days(servers, datetime.now(UTC).date() - timedelta(days=OLD_DAYS + 2), 3)
        add(servers, rows, "completed", say, age_days=OLD_DAYS + 1, until_days=OLD_DAYS)
        servers.settle(DATABASE)
        load.drive(system.port, SUBMIT, clients=PRUNE_CLIENTS, seconds=0.5)
        without = _rate(system, seconds)
        told = Path(folder) / "dropped"
        system.children.start("pruner", [sys.executable, "-c", _PRUNER, str(told)], system.environment, ROOT)
        during = _rate(system, seconds)
        system.children.wait_until(told.exists, "the old day is not dropped", PRUNE_PATIENCE)
        after = _rate(system, seconds)
        dropped, took = told.read_text().split()
    if dropped != "1":
        raise BenchError(f"{dropped} days were dropped, and not one")
    figures["prune_post_per_s"] = during
    figures["prune_without_post_per_s"] = (without + after) / 2
    figures["prune_slowdown"] = 1 - during / figures["prune_without_post_per_s"]
    figures["prune_day_seconds"] = float(took)
    say(
        f"POST while a day of {rows:,} jobs is dropped: {during:,.0f}/s, without: {without:,.0f}/s before and"
        f" {after:,.0f}/s after; dropped in {float(took):.2f} s"
    )


def _rate(system: System, seconds: float) -> float:
    system.servers.settle()
    return system.post(clients=PRUNE_CLIENTS, seconds=seconds).per_s
