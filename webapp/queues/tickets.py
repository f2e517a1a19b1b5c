"""Tickets: messages without a job, each good for a moment of work from a queue's backlog.

Where many quick jobs are due, sending a message about each set of them costs the row one more change than its work
does. A ticket names a queue and a task instead; the child that gets it claims what is due, straight from the table and
in its order, runs it, and goes on like that for half a second. Nothing is lost with a ticket, one too many finds nothing
to do, and no job waits in Redis behind others that came later.

Like `webapp.jobs.store`, of which this is a part: functions take a connection and never commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from webapp.infra.broker.hints import Ticket
from webapp.infra.postgres.engine import Statement
from webapp.jobs.ends import ENDED_AND_RECORDED, End, values_of
from webapp.jobs.store import CLAIMED, CLAIMS, IN_TIME, Claim
from webapp.queues.plan import LOOKED_AT, Waiting

#: The head of a queue: what is due and was never sent, the most urgent first.
_HEAD = f"""FROM jobs
             WHERE queue = :queue AND status = 'queued' AND dispatched_at IS NULL AND run_at <= now()
               AND {IN_TIME}
             ORDER BY priority DESC, run_at
             LIMIT :limit"""

_LOOK_AT_HEAD = text(f"""
    SELECT task, count(*), max(timeout), max(priority) FROM (SELECT task, timeout, priority {_HEAD}) AS head
     GROUP BY task""")


def look_at_head(connection: Connection, queue: str, limit: int = LOOKED_AT) -> dict[str, Waiting]:
    """What is due at the head of a queue, by task; takes nothing and locks nothing."""
    rows = connection.execute(_LOOK_AT_HEAD, {"queue": queue, "limit": limit})
    return {row[0]: Waiting(*row[1:]) for row in rows}


_COUNT_NAMED = text("""
    SELECT count(*) FROM (
        SELECT FROM jobs WHERE queue = :queue AND status = 'queued' AND dispatched_at IS NOT NULL LIMIT :limit) AS named""")


def count_named(connection: Connection, queue: str, limit: int) -> int:
    """How many waiting jobs have a message that names them, counted up to `limit`: the other messages are tickets."""
    return int(connection.execute(_COUNT_NAMED, {"queue": queue, "limit": limit}).scalar_one())


_HEAD_TAKEN = f"head AS (SELECT id AS head_id, task AS head_task, timeout AS head_timeout {_HEAD} FOR UPDATE SKIP LOCKED)"
_CLAIM_HEAD = f"""UPDATE jobs SET {CLAIMED}
      FROM head
     WHERE id = head_id AND head_task = :task AND head_timeout <= :timeout
    RETURNING priority, {CLAIMS}"""
_CLAIM_DUE = Statement(f"WITH {_HEAD_TAKEN} {_CLAIM_HEAD}")


@dataclass(frozen=True, slots=True)
class Taker:
    """Who works on a ticket, and how much at once.

    Args:
        limit: jobs at the head of the queue that are looked at.
        worker_id: the process that will run them.
        lease: seconds until the sweeper may take them over.
    """

    limit: int
    worker_id: str
    lease: float


def claim_due(connection: Connection, ticket: Ticket, taker: Taker) -> list[Claim]:
    """Takes the leases of the ticket's jobs among the first that are due, the most urgent first."""
    return _urgent_first(_CLAIM_DUE.run(connection, _claim_values(ticket, taker)).rows)


def _claim_values(ticket: Ticket, taker: Taker) -> dict[str, Any]:
    return {
        "queue": ticket.queue,
        "task": ticket.task,
        "timeout": ticket.timeout,
        "limit": taker.limit,
        "worker_id": taker.worker_id,
        "lease": taker.lease,
    }


def _urgent_first(rows: Iterable[tuple[Any, ...]]) -> list[Claim]:
    """Claims in the order in which they run, the most urgent first, then those that have waited longest.

    Args:
        rows: each a priority and a claim.
    """
    claims = [(-row[0], Claim._make(row[1:])) for row in rows]
    claims.sort(key=lambda one: (one[0], -one[1].waited))
    return [claim for _, claim in claims]


#: The same as `end_attempts` and `claim_due`, in one statement and one commit.
_END_AND_CLAIM = Statement(f"""{ENDED_AND_RECORDED}, {_HEAD_TAKEN}, claimed AS ({_CLAIM_HEAD})
    SELECT (SELECT count(*) FROM recorded), claimed.* FROM (VALUES (1)) AS always LEFT JOIN claimed ON true""")


def end_and_claim(
    connection: Connection, ends: Sequence[End[Claim]], ticket: Ticket, taker: Taker
) -> tuple[int, list[Claim]]:
    """Ends the attempts of a chunk and claims the ticket's next one: `end_attempts`, then `claim_due`.

    What ends is processing and what is claimed is queued, so the two halves never meet in a row.

    Args:
        ends: those of the same worker's last chunk.

    Returns:
        How many of them had not lost their lease, and the claims.
    """
    values = values_of(ends) | _claim_values(ticket, taker)
    rows = _END_AND_CLAIM.run(connection, values).rows
    return rows[0][0], _urgent_first(row[1:] for row in rows if row[1] is not None)
