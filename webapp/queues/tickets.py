"""Tickets: messages without a job, each good for a moment of work from a queue's backlog.

Where many quick jobs are due, sending a message about each set of them costs the row one more change than its work
does. A ticket names a queue and a task instead; the child that gets it claims what is due, straight from the table and
in its order, runs it, and goes on like that for half a second, or for some where it has a slot of a limit that would be
idle during a hand-over. Nothing is lost with a ticket, one too many finds nothing
to do, and no job waits in Redis behind others that came later.

Like `webapp.queues.store`: functions take a connection and never commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from webapp.flow import lanes
from webapp.infra.broker.hints import Ticket
from webapp.infra.postgres.engine import Statement
from webapp.infra.postgres.prepared import FOR_A_MOMENT
from webapp.infra.postgres.sql_files import read_sql, without_answer
from webapp.jobs.ends import COMPLETED, End, complete_many, is_noted, values_of_completed
from webapp.jobs.model import Claim

_CLAIM_TEXT = read_sql(__file__, "head", "claim")
_CLAIM_DUE = Statement(_CLAIM_TEXT, plan_lasts=FOR_A_MOMENT)
#: The same as `complete_many` and `claim_due` in one statement and one commit: the two texts, each without what it answers.
_END_AND_CLAIM = Statement(
    f"""{COMPLETED},
{without_answer(_CLAIM_TEXT).removeprefix("WITH ")}
SELECT (SELECT count(*) FROM ended), claimed.* FROM (VALUES (1)) AS always LEFT JOIN claimed ON true""",
    plan_lasts=FOR_A_MOMENT,
)
#: The same for jobs in lanes. What ends is counted first, and by that ended: the claim judges by what is left, and comes to the gate
#: with nothing but itself to do.
_END_AND_TAKE = Statement(
    f"""{COMPLETED}
SELECT done.jobs, claimed.*
  FROM (SELECT count(*) AS jobs FROM ended) AS done LEFT JOIN LATERAL ({lanes.TAKE_TEXT}) AS claimed ON done.jobs >= 0"""
)


@dataclass(frozen=True, slots=True)
class ClaimTerms:
    """What a ticket's claim is made with.

    Args:
        limit: jobs at the head of the queue that are looked at.
        worker_id: the process that will run them.
        lease: seconds until the sweeper may take them over.
    """

    limit: int
    worker_id: str
    lease: float


def claim_due(
    connection: Connection, ticket: Ticket, terms: ClaimTerms, *, in_lanes: bool = False
) -> list[Claim]:
    """Takes the leases of the ticket's jobs among the first that are due, the most urgent first.

    Args:
        in_lanes: the jobs are under a limit; then those that it allows.
    """
    values = _claim_values(ticket, terms)
    return _urgent_first(
        lanes.take(connection, values) if in_lanes else _CLAIM_DUE.run(connection, values).rows
    )


def _claim_values(ticket: Ticket, terms: ClaimTerms) -> dict[str, Any]:
    return {
        "queue": ticket.queue,
        "task": ticket.task,
        "timeout": ticket.timeout,
        "limit": terms.limit,
        "worker_id": terms.worker_id,
        "lease": terms.lease,
    }


def _urgent_first(rows: Iterable[tuple[Any, ...]]) -> list[Claim]:
    """Claims in the order in which they run, the most urgent first, then those that have waited longest.

    Args:
        rows: each a priority and a claim.
    """
    claims = [(-row[0], Claim(*row[1:])) for row in rows]
    claims.sort(key=lambda one: (one[0], -one[1].waited))
    return [claim for _, claim in claims]


def end_and_claim(
    connection: Connection,
    done: Sequence[End[Claim]],
    ticket: Ticket,
    terms: ClaimTerms,
    *,
    in_lanes: bool = False,
) -> tuple[int, list[Claim]]:
    """Ends the attempts of a chunk and claims the ticket's next one: `complete_many`, then `claim_due`.

    What ends is processing and what is claimed is queued, so the two halves never meet in a row.

    Args:
        done: those of the same worker's last chunk; all completed their jobs.
        in_lanes: as for `claim_due`. The slot of this process goes on from the one job to the next.

    Returns:
        How many of them had not lost their lease, and the claims.
    """
    if is_noted(done):
        return complete_many(connection, done), claim_due(connection, ticket, terms, in_lanes=in_lanes)
    values = values_of_completed(done) | _claim_values(ticket, terms)
    rows = (_END_AND_TAKE if in_lanes else _END_AND_CLAIM).run(connection, values).rows
    return rows[0][0], _urgent_first(row[1:] for row in rows if row[1] is not None)
