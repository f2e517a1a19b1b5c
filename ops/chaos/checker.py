"""The checker: invariants I1 to I10, each a query over what is in the database after everything is quiet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from redis.exceptions import RedisError

from ops.chaos.clients import HANG
from ops.chaos.history import History
from ops.chaos.overlaps import Overlap, is_excused
from ops.chaos.system import LEASE, QUEUE, System
from webapp.infra.broker.transport import lists_of

#: Most findings of one kind that are spelled out.
SHOWN = 5
#: Most connections that a quiet system keeps: pools of two gunicorn workers and five children, and presence.
CONNECTIONS = 32
#: How long the last messages may take to be gone, seconds.
RESIDUE_PATIENCE = 10.0

_ROWS = "SELECT id::text, idempotency_key, status, attempt, result, created_at FROM jobs WHERE idempotency_key LIKE %s"

_SECOND_FINALS = """
SELECT t.job_id::text, count(*) FROM transitions t JOIN jobs j ON j.id = t.job_id
 WHERE j.idempotency_key LIKE %s AND t.new IN ('completed', 'failed', 'cancelled')
 GROUP BY 1 HAVING count(*) > 1"""

_FINAL_WRITES = """
SELECT f.job_id::text, f.new ->> 'status' FROM final_writes f JOIN jobs j ON j.id = f.job_id
 WHERE j.idempotency_key LIKE %s"""

_DOUBLE_EFFECTS = """
SELECT e.job_id::text, e.attempt FROM effects e JOIN jobs j ON j.id = e.job_id
 WHERE j.idempotency_key LIKE %s AND e.committed GROUP BY 1, 2 HAVING count(*) > 1"""

_MISSING_EFFECTS = """
SELECT j.id::text, j.attempt FROM jobs j
 WHERE j.idempotency_key LIKE %s AND j.status = 'completed' AND j.task = 'chaos.effect'
   AND NOT EXISTS (SELECT 1 FROM effects e WHERE e.job_id = j.id AND e.attempt = j.attempt AND e.committed)"""

_STALE_EFFECTS = """
SELECT e.job_id::text, e.attempt FROM effects e JOIN jobs j ON j.id = e.job_id
 WHERE j.idempotency_key LIKE %s AND e.committed
   AND EXISTS (SELECT 1 FROM effects later WHERE later.job_id = e.job_id AND later.attempt > e.attempt
                                             AND later.started_at < e.ended_at)"""

# One that begins before an earlier one of its job has ended overlaps it. An execution without an end was killed, and a
# killed one runs no more.
_OVERLAPS = """
SELECT j.id::text, e.attempt, later.attempt, e.pid, extract(epoch FROM e.started_at)::float8,
       extract(epoch FROM later.started_at)::float8
  FROM jobs j JOIN effects e ON e.job_id = j.id JOIN effects later ON later.job_id = j.id
 WHERE j.idempotency_key LIKE %s AND (e.started_at, e.id) < (later.started_at, later.id)
   AND later.started_at < e.ended_at
 ORDER BY later.started_at"""

# An attempt's end is written by its holder, or by who took the job over from it; the result is of the last one.
_STALE_WRITES = """
SELECT j.id::text, a.attempt FROM jobs j JOIN attempts a ON a.job_id = j.id
  LEFT JOIN transitions t ON t.job_id = j.id AND t.attempt = a.attempt AND t.new = 'processing'
 WHERE j.idempotency_key LIKE %s
   AND (t.worker_id IS DISTINCT FROM a.worker_id
        OR (a.attempt = j.attempt AND j.status = 'completed' AND j.task = 'chaos.effect'
            AND (j.result ->> 'attempt')::int IS DISTINCT FROM j.attempt))"""

_ATTEMPTS = """
SELECT j.id::text, j.attempt FROM jobs j LEFT JOIN attempts a ON a.job_id = j.id
 WHERE j.idempotency_key LIKE %s AND j.status IN ('completed', 'failed', 'cancelled')
 GROUP BY j.id, j.attempt HAVING count(a.*) <> j.attempt OR coalesce(max(a.attempt), 0) <> j.attempt"""

_ENDS = """
SELECT j.id::text, j.status, a.outcome FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.attempt = j.attempt
 WHERE j.idempotency_key LIKE %s
   AND ((j.status = 'completed') <> (a.outcome = 'completed')
        OR (j.status = 'failed' AND a.outcome NOT IN ('failed', 'lost')))"""

_KEYS = """
SELECT idempotency_key, count(*) FROM jobs WHERE idempotency_key LIKE %s GROUP BY 1 HAVING count(*) > 1"""

_BEYOND_BUDGET = """
SELECT id::text, retry_count FROM jobs WHERE idempotency_key LIKE %s AND retry_count > max_retries"""

_STRAY_EFFECTS = (
    "SELECT job_id::text, attempt FROM effects e WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE id = e.job_id)"
)

_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'djps-%%'"
_IN_TRANSACTION = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'djps-%%'"
    " AND state LIKE 'idle in transaction%%' AND state_change < now() - interval '5 s'"
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checker found.

    Args:
        counts: how many of each kind of finding; all zero is what is promised.
        findings: a sentence for each, with examples.
        overlaps: executions that overlapped one whose process was stopped meanwhile (the stated exception).
    """

    counts: dict[str, int]
    findings: list[str]
    overlaps: int


def check(system: System, history: History, prefix: str, ends: dict[str, tuple[str, ...]]) -> Verdict:
    """Checks one scenario's jobs.

    Args:
        prefix: what the scenario's idempotency keys begin with.
        ends: how a job of each kind may end.
    """
    like = prefix + "-%"
    found: dict[str, list[str]] = {}

    def ask(name: str, sql: str, *values: object) -> None:
        found[name] = [" ".join(map(str, row)) for row in system.rows(sql, *values)]

    jobs = {row[0]: row for row in system.rows(_ROWS, like)}
    by_key = {row[1]: row for row in jobs.values()}
    accepted = list(history.accepted())
    known = {operation.key: operation for operation in history.operations.values()}

    found["I1 lost"] = [
        job_id for _, job_id in accepted if job_id not in jobs or jobs[job_id][2] in ("queued", "processing")
    ]
    found["I1 ended otherwise"] = [
        f"{job_id} ({operation.kind}: {jobs[job_id][2]})"
        for operation, job_id in accepted
        if job_id in jobs and jobs[job_id][2] not in ("queued", "processing", *ends[operation.kind])
    ]
    ask("I2 second final transitions", _SECOND_FINALS, like)
    ask("I2 writes to final rows", _FINAL_WRITES, like)
    ask("I3 double effects", _DOUBLE_EFFECTS, like)
    ask("I3 completed without effect", _MISSING_EFFECTS, like)
    ask("I3 stale effects", _STALE_EFFECTS, like)
    ask("I3 stale writes", _STALE_WRITES, like)
    overlaps = [Overlap(*row) for row in system.rows(_OVERLAPS, like)]
    unexcused = [one for one in overlaps if not is_excused(one, history.stops, LEASE)]
    found["I4 overlaps"] = [str(one) for one in unexcused]
    ask("I5 attempts without an end", _ATTEMPTS, like)
    ask("I5 ends that do not match", _ENDS, like)
    ask("I5 retries beyond the budget", _BEYOND_BUDGET, like)
    ask("I6 keys with two rows", _KEYS, like)
    found["I6 keys with two ids"] = [operation.key for operation in known.values() if len(operation.ids) > 1]
    found["I7 jobs no one asked for"] = [key for key in by_key if key not in known]
    ask("I7 effects of no job", _STRAY_EFFECTS)
    unfinished = [job_id for job_id, row in jobs.items() if row[2] in ("queued", "processing")]
    found["I8 not drained"] = unfinished
    found["I9 left behind"] = _residue(system)
    found["I10 answered and never stored"] = [job_id for _, job_id in accepted if job_id not in jobs]
    found["HTTP 500"] = [
        str(one.status) for one in history.exchanges if one.status == HTTPStatus.INTERNAL_SERVER_ERROR
    ]
    found["HTTP hangs"] = [
        f"{one.seconds:.1f} s" for one in history.exchanges if one.status == 0 and one.seconds >= HANG * 0.99
    ]
    return Verdict(
        counts={name: len(examples) for name, examples in found.items()},
        findings=sentences(found),
        overlaps=len(overlaps) - len(unexcused),
    )


def sentences(found: Mapping[str, list[str]]) -> list[str]:
    """A sentence for each kind of finding, with examples."""
    return [
        f"{name}: {len(examples)} ({', '.join(examples[:SHOWN])}{', ...' if len(examples) > SHOWN else ''})"
        for name, examples in found.items()
        if examples
    ]


def _residue(system: System) -> list[str]:
    """What a quiet system should not have: messages, connections, processes."""
    end = time.monotonic() + RESIDUE_PATIENCE
    while True:
        found = _leftovers(system)
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.5)


def _leftovers(system: System) -> list[str]:
    found = []
    try:
        with system.redis() as client:
            waiting = sum(client.llen(name) for name in lists_of(QUEUE))
            if waiting:
                found.append(f"{waiting} messages in the queue")
    except RedisError as error:
        found.append(f"redis: {error}")
    connections = system.rows(_CONNECTIONS)[0][0]
    if connections > CONNECTIONS:
        found.append(f"{connections} database connections")
    stale = system.rows(_IN_TRANSACTION)[0][0]
    if stale:
        found.append(f"{stale} transactions left open")
    return found + [f"orphan: {one}" for one in system.orphans()]


def unfinished(system: System, prefix: str) -> int:
    """Jobs of a scenario that are not final yet."""
    found: int = system.rows(
        "SELECT count(*) FROM jobs WHERE idempotency_key LIKE %s AND status IN ('queued', 'processing')",
        prefix + "-%",
    )[0][0]
    return found


def recoveries(system: System, prefix: str, faults: list[tuple[float, float]]) -> list[float]:
    """Seconds from each fault's end (or a job's submission, if later) until its jobs ended.

    A fault's jobs are those that were unfinished at some moment of it, or were submitted during it.
    """
    rows = system.rows(
        "SELECT extract(epoch FROM created_at)::float8, extract(epoch FROM finished_at)::float8 FROM jobs"
        " WHERE idempotency_key LIKE %s AND finished_at IS NOT NULL AND (payload ->> 'ms')::int < 100"
        " AND payload -> 'fails' IS NULL",
        prefix + "-%",
    )
    found = []
    for created, finished in rows:
        for began, ended in faults:
            if created <= ended and finished >= began:
                found.append(max(0.0, finished - max(created, ended)))
                break
    return found
