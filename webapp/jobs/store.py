"""Runs the statements about one job's life: look it up, claim it, hold its lease, follow it. Ends are in `webapp.jobs.ends`.

Functions take a connection and never commit: their callers own the transaction. Times are PostgreSQL's alone (`now()`), so a
worker's wrong clock changes nothing. A write that its guard refuses changes no row and says so; it never raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from webapp.flow.model import OPEN, FlowRules
from webapp.flow.reach import Reach
from webapp.flow.reached import Reached, reach_values
from webapp.flow.tenant import DEFAULT_SLUG
from webapp.infra.postgres.engine import Statement
from webapp.infra.postgres.literals import array_of
from webapp.infra.postgres.prepared import FOR_LONG
from webapp.infra.postgres.sql_files import read_sql
from webapp.jobs import retention
from webapp.jobs.loss import SPARED
from webapp.jobs.model import AttemptRow, Claim, JobRow, LeasedJob

_FIND = Reached(__file__, "find_job", "find")
_FIND_ENDED = text(read_sql(__file__, "find_job", "find_ended"))
_CLAIM = Statement(read_sql(__file__, "claim", "claim", without=["paused"]), plan_lasts=FOR_LONG)
#: Where something is paused.
_CLAIM_OPEN = Statement(read_sql(__file__, "claim", "claim"), plan_lasts=FOR_LONG)
_CLAIMED_BY = Statement(read_sql(__file__, "claim", "claimed_by"))
_RENEW, _HOLDERS, _TAKE_EXPIRED, _TAKE_HELD_BY, _SECONDS_SINCE_START = (
    text(read_sql(__file__, "leases", name))
    for name in ("renew", "holders", "take_expired", "take_held_by", "seconds_since_start")
)
_ATTEMPTS = text(read_sql(__file__, "attempts"))
_WATCH = text(read_sql(__file__, "watch"))
_TENANT_OF = text(read_sql(__file__, "tenant_of"))
_NOTE_PROGRESS = text(read_sql(__file__, "note_progress"))


def find(connection: Connection, job_id: UUID, reach: Reach) -> JobRow | None:
    """One job, or None.

    Args:
        reach: one that is not within is not there.

    Of history the days after its submission are looked through, as its id says. Only where that finds none, all of it is: the job
    may have waited long, and the clock that made the id may have been wrong.
    """
    for since, until in (retention.ends_within(job_id), (retention.BEGINNING, retention.END)):
        values = {"id": job_id, "since": since, "until": until} | reach_values(reach)
        row = connection.execute(_FIND.by(reach), values).first()
        if row is not None:
            return JobRow.of(row)
    return None


def find_ended(connection: Connection, job_id: UUID) -> JobRow | None:
    """One job that has ended, or None."""
    row = connection.execute(_FIND_ENDED, {"id": job_id}).first()
    return JobRow.of(row) if row else None


def claim(
    connection: Connection, ids: Sequence[UUID], *, worker_id: str, lease: float, rules: FlowRules = OPEN
) -> list[Claim]:
    """Takes the lease of those jobs that are queued, due, not paused and not expired; others are duplicates, stale or cancelled.

    Args:
        worker_id: the process that will run them.
        lease: seconds until the sweeper may take them over.
        rules: those in force.
    """
    values: dict[str, Any] = {"ids": array_of(ids), "worker_id": worker_id, "lease": lease}
    if rules.is_open:
        found = _CLAIM.run(connection, values)
    else:
        closed = {
            "closed_queues": list(rules.barred_queues),
            "closed_tasks": list(rules.barred_tasks),
        }
        found = _CLAIM_OPEN.run(connection, values | closed)
    return [Claim(*row) for row in found.rows]


def claimed_by(connection: Connection, worker_id: str) -> list[Claim]:
    """What a process has claimed and not settled, the most urgent first: for one that did not hear the answer to its claim."""
    return [Claim(*row) for row in _CLAIMED_BY.run(connection, {"worker_id": worker_id}).rows]


def renew(connection: Connection, ids: Sequence[UUID], *, workers: Sequence[str], lease: float) -> set[UUID]:
    """Prolongs the leases that these processes hold on these jobs; returns the jobs that are still theirs."""
    rows = connection.execute(_RENEW, {"ids": array_of(ids), "workers": list(workers), "lease": lease})
    return {row.id for row in rows}


def take_stuck(connection: Connection, limit: int) -> list[LeasedJob]:
    """Locks jobs whose lease ran out.

    Args:
        limit: how many of them are looked at; the others of their holders come with them.
    """
    values = {"limit": limit, "spared": SPARED.type}
    return [LeasedJob(*row) for row in connection.execute(_TAKE_EXPIRED, values)]


def holders(connection: Connection, family: str) -> list[str]:
    """The processes of one worker that hold a job; their ids begin with `family`."""
    return list(connection.execute(_HOLDERS, {"family": family}).scalars())


def take_held_by(connection: Connection, workers: Sequence[str]) -> list[LeasedJob]:
    """Locks the jobs that these processes hold, a chunk each at most; their callers know that the processes are dead."""
    values = {"workers": list(workers), "spared": SPARED.type}
    return [LeasedJob(*row) for row in connection.execute(_TAKE_HELD_BY, values)]


def seconds_since_start(connection: Connection) -> float:
    """How long this PostgreSQL has been up: live workers need one lease after a restart to renew theirs."""
    return float(connection.execute(_SECONDS_SINCE_START).scalar_one())


def attempts(
    connection: Connection, job_id: UUID, ended_at: datetime | None, *, before: int, limit: int, room: int
) -> tuple[list[AttemptRow], bool]:
    """A job's attempts from the newest on, the running one among them; and whether there may be more.

    Args:
        ended_at: when the job ended; None: it lives.
        before: only attempts with a smaller number.
        limit: most attempts.
        room: largest page, bytes of messages and tracebacks.
    """
    values = {"id": job_id, "finished_at": ended_at, "before": before, "limit": limit, "room": room}
    rows = connection.execute(_ATTEMPTS, values).all()
    found = rows[0].found if rows else 0
    return [AttemptRow(*row[:-1]) for row in rows], found == limit or len(rows) < found


def tenant_of(connection: Connection, job_id: UUID) -> str:
    """The name of the tenant of a job that has not ended."""
    found: str | None = connection.execute(_TENANT_OF, {"id": job_id}).scalar()
    return found or DEFAULT_SLUG


def watch(connection: Connection, job_id: UUID) -> None:
    """Makes a job that is not final tell of its changes, on the channel `djps_watched`."""
    connection.execute(_WATCH, {"id": job_id})


def note_progress(
    connection: Connection, job_id: UUID, attempt: int, *, done: float, total: float | None, note: str
) -> bool:
    """Writes how far an attempt is; False when it is not this attempt's job any more."""
    values = {"id": job_id, "attempt": attempt, "done": done, "total": total, "note": note}
    return connection.execute(_NOTE_PROGRESS, values).rowcount == 1
