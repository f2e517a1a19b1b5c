"""A real run to hold the model against: jobs that sleep arrive at random, and their waits are measured."""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.bench import load
from ops.bench.figures import percentile
from ops.bench.processes import BenchError
from ops.bench.servers import Servers
from ops.bench.system import DATABASE, WORKERS, System
from ops.capacity import model
from ops.capacity.costs import Costs

#: What a job of the trial sleeps on average, seconds.
NAP = 0.1
CHILDREN = 3
UTILISATION = 0.6
#: Jobs that lie there before the worker has started, to see how long a child is held by one.
BURST = 200
#: Share of the children's time that the calm stream takes: no one waits for a child.
CALM = 0.08
CALM_SECONDS = 10.0
STREAM_SECONDS = 25.0
#: How long the idle system is watched, for what it costs without a job.
IDLE_SECONDS = 5.0
CLIENTS = 8
PATIENCE = 60.0
#: Seed of arrivals and run times.
SEED = 20_26

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream's waits as they were predicted and as they were, milliseconds."""

    variability: float
    rate: float
    utilisation: float
    jobs: int
    predicted_p50: float
    measured_p50: float
    predicted_p99: float
    measured_p99: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trial found."""

    costs: Costs
    streams: tuple[Stream, ...]


@dataclass(slots=True)
class Meter:
    """What the parts of the system have used up so far."""

    system: System

    def read(self) -> dict[str, float]:
        """CPU milliseconds by part, transactions, what is written ahead, and the size of the tables."""
        # PostgreSQL's own counts come with a delay of up to a second.
        time.sleep(1.2)
        servers, children = self.system.servers, self.system.children
        row = servers.rows(
            DATABASE,
            """SELECT xact_commit, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0'),
                      (SELECT sum(pg_total_relation_size(relid)) + pg_total_relation_size('job_attempts')
                         FROM pg_partition_tree('jobs') WHERE isleaf)
                 FROM pg_stat_database WHERE datname = current_database()""",
        )[0]
        return {
            "api_ms": 1000 * children.cpu_seconds("api"),
            "parent_ms": 1000 * children.leader_cpu_seconds("worker"),
            "child_ms": 1000 * (children.cpu_seconds("worker") - children.leader_cpu_seconds("worker")),
            "upkeep_ms": 1000 * children.cpu_seconds("maintenance", "beat"),
            "database_ms": 1000 * servers.postgres_cpu_seconds(),
            "commits": float(row[0]),
            "wal_kib": float(row[1]) / 1024,
            "row_kib": float(row[2]) / 1024,
        }

    @contextmanager
    def measured(self, found: dict[str, float]) -> Iterator[None]:
        """Adds what a block has used up, and how many seconds it took."""
        before, began = self.read(), time.monotonic()
        yield
        took = time.monotonic() - began
        after = self.read()
        found |= {name: after[name] - before[name] for name in after} | {"seconds": took}


def run(say: Say) -> Outcome:
    """Runs the trial on servers of its own.

    Raises:
        BenchError: a process does not do its work.
    """
    with (
        tempfile.TemporaryDirectory(prefix="djps-capacity-") as folder,
        Servers() as servers,
        System(servers, Path(folder), {"HANDLERS": "ops.capacity.handlers"}) as system,
    ):
        concurrency = system.commands["worker"].index("--concurrency") + 1
        system.commands["worker"][concurrency] = str(CHILDREN)
        system.start_api()
        held = _held(system, say)
        meter, idle, busy = Meter(system), {}, {}
        with meter.measured(idle):
            time.sleep(IDLE_SECONDS)
        quiet = _stream(system, CALM * CHILDREN / (NAP + held), CALM_SECONDS, 0.0)
        costs = Costs().changed(held_ms=1000 * held, delivery_ms=1000 * percentile(quiet, 0.5))
        say(f"calm: delivered within {costs.delivery_ms:.1f} ms at p50")
        rate = UTILISATION * CHILDREN / (NAP + held)
        with meter.measured(busy):
            first = _stream(system, rate, STREAM_SECONDS, 0.0)
        per_job = {
            name: max(0.01, (busy[name] - idle[name] * busy["seconds"] / idle["seconds"]) / len(first))
            for name in busy
            if name != "seconds"
        }
        costs = costs.changed(**per_job, **_memory(system))
        second = _stream(system, rate, STREAM_SECONDS, 1.0)
        streams = (_compared(costs, rate, 0.0, first, say), _compared(costs, rate, 1.0, second, say))
        return Outcome(costs, streams)


def _memory(system: System) -> dict[str, float]:
    """Memory of each kind of process, MiB."""
    each = {name: system.children.memory_mib(name) for name in ("api", *WORKERS)}
    parent, *children = each["worker"]
    return {
        "api_mib": sum(each["api"]) / (len(each["api"]) - 1),
        "parent_mib": parent,
        "child_mib": sum(children) / len(children),
        "upkeep_mib": sum(each["maintenance"]) + sum(each["beat"]),
    }


def _held(system: System, say: Say) -> float:
    """Seconds that a child is held by one job beside its sleep, from a backlog that keeps every child busy."""
    statement = f"""INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint)
        SELECT uuidv7(), 'nap', '{{"task": "nap", "seconds": {NAP}}}', 'default', 3, 300, sha256('trial')
          FROM generate_series(1, {BURST})"""  # noqa: S608 - constants of this file
    system.launch(*WORKERS)
    system.children.wait_until(
        lambda: (
            system.servers.rows(
                "postgres", "SELECT 1 FROM pg_stat_activity WHERE application_name = 'djps-worker'"
            )
            != []
        ),
        "the workers do not start",
        PATIENCE,
    )
    system.servers.execute(DATABASE, statement)
    system.drain(PATIENCE)
    # The middle of it, when every child has work and none has run out of it.
    rows = system.servers.rows(
        DATABASE,
        """SELECT extract(epoch FROM last_attempt_at)::float8 FROM jobs ORDER BY last_attempt_at""",
    )
    tenth = BURST // 10
    began, ended = rows[tenth][0], rows[-tenth][0]
    held = CHILDREN * (ended - began) / (len(rows) - 2 * tenth) - NAP
    if held <= 0:
        raise BenchError(f"jobs ended faster than they sleep: held {1000 * held:.1f} ms")
    say(f"backlog: each job holds its child for {1000 * held:.1f} ms beside its own {1000 * NAP:g} ms")
    return float(held)


def _stream(system: System, rate: float, seconds: float, variability: float) -> list[float]:
    """Submits at random moments over HTTP, and returns how long each job waited, seconds.

    Args:
        variability: of the run time: 0 always the same, else exponential.
    """
    began = system.servers.rows(DATABASE, "SELECT now()")[0][0]
    chance = random.Random(SEED)  # noqa: S311 - arrivals, not secrets
    moments, at = [], 0.0
    while (at := at + chance.expovariate(rate)) < seconds:
        moments.append((at, chance.expovariate(1 / NAP) if variability else NAP))
    _submit(system.port, moments)
    system.drain(PATIENCE)
    rows = system.servers.rows(
        DATABASE,
        "SELECT extract(epoch FROM last_attempt_at - created_at)::float8 FROM jobs"
        " WHERE created_at > %s AND status = 'completed'",
        (began,),
    )
    if len(rows) != len(moments):
        raise BenchError(f"{len(rows)} of {len(moments)} jobs were completed")
    return [row[0] for row in rows]


def _submit(port: int, moments: list[tuple[float, float]]) -> None:
    """Sends every job at its moment, on as many connections as that takes."""
    began, failed = time.monotonic(), []

    def send(mine: list[tuple[float, float]]) -> None:
        connection = load.Connection(port)
        try:
            for at, nap in mine:
                time.sleep(max(0.0, began + at - time.monotonic()))
                body = json.dumps({"payload": {"task": "nap", "seconds": round(nap, 4)}}).encode()
                status, answer = connection.ask(load.request("POST", "/jobs", body))
                if status != 201:  # noqa: PLR2004
                    failed.append(f"POST /jobs answered {status}: {answer[:200]!r}")
        except (BenchError, OSError) as error:
            failed.append(str(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=send, args=(moments[number::CLIENTS],)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise BenchError(failed[0])


def _compared(costs: Costs, rate: float, variability: float, waited: list[float], say: Say) -> Stream:
    predicted = model.waits(model.Load(rate, NAP, variability), costs, CHILDREN)
    found = Stream(
        variability=variability,
        rate=rate,
        utilisation=predicted.utilisation,
        jobs=len(waited),
        predicted_p50=1000 * predicted.p50,
        measured_p50=1000 * percentile(waited, 0.5),
        predicted_p99=1000 * predicted.p99,
        measured_p99=1000 * percentile(waited, 0.99),
    )
    say(
        f"stream of {rate:.0f}/s, variability {variability:g}, {found.utilisation:.0%} busy:"
        f" p50 {found.predicted_p50:.1f} ms predicted, {found.measured_p50:.1f} measured;"
        f" p99 {found.predicted_p99:.1f} predicted, {found.measured_p99:.1f} measured ({found.jobs} jobs)"
    )
    return found
