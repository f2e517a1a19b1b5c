"""Claims jobs for this process: those that a message names, or the next ones of a ticket; nothing of what is paused.

A claim whose answer was lost knows its own: it is tried again, and then takes what the first try has claimed as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection

from tasks.processes import recycling
from tasks.retrying import DATABASE_ERRORS, until_database_answers
from tasks.runtime import Runtime, child_name
from webapp.flow import lanes
from webapp.flow.model import FlowRules
from webapp.infra.broker import pace
from webapp.infra.broker.hints import Ticket
from webapp.infra.postgres.engine import in_one_trip
from webapp.jobs import store
from webapp.jobs.model import Claim
from webapp.queues import store as queue_store
from webapp.queues import tickets
from webapp.queues.tickets import ClaimTerms

T = TypeVar("T")

#: Longest a child that just had work waits for what a rate allows next, seconds: its slot would be taken anew else.
LONGEST_REST = 0.05

#: Attempts of this process whose end could not be written, by job and number; as many as a child runs jobs.
_given_up: set[tuple[UUID, int]] = set()


def claim_one(parts: Runtime, job_id: UUID) -> Claim | None:
    """Takes a job's lease and commits; None when it is not queued and due."""
    claims = claim_all(parts, [job_id])
    return claims[0] if claims else None


def claim_all(parts: Runtime, ids: Sequence[UUID]) -> list[Claim]:
    """Takes the leases of those jobs that are queued, due and not paused, and commits.

    What is paused goes back to the dispatcher: its message is gone.

    Raises:
        DBAPIError: the database did not answer for most of a lease.
    """
    taker, lease = child_name(), parts.settings.stuck_job_threshold

    def claim(connection: Connection, own: list[Claim], rules: FlowRules) -> list[Claim]:
        before = [claim for claim in own if claim.id in ids]
        claimed = before + store.claim(connection, ids, worker_id=taker, lease=lease, rules=rules)
        if not rules.is_open and len(claimed) < len(ids):
            queue_store.give_back_paused(connection, ids, rules)
        return claimed

    return until_claimed(parts, claim, "jobs could not be claimed yet")


def until_claimed(parts: Runtime, work: Callable[[Connection, list[Claim], FlowRules], T], said: str) -> T:
    """Does work that claims until it comes through; returns what it returns.

    Args:
        work: gets what this process claimed with an earlier try whose answer was lost, and the rules in force.
        said: the log line when a try failed.

    Raises:
        DBAPIError: the database did not answer for most of a lease.
    """
    again = False

    def once(rules: FlowRules, connection: Connection) -> T:
        nonlocal again
        own = _claimed_before(connection) if again else []
        again = True
        return work(connection, own, rules)

    return until_database_answers(
        # The rules are read before a connection is taken: a child keeps one open.
        lambda: in_one_trip(parts.engine, partial(once, parts.book.rules())),
        parts.settings.stuck_job_threshold,
        said,
    )


def _claimed_before(connection: Connection) -> list[Claim]:
    return [
        claim
        for claim in store.claimed_by(connection, child_name())
        if (claim.id, claim.attempt) not in _given_up
    ]


def give_up(claims: Iterable[Claim]) -> None:
    """Remembers attempts whose end could not be written: should they be met again, they are not run again."""
    _given_up.update((claim.id, claim.attempt) for claim in claims)


def claim_due(parts: Runtime, ticket: Ticket) -> list[Claim]:
    """Claims what is due of a ticket's jobs, as many as make a chunk; none where its queue or task is paused."""
    terms = terms_of(parts, ticket)

    def claim(connection: Connection, own: list[Claim], rules: FlowRules) -> list[Claim]:
        if own or rules.closes(ticket.queue, ticket.task):
            return own
        in_lanes = rules.limits(ticket.queue, ticket.task)
        return tickets.claim_due(connection, ticket, terms, in_lanes=in_lanes)

    return until_claimed(parts, claim, "jobs could not be claimed yet")


def claim_soon(parts: Runtime, ticket: Ticket) -> list[Claim]:
    """Claims what a rate allows within a moment; none where nothing of the ticket's waits for that."""
    if not is_in_lanes(parts, ticket):
        return []
    try:
        pause = in_one_trip(
            parts.engine,
            lambda connection: lanes.seconds_to_next_start(connection, [ticket.queue], LONGEST_REST),
        )
    except DATABASE_ERRORS:
        return []
    if pause is None:
        return []
    time.sleep(pause)
    return claim_due(parts, ticket)


def is_in_lanes(parts: Runtime, ticket: Ticket) -> bool:
    """True if a ticket's jobs lie in lanes; False also where the rules cannot be read."""
    try:
        return parts.book.rules().limits(ticket.queue, ticket.task)
    except DATABASE_ERRORS:
        return False


def terms_of(parts: Runtime, ticket: Ticket, work: float = pace.WORK_IN_A_MESSAGE) -> ClaimTerms:
    """With what this process claims a ticket's jobs: as many as make a chunk, or as it may still run.

    Args:
        work: how much a chunk should be, seconds.
    """
    size, room = parts.broker.paces.chunk_size(ticket.task, work), recycling.room()
    return ClaimTerms(
        size if room is None else min(size, room),
        child_name(),
        parts.settings.stuck_job_threshold,
    )
