"""The upgrade that brings history, under load: how long it keeps the statements of the release before it waiting.

The table has millions of jobs that ended. Three connections run the statements of that release, each taken back at once, while
`flask db upgrade` goes in; then today's API and workers work beside them, and `keep_history` makes the first days. As a program,
this file is those connections: `python -m ops.bench.upgrade DSN FILE`.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from ops.bench.figures import Round
from ops.bench.plan import Plan
from ops.bench.processes import BenchError, call
from ops.bench.servers import Servers
from ops.bench.size import Say
from ops.bench.system import DATABASE, System
from ops.stack.venv import ROOT

#: The schema of the release before, and what its code says to PostgreSQL.
BEFORE = "0014"
STATEMENTS = ROOT / "tests" / "contracts" / "statements" / f"{BEFORE}.jsonl"
#: A slice of a search gives up by itself, and is tried again with less.
GIVES_UP = "SET LOCAL statement_timeout"
#: Jobs that ended, over so many days, and in a quick run.
ROWS, ROWS_QUICK, DAYS = 5_000_000, 100_000, 29
#: Rows added in one statement.
CHUNK = 250_000
#: Connections that run those statements, and how long one waits for a lock, as the workers of that release did: milliseconds.
THREADS, LOCK_MS = 3, 2_000
#: How long they run before the upgrade and after it, seconds.
ALONE, TOGETHER = 5.0, 12.0
#: Longest an upgrade and a sweep may take, seconds.
PATIENCE = 300.0
#: Jobs that clients post meanwhile to today's API, a second.
POSTS_PER_S = 50.0

#: Makes the first days of history, as beat asks for every minute; says how many, and how long that took.
_KEEPER = """
import sys, time
from tasks.runtime import runtime
from webapp.jobs import history
parts = runtime()
began = time.monotonic()
with parts.engine.connect() as connection:
    now = history.moment(connection)
made = history.make_ahead(parts.engine, now, parts.settings.retention_days)
print(len(made), time.monotonic() - began)
"""


@dataclass(frozen=True, slots=True)
class Ran:
    """One statement: when it ended, in seconds since the epoch, how long it took, and what it failed with."""

    ended: float
    seconds: float
    failure: str = ""


def measure(plan: Plan, servers: Servers, say: Say, figures: Round) -> None:
    """Measures the upgrade of a table in which millions of jobs have ended.

    Raises:
        BenchError: a statement failed.
    """
    rows = ROWS if plan.rounds > 1 else ROWS_QUICK
    with tempfile.TemporaryDirectory(prefix="djps-bench-") as folder, System(servers, Path(folder)) as system:
        _go_back(system, rows, say)
        told = Path(folder) / "ran.jsonl"
        command = [sys.executable, "-m", "ops.bench.upgrade", servers.dsn(DATABASE), str(told)]
        system.children.start("release-before", command, system.environment, ROOT)
        system.children.wait_until(told.exists, "no statement has run", PATIENCE)
        marks = [time.time()]
        time.sleep(ALONE)
        marks.append(time.time())
        upgraded = _upgrade(system)
        marks.append(time.time())
        system.start_api()
        system.launch("worker", "maintenance", "beat")
        made, made_in = call([sys.executable, "-c", _KEEPER], system.environment, ROOT, PATIENCE).split()
        system.post(clients=4, seconds=TOGETHER, rate=POSTS_PER_S)
        system.drain(PATIENCE)
        marks.append(time.time())
        ran = [Ran(*json.loads(line)) for line in told.read_text().splitlines() if line.endswith("]")]
    figures["upgrade_rows"] = rows
    figures["upgrade_seconds"] = upgraded
    figures["upgrade_days_made"], figures["upgrade_days_seconds"] = float(made), float(made_in)
    for name, begin, end in zip(("before", "during", "after"), marks, marks[1:], strict=False):
        _note(name, [one for one in ran if begin < one.ended <= end], say, figures)
    say(f"{rows:,} rows: upgraded in {upgraded:.2f} s, then {made} days made in {float(made_in):.2f} s")
    if failures := {one.failure for one in ran if one.failure}:
        raise BenchError(f"statements of the release before failed: {sorted(failures)[:3]}")


def _note(name: str, ran: list[Ran], say: Say, figures: Round) -> None:
    if not ran:
        raise BenchError(f"no statement ran {name} the upgrade, so nothing was measured")
    longest = max(one.seconds for one in ran)
    figures[f"upgrade_{name}_statements"] = len(ran)
    figures[f"upgrade_{name}_longest_ms"] = 1000 * longest
    failed = sum(bool(one.failure) for one in ran)
    say(f"{name} the upgrade: {len(ran):,} statements, the longest {1000 * longest:.0f} ms, {failed} failed")


def _go_back(system: System, rows: int, say: Say) -> None:
    """Makes the tables of the release before, with jobs that ended and a few that live."""
    system.servers.make_database(DATABASE)
    _upgrade(system, BEFORE)
    step = DAYS * 86_400 / rows
    for start in range(0, rows, CHUNK):
        system.servers.execute(DATABASE, _filling(start + 1, min(rows, start + CHUNK), step))
        say(f"{min(rows, start + CHUNK):,} of {rows:,} rows")
    system.fill(1_000)
    system.servers.settle(DATABASE)


def _filling(first: int, last: int, step: float) -> str:
    """The statement that adds jobs which completed, each with its attempt, `step` seconds apart."""
    return f"""
        WITH made AS (
            INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint, status, attempt, run_at, created_at,
                              updated_at, dispatched_at, last_attempt_at, finished_at)
            SELECT uuidv7(t - now()), 'noop', jsonb_build_object('task', 'noop', 'order', i), 'default', 3, 300,
                   sha256(i::text::bytea), 'completed', 1, t, t, t, t, t, t
              FROM generate_series({first}, {last}) AS i,
                   LATERAL (SELECT now() - make_interval(secs => {DAYS * 86_400} - i * {step}) AS t) AS at
            RETURNING id, finished_at)
        INSERT INTO job_attempts (job_id, attempt, worker_id, started_at, ended_at, outcome)
        SELECT id, 1, 'bench:1', finished_at, finished_at, 'completed' FROM made"""  # noqa: S608 - numbers of this file


def _upgrade(system: System, revision: str = "head") -> float:
    """Brings the database to a revision; returns the seconds that took, the start of the program included."""
    began = time.monotonic()
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade", revision]
    call(command, system.environment, ROOT, PATIENCE)
    return time.monotonic() - began


def run_statements(dsn: str, file: Path) -> None:
    """Runs the statements of the release before for as long as this process lives, and writes down how long each took."""
    told = [one["sql"] for one in map(json.loads, STATEMENTS.read_text().splitlines())]
    told = [one for one in told if GIVES_UP not in one]
    lock = threading.Lock()

    def run(number: int) -> None:
        connection = psycopg2.connect(
            dsn, options=f"-c lock_timeout={LOCK_MS} -c statement_timeout=10000", connect_timeout=10
        )
        with connection.cursor() as cursor:
            for sql in itertools.islice(itertools.cycle(told), number * len(told) // THREADS, None):
                began, failure = time.monotonic(), ""
                try:
                    cursor.execute(sql)
                except psycopg2.Error as error:
                    failure = f"{error!r} in {sql[:80]}"
                connection.rollback()
                line = json.dumps([time.time(), time.monotonic() - began, failure])
                with lock:
                    out.write(line + "\n")
                    out.flush()

    with file.open("a", encoding="utf-8") as out:
        threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    run_statements(sys.argv[1], Path(sys.argv[2]))
