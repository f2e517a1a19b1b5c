"""What is measured of this system, apart from POST beside the floors."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ops.bench import load
from ops.bench.figures import Round, milliseconds
from ops.bench.plan import Plan
from ops.bench.processes import BenchError
from ops.bench.servers import Servers
from ops.bench.system import DATABASE, NOOP_SINGLE, SUBMIT, WORKERS, System

#: Jobs in one bulk request, and how many requests are on their way at once.
BULK_SIZE = 10_000
BULK_CLIENTS = 2
#: Requests a second of the sustained stream.
TOGETHER_RATE = 300.0
TOGETHER_CLIENTS = 16
#: Seconds between two jobs that are sent to an idle system.
IDLE_PAUSE = 0.04
#: Jobs that warm a fresh worker up before anything idle is measured.
WARM_UP = 20
#: Seconds a worker gets to start, and to finish what is left.
WORK_PATIENCE = 60.0
#: Seconds between two looks at the table while a backlog is executed.
LOOK_PAUSE = 0.1
APPLICATION = ("api", *WORKERS)

Say = Callable[[str], None]

_EXECUTED = """SELECT count(*), coalesce(extract(epoch FROM max(ended_at) - min(started_at)), 0)::float8
    FROM attempts WHERE outcome = 'completed'"""


def measure(plan: Plan, servers: Servers, say: Say, figures: Round, notes: dict[str, str]) -> None:
    """Measures everything once and adds the figures as they come.

    Raises:
        BenchError: a process does not do its work.
    """
    with (
        tempfile.TemporaryDirectory(prefix="djps-bench-") as folder,
        System(servers, Path(folder) / "default") as system,
    ):
        system.start_api()
        try:
            figures |= bulk(system, plan, say, notes)
        except BenchError as error:
            # The rest does not depend on it.
            notes["bulk_submit_per_s"] = f"failed: {error}"
            say(f"bulk submission failed: {error}")
        system.empty()
        figures |= backlog(system, plan.backlog_jobs, plan.window, say)
        system.discard()
        figures |= idle(system, plan.idle_jobs, say)
        figures |= together(system, plan.together_seconds, say)
        figures |= memory(system, say)
        system.drain(WORK_PATIENCE)
        system.forget_finished()
        figures |= single(system, plan.single_jobs, plan.window, say)


def bulk(system: System, plan: Plan, say: Say, notes: dict[str, str]) -> Round:
    """Jobs a second through `POST /jobs/batch`, where it is offered."""
    system.servers.settle()
    done = system.bulk(plan.bulk_jobs, BULK_SIZE, BULK_CLIENTS)
    if done is None:
        notes["bulk_submit_per_s"] = "not offered: POST /jobs/batch answers 404 or 405"
        say("bulk submission: not offered")
        return {}
    found = {"bulk_submit_per_s": done.per_s * BULK_SIZE} | milliseconds(done.latencies, "bulk_submit")
    say(f"bulk submission: {found['bulk_submit_per_s']:,.0f} jobs/s")
    return found


def backlog(system: System, count: int, window: float, say: Say) -> Round:
    """Jobs executed a second from a backlog that was there before the worker was started.

    Args:
        window: longest time to watch, seconds.
    """
    system.fill(count)
    system.servers.settle(DATABASE)
    system.launch(*WORKERS)
    return _watch(system, count, window, "backlog", say)


def single(system: System, count: int, window: float, say: Say) -> Round:
    """The same with one id to a message, by workers that are up and idle.

    Args:
        window: longest time to watch, seconds.
    """
    system.servers.settle(DATABASE)
    # One statement: to the dispatcher the whole backlog is there at once.
    system.fill(count, NOOP_SINGLE)
    return _watch(system, count, window, "single", say)


def _watch(system: System, count: int, window: float, name: str, say: Say) -> Round:
    """Watches a backlog being executed, by PostgreSQL's clock and by our own."""
    system.children.wait_until(lambda: executed(system)[0] > 0, "the worker claims nothing", WORK_PATIENCE)
    began, seen, spent = time.monotonic(), executed(system)[0], system.children.cpu_seconds(*WORKERS)
    while not system.is_done() and time.monotonic() - began < window:
        system.children.require_alive()
        time.sleep(LOOK_PAUSE)
    watched = time.monotonic() - began
    done, seconds = executed(system)
    spent = system.children.cpu_seconds(*WORKERS) - spent
    if seconds <= 0:
        raise BenchError(f"only {done} jobs were executed")
    found = {f"{name}_per_s": done / seconds, f"{name}_jobs": float(done)}
    if done > seen:
        found[f"{name}_wall_per_s"] = (done - seen) / watched
        found[f"{name}_cpu_ms_per_job"] = 1000 * spent / (done - seen)
    say(f"{name}: {found[f'{name}_per_s']:,.0f} jobs/s ({done:,} of {count:,} in {seconds:.1f} s)")
    return found


def executed(system: System) -> tuple[int, float]:
    """Completed attempts, and the seconds from the first claim to the last end, by PostgreSQL's clock."""
    row = system.servers.rows(DATABASE, _EXECUTED)[0]
    return int(row[0]), float(row[1])


def idle(system: System, count: int, say: Say) -> Round:
    """How long a job waits on an idle system, from before its POST is sent to its start and to its end."""
    sent = {}
    connection = load.Connection(system.port)
    try:
        for _ in range(WARM_UP):
            _submit(connection)
        system.drain(WORK_PATIENCE)
        for _ in range(count):
            at = time.time()
            sent[_submit(connection)] = at
            time.sleep(IDLE_PAUSE)
    finally:
        connection.close()
    system.drain(WORK_PATIENCE)
    rows = system.servers.rows(
        DATABASE,
        """SELECT j.id::text, extract(epoch FROM a.started_at)::float8, extract(epoch FROM j.finished_at)::float8
             FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.attempt = 1
            WHERE j.status = 'completed'""",
    )
    times = [(started - sent[job], ended - sent[job]) for job, started, ended in rows if job in sent]
    if len(times) != count:
        raise BenchError(f"{len(times)} of {count} idle jobs were completed")
    found = milliseconds([one[0] for one in times], "idle_start")
    found |= milliseconds([one[1] for one in times], "idle_done")
    say(f"idle: start p50 {found['idle_start_ms_p50']:.1f} ms, p99 {found['idle_start_ms_p99']:.1f} ms")
    return found


def _submit(connection: load.Connection) -> str:
    """Sends one job and returns its id."""
    status, body = connection.ask(SUBMIT)
    if status != 201:  # noqa: PLR2004
        raise BenchError(f"POST /jobs answered {status}: {body[:200]!r}")
    return str(json.loads(body)["id"])


def together(system: System, seconds: float, say: Say) -> Round:
    """A sustained stream over HTTP at a fixed rate that is executed as it comes."""
    system.drain(WORK_PATIENCE)
    began = system.servers.rows(DATABASE, "SELECT now()")[0][0]
    before = _spent(system)
    done = system.post(clients=TOGETHER_CLIENTS, seconds=seconds, rate=TOGETHER_RATE)
    system.drain(WORK_PATIENCE)
    spent = {part: seconds - before[part] for part, seconds in _spent(system).items()}
    rows = system.servers.rows(
        DATABASE,
        """SELECT extract(epoch FROM last_attempt_at - created_at)::float8,
                  extract(epoch FROM max(finished_at) OVER () - min(created_at) OVER ())::float8
             FROM jobs WHERE created_at > %s AND status = 'completed'""",
        (began,),
    )
    if len(rows) != len(done.latencies):
        raise BenchError(f"{len(rows)} of {len(done.latencies)} accepted jobs were completed")
    found = {
        "together_accepted_per_s": done.per_s,
        "together_completed_per_s": len(rows) / rows[0][1],
        "cpu_ms_per_job": 1000 * sum(spent[part] for part in spent if part != "database") / len(rows),
    }
    found |= {f"together_{part}_cpu_ms": 1000 * seconds / len(rows) for part, seconds in spent.items()}
    found |= milliseconds([row[0] for row in rows], "together_wait")
    found |= milliseconds(done.latencies, "together_post")
    say(
        f"together: {done.per_s:,.0f} accepted/s, {found['together_completed_per_s']:,.0f} completed/s, "
        f"wait p99 {found['together_wait_ms_p99']:,.0f} ms, {found['cpu_ms_per_job']:.2f} ms CPU a job"
    )
    return found


def _spent(system: System) -> dict[str, float]:
    """CPU seconds so far, by part."""
    children = system.children
    parent = children.leader_cpu_seconds("worker")
    return {
        "api": children.cpu_seconds("api"),
        "parent": parent,
        "child": children.cpu_seconds("worker") - parent,
        "upkeep": children.cpu_seconds("maintenance", "beat"),
        "database": system.servers.postgres_cpu_seconds(),
    }


def memory(system: System, say: Say) -> Round:
    """Memory of all processes after all this work: PSS, in MiB, of each and in sum."""
    each = {name: system.children.memory_mib(name) for name in APPLICATION}
    found = {f"memory_{name}_mib": sum(processes) for name, processes in each.items()}
    total = sum(found.values())
    for name, (parent, *children) in each.items():
        beside = "".join(f" + {child:.1f}" for child in children)
        say(f"memory of {name}: {found[f'memory_{name}_mib']:.1f} MiB PSS = {parent:.1f}{beside}")
    say(f"memory: {total:.0f} MiB PSS")
    return {"memory_mib": total, **found}
