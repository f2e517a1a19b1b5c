"""Members of a batch against jobs of none, in turns: how many run in a second; how long a count takes, and a look at the batch."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from sqlalchemy import create_engine, text
from uuid_utils.compat import uuid7

from ops.bench import load
from ops.bench.figures import Round
from ops.bench.plan import Plan
from ops.bench.processes import BenchError
from ops.bench.servers import Servers
from ops.bench.size import Say
from ops.bench.system import DATABASE, NOOP, PAYLOAD, WORKERS, System
from webapp.groups import store
from webapp.infra.postgres.engine import engine_options

#: Jobs of a turn, and turns of each side, in a full run and in a quick one.
JOBS, QUICK_JOBS = 100_000, 20_000
TURNS, QUICK_TURNS = 3, 1
#: Notes that are counted pass by pass, and how many a pass takes.
NOTES, QUICK_NOTES, PASS = 1_000_000, 50_000, 5_000
#: Seconds between two looks at the batch, and until a turn is given up.
LOOK_EVERY, PATIENCE = 0.25, 600.0

_FILL = """
    INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint, group_id)
    SELECT uuidv7(), '{task}', '{payload}', 'default', 3, 300, sha256('bench'), {group} FROM generate_series(1, {count})"""
_BATCH = """
    INSERT INTO groups (id, kind, status, total, closed_at, options) VALUES ('{group}', 'batch', 'closed', {count}, now(), '{{}}')"""
_NOTES = """
    INSERT INTO group_ends (group_id, member_id, became) SELECT '{group}', gen_random_uuid(), 'completed' FROM generate_series(1, {count})"""
_LAG = """SELECT extract(epoch FROM g.finished_at - (SELECT max(finished_at) FROM jobs WHERE group_id = g.id))::float8, g.completed
    FROM groups AS g WHERE g.id = %s AND g.finished_at IS NOT NULL"""


class Looks:
    """Looks at a batch again and again, on a connection of its own.

    Args:
        port: of the API.
        batch: its id.
    """

    def __init__(self, port: int, batch: str) -> None:
        self._connection = load.Connection(port)
        self._request = load.request("GET", f"/batches/{batch}")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        #: Seconds that each look took.
        self.seconds: list[float] = []
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(LOOK_EVERY):
            began = time.perf_counter()
            status, _ = self._connection.ask(self._request)
            if status == 200:  # noqa: PLR2004
                self.seconds.append(time.perf_counter() - began)

    def end(self) -> list[float]:
        """Looks no more; the seconds, in order of size."""
        self._over.set()
        self._thread.join()
        self._connection.close()
        return sorted(self.seconds)


def measure(plan: Plan, servers: Servers, say: Say, figures: Round) -> None:
    """Runs as many members as jobs of no batch in turns, then counts notes pass by pass.

    Raises:
        BenchError: a batch has counted otherwise than its members ended.
    """
    jobs, turns = (JOBS, TURNS) if plan.rounds > 1 else (QUICK_JOBS, QUICK_TURNS)
    rates: dict[str, list[float]] = {"alone": [], "members": []}
    looks: list[float] = []
    lags: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="djps-bench-") as folder,
        System(servers, Path(folder)) as system,
    ):
        system.launch(*WORKERS)
        system.start_api()
        # The first jobs of a process pay for its start.
        _turn(system, jobs // 10, None)
        for number in range(turns):
            for side in ("alone", "members") if number % 2 else ("members", "alone"):
                batch = str(uuid7()) if side == "members" else None
                rates[side].append(_turn(system, jobs, batch, looks, lags))
    figures["batches_alone_per_s"] = median(rates["alone"])
    figures["batches_members_per_s"] = median(rates["members"])
    ratio = figures["batches_ratio"] = figures["batches_members_per_s"] / figures["batches_alone_per_s"]
    figures["batches_get_p99_ms"] = sorted(looks)[int(len(looks) * 0.99)] * 1000
    figures["batches_over_after_s"] = max(lags)
    passes = _count(servers, NOTES if plan.rounds > 1 else QUICK_NOTES)
    figures["batches_pass_max_ms"] = max(passes) * 1000
    figures["batches_pass_ms"] = median(passes) * 1000
    say(
        f"{jobs:,} members: {figures['batches_members_per_s']:,.0f}/s, of no batch {figures['batches_alone_per_s']:,.0f}/s ({ratio:.2f}x);"
        f" GET p99 {figures['batches_get_p99_ms']:.1f} ms, over {max(lags):.2f} s after the last end at most;"
        f" a pass of {PASS:,} notes {figures['batches_pass_ms']:.1f} ms (max {figures['batches_pass_max_ms']:.1f})"
    )


def _turn(
    system: System,
    count: int,
    batch: str | None,
    looks: list[float] | None = None,
    lags: list[float] | None = None,
) -> float:
    """Runs so many jobs, as members of a batch or of none; returns how many in a second."""
    system.forget_finished()
    system.servers.execute(DATABASE, "TRUNCATE groups, group_ends CASCADE")
    if batch is not None:
        system.servers.execute(DATABASE, _BATCH.format(group=batch, count=count))
    looking = None if batch is None else Looks(system.port, batch)
    group = "NULL" if batch is None else f"'{batch}'::uuid"
    began = time.monotonic()
    system.servers.execute(
        DATABASE, _FILL.format(task=NOOP, payload=json.dumps(PAYLOAD), group=group, count=count)
    )
    system.drain(PATIENCE)
    seconds = time.monotonic() - began
    if looking is not None and looks is not None and lags is not None:
        system.children.wait_until(
            lambda: bool(system.servers.rows(DATABASE, _LAG, (batch,))), "the batch is not over", PATIENCE
        )
        looks += looking.end()
        lag, completed = system.servers.rows(DATABASE, _LAG, (batch,))[0]
        if completed != count:
            raise BenchError(f"{count} members completed, and {completed} were counted")
        lags.append(float(lag))
    return count / seconds


def _count(servers: Servers, notes: int) -> list[float]:
    """Counts so many notes pass by pass; returns how long each took, seconds."""
    group = str(uuid7())
    servers.make_database(DATABASE, "bench_migrated")
    try:
        servers.execute(
            DATABASE, _BATCH.format(group=group, count=notes), _NOTES.format(group=group, count=notes)
        )
        url = servers.sqlalchemy_url(DATABASE)
        engine = create_engine(url, **engine_options("djps-bench", pool_size=1, finds_rows=True, url=url))
        passes: list[float] = []
        while True:
            began = time.perf_counter()
            with engine.begin() as connection:
                counted = store.count_ends(connection, PASS).notes
            if not counted:
                break
            passes.append(time.perf_counter() - began)
        with engine.connect() as connection:
            completed = connection.execute(text("SELECT completed FROM groups")).scalar_one()
        engine.dispose()
    finally:
        servers.drop_database(DATABASE)
    if completed != notes:
        raise BenchError(f"{completed} of {notes} notes were counted")
    return passes
