"""All SQL of the job domain. Every statement is named for what it does and guarded by state and attempt.

Functions take a connection and never commit: their callers own the transaction. Times are PostgreSQL's
alone (`now()`), so a worker's wrong clock changes nothing. A write that its guard refuses changes no row
and says so; it never raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, text

from webapp.infra.broker.hints import Hint
from webapp.infra.postgres.engine import Statement
from webapp.infra.postgres.literals import array_of
from webapp.jobs.columns import as_sent, columns_of
from webapp.jobs.error_report import ErrorReport
from webapp.jobs.loss import SPARED
from webapp.jobs.retry import DeathReason

#: Largest number of an attempt: PostgreSQL's integer.
MAX_ATTEMPT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as it stands in the table."""

    id: UUID
    task: str
    payload: dict[str, Any]
    queue: str
    priority: int
    status: str
    attempt: int
    retry_count: int
    max_retries: int
    timeout: float
    run_at: datetime
    dispatched_at: datetime | None
    lease_expires_at: datetime | None
    worker_id: str | None
    idempotency_key: str | None
    result: Any
    last_error: str | None
    created_at: datetime
    updated_at: datetime
    last_attempt_at: datetime | None
    finished_at: datetime | None
    tags: list[str]
    expires_at: datetime | None
    backoff: dict[str, float] | list[float] | None
    callback_url: str | None
    callback_job_id: UUID | None
    cancel_reason: str | None
    progress: dict[str, Any] | None


#: The columns of a `JobRow`, in its order, ...
FIELDS = tuple(field.name for field in fields(JobRow))
#: ... and what to select for them.
JOB_COLUMNS = columns_of(FIELDS)


class Claim(NamedTuple):
    """A lease on one attempt of a job: `attempt` is the fence that every later write must show."""

    id: UUID
    task: str
    payload: dict[str, Any]
    queue: str
    attempt: int
    retry_count: int
    max_retries: int
    timeout: float
    worker_id: str
    waited: float
    request_id: str | None
    backoff: dict[str, float] | list[float] | None = None
    traceparent: str | None = None
    callback_of: UUID | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A job that is processing under a lease.

    Args:
        recorded: True when this attempt's end is already written.
        spared: how many attempts its process died in without running it.
    """

    id: UUID
    task: str
    queue: str
    attempt: int
    retry_count: int
    max_retries: int
    worker_id: str
    recorded: bool
    request_id: str | None = None
    traceparent: str | None = None
    backoff: dict[str, float] | list[float] | None = None
    spared: int = 0


_BY_ID = text(f"SELECT {JOB_COLUMNS} FROM jobs WHERE id = :id")


def find(connection: Connection, job_id: UUID) -> JobRow | None:
    """One job, or None."""
    row = connection.execute(_BY_ID, {"id": job_id}).first()
    return JobRow(*row) if row else None


#: A job that was not started in time is left to `expiry`.
IN_TIME = "(expires_at IS NULL OR expires_at > now() OR attempt > 0)"

_TAKE_DUE = text(f"""
    UPDATE jobs SET dispatched_at = now()
      FROM (SELECT id FROM jobs
             WHERE queue = :queue AND status = 'queued' AND dispatched_at IS NULL AND run_at <= now()
               AND {IN_TIME}
             ORDER BY priority DESC, run_at
             LIMIT :limit FOR UPDATE SKIP LOCKED) AS due
     WHERE jobs.id = due.id AND jobs.task <> ALL(:besides)
    RETURNING jobs.id, jobs.task, jobs.queue, jobs.timeout, jobs.priority, jobs.run_at""")


def take_due(connection: Connection, queue: str, limit: int, *, besides: Sequence[str] = ()) -> list[Hint]:
    """Marks due jobs that were never sent as dispatched, and returns them in the order they should be sent.

    Args:
        limit: how many of the queue's first jobs are looked at.
        besides: tasks whose jobs are left where they are.
    """
    values = {"queue": queue, "limit": limit, "besides": list(besides)}
    return _in_order(connection.execute(_TAKE_DUE, values))


_TAKE_UNCLAIMED = text(f"""
    UPDATE jobs SET dispatched_at = now()
      FROM (SELECT id FROM jobs
             WHERE queue = :queue AND status = 'queued'
               AND dispatched_at < now() - make_interval(secs => :age) AND run_at <= now()
               AND {IN_TIME}
             ORDER BY dispatched_at
             LIMIT :limit FOR UPDATE SKIP LOCKED) AS silent
     WHERE jobs.id = silent.id
    RETURNING jobs.id, jobs.task, jobs.queue, jobs.timeout, jobs.priority, jobs.run_at""")


def take_unclaimed(connection: Connection, queue: str, limit: int, age: float) -> list[Hint]:
    """Takes jobs that were sent more than `age` seconds ago and never claimed: their message may be lost."""
    return _in_order(connection.execute(_TAKE_UNCLAIMED, {"queue": queue, "limit": limit, "age": age}))


def _in_order(rows: Iterable[Row[Any]]) -> list[Hint]:
    urgent_first = sorted(rows, key=lambda row: (-row.priority, row.run_at))
    return [Hint(row.id, row.task, row.queue, row.timeout, row.priority) for row in urgent_first]


#: The second half reads every job that comes due within a moment; where a backlog is due, the first one has answered.
_NEXT_DUE = text("""
    SELECT CASE WHEN EXISTS (
               SELECT FROM jobs WHERE status = 'queued' AND dispatched_at IS NULL AND queue = ANY(:queues)
                  AND run_at <= now())
           THEN 0.0 ELSE (
               SELECT extract(epoch FROM min(run_at) - now()) FROM jobs
                WHERE status = 'queued' AND dispatched_at IS NULL AND queue = ANY(:queues)
                  AND run_at < now() + make_interval(secs => :within))
           END::float8""")


def seconds_to_next_due(connection: Connection, queues: Sequence[str], within: float) -> float | None:
    """Seconds until the next undispatched job is due, when that is less than `within`; 0 when one is overdue."""
    seconds: float | None = connection.execute(_NEXT_DUE, {"queues": list(queues), "within": within}).scalar()
    return seconds


_MARK_UNDISPATCHED = text(
    "UPDATE jobs SET dispatched_at = NULL WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'queued'"
)


def mark_undispatched(connection: Connection, ids: Iterable[UUID]) -> int:
    """Gives jobs whose message could not be sent back to the dispatcher."""
    return connection.execute(_MARK_UNDISPATCHED, {"ids": array_of(ids)}).rowcount


#: What a claim changes, and what it gives back: the fields of a `Claim`, in its order.
CLAIMED = """status = 'processing', attempt = attempt + 1, worker_id = :worker_id, last_attempt_at = now(),
           updated_at = now(), lease_expires_at = now() + make_interval(secs => :lease), progress = NULL"""
CLAIMS = f"""id, task, {as_sent("payload")} AS payload, queue, attempt, retry_count, max_retries, timeout, worker_id,
              extract(epoch FROM now() - run_at)::float8 AS waited, request_id, backoff, traceparent, callback_of"""

_CLAIM = Statement(f"""
    UPDATE jobs SET {CLAIMED}
     WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'queued' AND run_at <= now() AND {IN_TIME}
    RETURNING {CLAIMS}""")


def claim(connection: Connection, ids: Sequence[UUID], *, worker_id: str, lease: float) -> list[Claim]:
    """Takes the lease of those jobs that are queued, due and not expired; others are duplicates, stale or cancelled.

    Args:
        worker_id: the process that will run them.
        lease: seconds until the sweeper may take them over.
    """
    found = _CLAIM.run(connection, {"ids": array_of(ids), "worker_id": worker_id, "lease": lease})
    return [Claim._make(row) for row in found.rows]


_CLAIMED_BY = Statement(f"""
    SELECT {CLAIMS} FROM jobs
     WHERE status = 'processing' AND worker_id = :worker_id AND NOT EXISTS (
           SELECT FROM job_attempts AS ended WHERE ended.job_id = jobs.id AND ended.attempt = jobs.attempt)
     ORDER BY priority DESC, run_at""")


def claimed_by(connection: Connection, worker_id: str) -> list[Claim]:
    """What a process has claimed and not settled, the most urgent first: for one that did not hear the answer to its claim."""
    return [Claim._make(row) for row in _CLAIMED_BY.run(connection, {"worker_id": worker_id}).rows]


_LAST_ATTEMPT = text("""
    SELECT a.death_reason, a.error_type, a.error_message, j.task, j.queue, j.request_id, j.traceparent
      FROM jobs j JOIN job_attempts a ON a.job_id = j.id AND a.attempt = j.attempt
     WHERE j.id = :id AND j.status = 'processing' AND j.attempt = :attempt AND a.outcome IN ('failed', 'lost')
       FOR UPDATE OF j""")

_BURY = text("""
    WITH buried AS (
        UPDATE jobs SET status = 'failed', finished_at = now(), updated_at = now(), lease_expires_at = NULL,
                        worker_id = NULL
         WHERE id = :id AND status = 'processing' AND attempt = :attempt
        RETURNING id, task, queue)
    INSERT INTO dead_letters (job_id, reason, error_type, error_message, fingerprint, task, queue)
    SELECT id, :reason, :error_type, :error_message, :fingerprint, task, queue FROM buried""")

#: How an attempt that a release without `death_reason` recorded tells that it was discarded.
_DISCARD_TYPE = "webapp.jobs.errors.Discard"


@dataclass(frozen=True, slots=True)
class Burial:
    """A job that went to the dead letter queue."""

    id: UUID
    task: str
    queue: str
    reason: str
    request_id: str | None = None
    traceparent: str | None = None


def bury(connection: Connection, job_id: UUID, attempt: int) -> Burial | None:
    """Moves a job whose last attempt is recorded to the dead letter queue; None when there is nothing to move.

    The recorded end of the attempt is what allows the move, so a forged or late message buries nothing.
    """
    last = connection.execute(_LAST_ATTEMPT, {"id": job_id, "attempt": attempt}).first()
    if last is None:
        return None
    by_type = DeathReason.DISCARDED if last.error_type == _DISCARD_TYPE else DeathReason.EXHAUSTED
    reason = last.death_reason or by_type.value
    report = ErrorReport(last.error_type or "", last.error_message or "")
    connection.execute(
        _BURY,
        {
            "id": job_id,
            "attempt": attempt,
            "reason": reason,
            "error_type": last.error_type,
            "error_message": last.error_message,
            "fingerprint": report.fingerprint,
        },
    )
    return Burial(job_id, last.task, last.queue, reason, last.request_id, last.traceparent)


_RENEW = text("""
    UPDATE jobs SET lease_expires_at = now() + make_interval(secs => :lease)
     WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'processing' AND worker_id = ANY(:workers)
    RETURNING id""")


def renew(connection: Connection, ids: Sequence[UUID], *, workers: Sequence[str], lease: float) -> set[UUID]:
    """Prolongs the leases that these processes hold on these jobs; returns the jobs that are still theirs."""
    rows = connection.execute(_RENEW, {"ids": array_of(ids), "workers": list(workers), "lease": lease})
    return {row.id for row in rows}


_HELD = f"""SELECT j.id, j.task, j.queue, j.attempt, j.retry_count, j.max_retries, j.worker_id, a.job_id IS NOT NULL,
           j.request_id, j.traceparent, j.backoff,
           (SELECT count(*)::int FROM job_attempts AS before
             WHERE before.job_id = j.id AND before.error_type = '{SPARED.type}')
      FROM jobs j LEFT JOIN job_attempts a ON a.job_id = j.id AND a.attempt = j.attempt
     WHERE j.status = 'processing' AND """

#: All of a holder's jobs at once: how many it held is part of what is decided.
_TAKE_STUCK = text(f"""{_HELD} j.lease_expires_at < now() AND j.worker_id IN (
           SELECT worker_id FROM jobs WHERE status = 'processing' AND lease_expires_at < now()
            ORDER BY lease_expires_at LIMIT :limit)
       FOR UPDATE OF j SKIP LOCKED""")


def take_stuck(connection: Connection, limit: int) -> list[Held]:
    """Locks jobs whose lease ran out.

    Args:
        limit: how many of them are looked at; the others of their holders come with them.
    """
    return [Held(*row) for row in connection.execute(_TAKE_STUCK, {"limit": limit})]


_HOLDERS = text(
    "SELECT DISTINCT worker_id FROM jobs WHERE status = 'processing' AND starts_with(worker_id, :family)"
)


def holders(connection: Connection, family: str) -> list[str]:
    """The processes of one worker that hold a job; their ids begin with `family`."""
    return list(connection.execute(_HOLDERS, {"family": family}).scalars())


_TAKE_HELD_BY = text(f"{_HELD} j.worker_id = ANY(:workers) FOR UPDATE OF j SKIP LOCKED")


def take_held_by(connection: Connection, workers: Sequence[str]) -> list[Held]:
    """Locks the jobs that these processes hold, a chunk each at most; their callers know that the processes are dead."""
    return [Held(*row) for row in connection.execute(_TAKE_HELD_BY, {"workers": list(workers)})]


_UP_FOR = text("SELECT extract(epoch FROM now() - pg_postmaster_start_time())::float8")


def seconds_since_start(connection: Connection) -> float:
    """How long this PostgreSQL has been up: live workers need one lease after a restart to renew theirs."""
    return float(connection.execute(_UP_FOR).scalar_one())
