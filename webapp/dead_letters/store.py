"""The part of the store for the dead letter queue: find letters, group them, requeue and discard what matches.

Like `webapp.jobs.store`: functions take a connection and never commit. A letter is open until somebody deals with it.
Whoever deals with one locks its job and the letter, and leaves out what another has locked, so two who do the same at
the same time share the work and never wait for each other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from webapp.infra.postgres.literals import array_of
from webapp.jobs import pages
from webapp.jobs.store import JobRow


class LetterState(StrEnum):
    """What became of a dead letter."""

    #: Nobody has dealt with it.
    OPEN = "open"
    #: Its job was queued once more.
    REQUEUED = "requeued"
    #: It was put aside; its job stays failed.
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters are wanted: all that is given must hold; None stands for any.

    Args:
        reason: `exhausted` or `discarded` (by the handler).
        error_type: the exception's class, with its module.
        fingerprint: the same for errors that differ in numbers and ids only.
        dead_after: at this moment or later.
        dead_before: earlier than this moment.
        ids: of jobs.
    """

    state: LetterState | None = LetterState.OPEN
    task: str | None = None
    queue: str | None = None
    reason: str | None = None
    error_type: str | None = None
    fingerprint: str | None = None
    dead_after: datetime | None = None
    dead_before: datetime | None = None
    ids: tuple[UUID, ...] | None = None

    def values(self) -> dict[str, Any]:
        """The parameters of its conditions, by name; the state is a condition without one."""
        given = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "state"}
        if self.ids is not None:
            given["ids"] = array_of(self.ids)
        return {name: value for name, value in given.items() if value is not None}


_STATES = {
    None: "true",
    LetterState.OPEN: "d.requeued_at IS NULL AND d.discarded_at IS NULL",
    LetterState.REQUEUED: "d.requeued_at IS NOT NULL",
    LetterState.DISCARDED: "d.discarded_at IS NOT NULL",
}
_CONDITIONS = {
    "task": "d.task = :task",
    "queue": "d.queue = :queue",
    "reason": "d.reason = :reason",
    "error_type": "d.error_type = :error_type",
    "fingerprint": "d.fingerprint = :fingerprint",
    "dead_after": "d.dead_at >= :dead_after",
    "dead_before": "d.dead_at < :dead_before",
    "ids": "d.job_id = ANY(CAST(:ids AS uuid[]))",
    "before": "d.id < :before",
}


def _where(state: LetterState | None, names: Iterable[str]) -> str:
    return " AND ".join((_STATES[state], *(_CONDITIONS[name] for name in sorted(names))))


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter, and what became of it."""

    id: int
    job_id: UUID
    task: str | None
    queue: str | None
    reason: str
    error_type: str | None
    error_message: str | None
    fingerprint: str
    dead_at: datetime
    requeued_at: datetime | None
    discarded_at: datetime | None
    resolved_by: str | None
    resolved_why: str | None


_LETTER = ", ".join(f"d.{one.name}" for one in fields(Letter))


@cache
def _letters_by(state: LetterState | None, names: frozenset[str]) -> TextClause:
    return text(
        f"SELECT {_LETTER} FROM dead_letters d WHERE {_where(state, names)} ORDER BY d.id DESC LIMIT :limit"
    )


def letters(connection: Connection, wanted: LetterFilter, *, limit: int, before: int | None) -> list[Letter]:
    """Letters from the newest on.

    Args:
        before: only letters with a smaller number.
    """
    values = wanted.values() | ({} if before is None else {"before": before})
    statement = _letters_by(wanted.state, frozenset(values))
    return [Letter(*row) for row in connection.execute(statement, values | {"limit": limit})]


@cache
def _jobs_by(names: frozenset[str]) -> TextClause:
    return text(
        f"SELECT d.job_id FROM dead_letters d"
        f" WHERE {_where(LetterState.OPEN, names)} ORDER BY d.id DESC LIMIT :limit OFFSET :offset"
    )


def jobs(
    connection: Connection,
    wanted: LetterFilter,
    *,
    limit: int,
    offset: int,
    large: Collection[str] = pages.LARGE,
) -> tuple[list[JobRow], bool]:
    """The jobs of open letters, from the newest letter on, as many as fit into a page; and whether there may be more.

    Args:
        large: fields that may be large and are wanted.
    """
    values = wanted.values()
    statement = _jobs_by(frozenset(values))
    ids = list(connection.execute(statement, values | {"limit": limit, "offset": offset}).scalars())
    found, all_fit = pages.fetch(connection, ids, large)
    return found, not all_fit or len(ids) == limit


@cache
def _count_by(state: LetterState | None, names: frozenset[str]) -> TextClause:
    return text(f"SELECT count(*) FROM dead_letters d WHERE {_where(state, names)}")


def count(connection: Connection, wanted: LetterFilter) -> int:
    """How many letters match."""
    values = wanted.values()
    return int(connection.execute(_count_by(wanted.state, frozenset(values)), values).scalar_one())


@dataclass(frozen=True, slots=True)
class Group:
    """Letters that died of the same: how many, since when, and the newest of them as a sample."""

    task: str | None
    queue: str | None
    error_type: str | None
    fingerprint: str
    count: int
    first_dead_at: datetime
    last_dead_at: datetime
    sample_job_id: UUID
    sample_message: str | None
    sample_traceback: str | None


@cache
def _groups_by(state: LetterState | None, names: frozenset[str]) -> TextClause:
    return text(f"""
        SELECT alike.task, alike.queue, alike.error_type, alike.fingerprint, alike.count, alike.first, alike.last,
               newest.job_id, newest.error_message, ended.traceback
          FROM (SELECT d.task, d.queue, d.error_type, d.fingerprint, count(*) AS count, min(d.dead_at) AS first,
                       max(d.dead_at) AS last, max(d.id) AS newest
                  FROM dead_letters d WHERE {_where(state, names)}
                 GROUP BY 1, 2, 3, 4 ORDER BY count(*) DESC, max(d.id) DESC LIMIT :limit) AS alike
          JOIN dead_letters AS newest ON newest.id = alike.newest
          LEFT JOIN LATERAL (SELECT traceback FROM job_attempts WHERE job_id = newest.job_id
                               AND ended_at <= newest.dead_at ORDER BY attempt DESC LIMIT 1) AS ended ON true
         ORDER BY alike.count DESC, alike.newest DESC""")


def groups(connection: Connection, wanted: LetterFilter, *, limit: int) -> list[Group]:
    """Letters grouped by task, queue, error class and fingerprint, the largest group first."""
    values = wanted.values()
    statement = _groups_by(wanted.state, frozenset(values))
    return [Group(*row) for row in connection.execute(statement, values | {"limit": limit})]


_CHOSEN = """chosen AS (
        SELECT d.id, d.job_id FROM dead_letters d JOIN jobs j ON j.id = d.job_id
         WHERE j.status = 'failed' AND {where}
         ORDER BY d.id LIMIT :limit FOR UPDATE OF j, d SKIP LOCKED)"""


@cache
def _requeue_by(names: frozenset[str]) -> TextClause:
    return text(f"""
    WITH {_CHOSEN.format(where=_where(LetterState.OPEN, names))},
    placed AS (SELECT id, job_id, row_number() OVER (ORDER BY id) - 1 AS place FROM chosen),
    back AS (
        UPDATE jobs
           SET status = 'queued', dispatched_at = NULL, retry_count = 0, last_error = NULL, finished_at = NULL,
               run_at = coalesce(CAST(:first AS timestamptz), now()) + make_interval(secs => place * :gap),
               cancel_requested_at = NULL, cancel_reason = NULL, callback_job_id = NULL, updated_at = now(),
               expires_at = CASE WHEN expires_at > now() THEN expires_at END
          FROM placed WHERE jobs.id = placed.job_id
        RETURNING jobs.id, jobs.run_at),
    closed AS (
        UPDATE dead_letters SET requeued_at = now(), resolved_by = :by, resolved_why = :why
          FROM placed WHERE dead_letters.id = placed.id)
    SELECT count(*), max(run_at) FROM back""")


@dataclass(frozen=True, slots=True)
class Resolved:
    """How many letters were dealt with; `last_run_at` is when the last of their jobs is due."""

    count: int
    last_run_at: datetime | None = None


def requeue(
    connection: Connection,
    wanted: LetterFilter,
    *,
    limit: int,
    gap: float,
    first: datetime | None,
    by: str | None,
    why: str | None,
) -> Resolved:
    """Queues the jobs of the oldest open letters that match once more, each with a fresh budget.

    Args:
        limit: most letters.
        gap: seconds between one job and the next to be due.
        first: when the first is due; None: now.
        by: who does this.
        why: why.
    """
    values = wanted.values()
    given = values | {"limit": limit, "gap": gap, "first": first, "by": by, "why": why}
    return Resolved(*connection.execute(_requeue_by(frozenset(values)), given).one())


@cache
def _discard_by(names: frozenset[str]) -> TextClause:
    return text(f"""
    WITH {_CHOSEN.format(where=_where(LetterState.OPEN, names))}
    UPDATE dead_letters SET discarded_at = now(), resolved_by = :by, resolved_why = :why
      FROM chosen WHERE dead_letters.id = chosen.id""")


def discard(
    connection: Connection, wanted: LetterFilter, *, limit: int, by: str | None, why: str | None
) -> Resolved:
    """Puts the oldest open letters that match aside: their jobs stay failed, and leave the dead letter queue."""
    values = wanted.values()
    given = values | {"limit": limit, "by": by, "why": why}
    return Resolved(connection.execute(_discard_by(frozenset(values)), given).rowcount)
