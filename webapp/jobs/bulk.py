"""The store's statements for many jobs at once: the chunks that workers run, pruning.

Like `webapp.jobs.store`, of which this is a part: statements are guarded by state and attempt, functions take a
connection and never commit. Values go as arrays, one for each column, so that any number of jobs is one statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from webapp.infra.broker.hints import Hint
from webapp.infra.postgres.engine import Statement
from webapp.infra.postgres.literals import array_of, kept_as_sent, text_array_of
from webapp.jobs.error_report import ErrorReport
from webapp.jobs.states import JobStatus
from webapp.jobs.store import Claim, Held

#: Longest a statement of a batch may run, milliseconds: ten thousand rows on a busy machine.
BATCH_TIMEOUT_MS = 15_000


def allow_time(connection: Connection) -> None:
    """Gives the statements of this transaction the time that a batch takes."""
    connection.execute(text(f"SET LOCAL statement_timeout = {BATCH_TIMEOUT_MS}"))


class Completed(NamedTuple):
    """A job of a chunk that has run: its result as JSON text, and when it ran, in seconds after the claim."""

    claim: Claim
    result: str | None
    began: float
    ended: float


#: The fence, as in `store.OPEN_ATTEMPT`: the attempt is the job's newest, it runs, and its end is not on record.
#: It is put in a way that leaves the planner one choice for each job, the primary keys: statistics of a table that fills
#: up are always old, and by them it would rather read every job that has lately been processing, or every attempt.
_OPEN_ATTEMPT = """jobs.id = given.id AND (jobs.status = 'processing') IS TRUE AND jobs.attempt = given.attempt
           AND (SELECT ended.attempt FROM job_attempts AS ended
                 WHERE ended.job_id = given.id AND ended.attempt = given.attempt) IS NULL"""

#: The jobs that are completed by a settle, and the record of their attempts.
SETTLED = f"""settled AS (
        UPDATE jobs
           SET status = 'completed', result = CAST(given.result AS jsonb),
               result_as_sent = CAST(given.as_sent AS json), last_error = NULL, finished_at = now(),
               updated_at = now(), lease_expires_at = NULL, worker_id = NULL
          FROM unnest(CAST(:ids AS uuid[]), CAST(:attempts AS int[]), CAST(:results AS text[]),
                      CAST(:as_sent AS text[]), CAST(:begins AS float8[]), CAST(:ends AS float8[]))
               AS given(id, attempt, result, as_sent, began, ended)
         WHERE {_OPEN_ATTEMPT}
        RETURNING jobs.id, jobs.attempt, jobs.last_attempt_at, given.began, given.ended)"""
RECORD = """INSERT INTO job_attempts (job_id, attempt, worker_id, started_at, ended_at, outcome)
    SELECT id, attempt, :worker_id, last_attempt_at + make_interval(secs => began),
           last_attempt_at + make_interval(secs => ended), 'completed' FROM settled"""

_SETTLE_MANY = Statement(f"WITH {SETTLED} {RECORD}")


def settle_many(connection: Connection, done: Sequence[Completed]) -> int:
    """Completes jobs of one worker's chunk; returns how many of them had not lost their lease."""
    return _SETTLE_MANY.run(connection, values_of(done)).number


def values_of(done: Sequence[Completed]) -> dict[str, Any]:
    """The values of `SETTLED` and `RECORD`."""
    return {
        "ids": array_of(one.claim.id for one in done),
        "attempts": array_of(one.claim.attempt for one in done),
        "results": text_array_of(one.result for one in done),
        "as_sent": text_array_of(kept_as_sent(one.result) for one in done),
        "begins": array_of(one.began for one in done),
        "ends": array_of(one.ended for one in done),
        "worker_id": done[0].claim.worker_id,
    }


_RELEASE_MANY = text(f"""
    WITH released AS (
        UPDATE jobs
           SET status = CASE WHEN cancel_requested_at IS NULL THEN 'queued' ELSE 'cancelled' END,
               finished_at = CASE WHEN cancel_requested_at IS NOT NULL THEN now() END,
               dispatched_at = CASE WHEN :sent AND cancel_requested_at IS NULL THEN now() END,
               updated_at = now(), lease_expires_at = NULL, worker_id = NULL
          FROM unnest(CAST(:ids AS uuid[]), CAST(:attempts AS int[])) AS given(id, attempt)
         WHERE {_OPEN_ATTEMPT}
        RETURNING jobs.id, jobs.attempt, jobs.last_attempt_at, jobs.task, jobs.queue, jobs.timeout, jobs.priority,
                  jobs.status),
    recorded AS (
        INSERT INTO job_attempts (job_id, attempt, worker_id, started_at, outcome, error_type, error_message)
        SELECT id, attempt, :worker_id, last_attempt_at, 'released', :type, :message FROM released)
    SELECT id, task, queue, timeout, priority, status FROM released""")


class Released(NamedTuple):
    """A job that was given back: what a message about it is made from, and its status by now."""

    id: UUID
    task: str
    queue: str
    timeout: float
    priority: int
    status: str

    @property
    def hint(self) -> Hint:
        """What its message is made from."""
        return Hint(self.id, self.task, self.queue, self.timeout, self.priority)

    @property
    def is_queued(self) -> bool:
        """True if it waits; one whose cancellation was asked is cancelled."""
        return self.status == JobStatus.QUEUED


def release_many(
    connection: Connection,
    claims: Sequence[Claim | Held],
    why: ErrorReport | None = None,
    *,
    sent: bool = False,
) -> list[Released]:
    """Gives jobs of one process back that it does not run: queued again, and no retry is used up; returns those it was.

    Args:
        why: kept with the attempts; None where the process itself hands them back.
        sent: their messages follow; else the dispatcher sends them.
    """
    values = {
        "ids": array_of(claim.id for claim in claims),
        "attempts": array_of(claim.attempt for claim in claims),
        "worker_id": claims[0].worker_id,
        "sent": sent,
        "type": why.type if why else None,
        "message": why.message if why else None,
    }
    return [Released(*row) for row in connection.execute(_RELEASE_MANY, values)]


_FORGET_DISPATCHED = text("""
    UPDATE jobs SET dispatched_at = NULL WHERE id IN (
        SELECT id FROM jobs WHERE status = 'queued' AND dispatched_at IS NOT NULL FOR UPDATE SKIP LOCKED)""")


def forget_dispatched(connection: Connection) -> int:
    """Gives every job that was sent and not claimed back to the dispatcher: its message is gone."""
    return connection.execute(_FORGET_DISPATCHED).rowcount


_PRUNE = text("""
    WITH old AS (
        SELECT id FROM jobs WHERE finished_at < now() - make_interval(days => :days)
         ORDER BY finished_at LIMIT :limit FOR UPDATE SKIP LOCKED),
    attempts AS (DELETE FROM job_attempts WHERE job_id IN (SELECT id FROM old))
    DELETE FROM jobs WHERE id IN (SELECT id FROM old)""")


def prune(connection: Connection, *, days: int, limit: int) -> int:
    """Deletes final jobs that ended more than `days` ago, with their attempts; returns how many."""
    return connection.execute(_PRUNE, {"days": days, "limit": limit}).rowcount
