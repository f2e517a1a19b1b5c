"""Runs several quick jobs that came in one message: claimed together, run one after the other, settled together.

Each job is run as `execute_job` would run it: its own attempt, context, time limit, outcome, log lines and metrics. What
is shared is the message and the statements. A job that turns out to be slow does not make the others wait: a timer
settles what is done and hands back what has not begun.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Container, Sequence
from uuid import UUID

from celery.exceptions import Retry as MessageDone
from sqlalchemy import Connection

from tasks.attempt import claims, kept_log, release, run, settle
from tasks.attempt.errors import AttemptFailed
from tasks.attempt.results import Kept
from tasks.attempt.soft_limit import SoftLimit
from tasks.execution import JobsFailed, JobTask
from tasks.processes import process_state, recycling, run_table
from tasks.retrying import DATABASE_ERRORS
from tasks.runtime import Runtime, runtime
from webapp.flow.model import FlowRules
from webapp.infra import prefork
from webapp.infra.broker.client import celery
from webapp.infra.broker.hints import Ticket
from webapp.infra.broker.messages import CHUNK_WINDOW, LONGEST_TICKET, TICKET_WINDOW
from webapp.infra.broker.pace import WORK_IN_A_MESSAGE, WORK_IN_A_SLOT
from webapp.infra.broker.room import waiting_in
from webapp.infra.postgres.database_errors import never_works
from webapp.infra.postgres.engine import in_one_trip
from webapp.infra.telemetry import logs, metrics
from webapp.jobs import ends
from webapp.jobs.ends import End
from webapp.jobs.model import Claim
from webapp.jobs.states import JobStatus
from webapp.queues import store as queue_store
from webapp.queues import tickets

logger = logging.getLogger(__name__)

#: Longest a completed job waits to be settled with others, seconds.
FLUSH_AFTER = 0.2


@celery.task(name="tasks.execute_jobs", base=JobTask, bind=True)  # type: ignore[untyped-decorator] # Celery ships no types
def execute_jobs(self: JobTask, job_ids: list[str]) -> None:
    """Runs the jobs of a chunk that are there to claim."""
    parts = runtime()
    ids = _as_many_as_this_child_may(parts, [UUID(one) for one in job_ids])
    claimed = claims.claim_all(parts, ids)
    if len(claimed) < len(ids):
        metrics.jobs_refused.inc(len(ids) - len(claimed))
    if claimed:
        order = {job_id: place for place, job_id in enumerate(ids)}
        chunk = Chunk(parts, sorted(claimed, key=lambda claim: order[claim.id]))
        chunk.run()
        _tell(chunk.failed, chunk.again)


def _as_many_as_this_child_may(parts: Runtime, ids: list[UUID]) -> list[UUID]:
    """The first of a message's jobs, where this child is to be replaced before all have run; the others are sent again."""
    room = recycling.room()
    if room is None or len(ids) <= room:
        return ids
    rest = ids[room:]
    in_one_trip(parts.engine, lambda connection: queue_store.mark_undispatched(connection, rest))
    return ids[:room]


@celery.task(name="tasks.execute_due", base=JobTask, bind=True)  # type: ignore[untyped-decorator] # Celery ships no types
def execute_due(self: JobTask, queue: str, task: str, timeout: float) -> None:
    """Runs due jobs of one task straight from the backlog, for a moment or until there are none."""
    parts = runtime()
    ticket = Ticket(queue, task, timeout)
    began = time.monotonic()
    end = began + TICKET_WINDOW
    failed = again = 0
    goes_on = True
    claimed = claims.claim_due(parts, ticket)
    while claimed:
        if (now := time.monotonic()) >= end:
            goes_on = now < began + LONGEST_TICKET and _has_slot_to_itself(parts, ticket)
            end = now + TICKET_WINDOW
        chunk = Chunk(parts, claimed, ticket=ticket if goes_on else None)
        claimed = chunk.run()
        failed += chunk.failed
        again += chunk.again
        if not claimed and goes_on:
            claimed = claims.claim_soon(parts, ticket)
    if not goes_on and claims.is_in_lanes(parts, ticket):
        # More may wait, and the slot is free now: the next child need not wait for the dispatcher.
        parts.broker.send_tickets([ticket])
    _tell(failed, again)


def _has_slot_to_itself(parts: Runtime, ticket: Ticket) -> bool:
    """True if this process has a slot of a limit, and no message waits for a child: the slot would be idle during the hand-over."""
    if not claims.is_in_lanes(parts, ticket):
        return False
    waiting = parts.broker.client.ask(lambda client: waiting_in(client, celery.amqp.queues.consume_from))
    return waiting == 0


def _tell(failed: int, again: int) -> None:
    """Ends a message as the worst of what its jobs came to, for Celery and Flower; all of it is settled by then.

    Raises:
        JobsFailed: one failed for good.
        celery.exceptions.Retry: none did, and one was queued again.
    """
    if failed:
        raise JobsFailed(f"{failed} of this message's jobs failed")
    if again:
        words = f"{again} of this message's jobs were queued again"
        raise MessageDone(message=words, exc=JobsFailed(words))


class Chunk:
    """Jobs that one child has claimed together.

    Args:
        parts: this process's parts.
        claims: the jobs, in the order in which they run.
        ticket: where more such jobs wait, to be claimed with the last settle.
        window: seconds after which what has not begun is handed back.
    """

    def __init__(
        self,
        parts: Runtime,
        claims: Sequence[Claim],
        *,
        ticket: Ticket | None = None,
        window: float = CHUNK_WINDOW,
    ) -> None:
        self._parts = parts
        self._ticket = ticket
        self._window = window
        self._claimed_at = time.monotonic()
        self._lock = threading.Lock()
        self._waiting = deque(claims)
        self._task = claims[0].task
        self._kinds = {(claim.queue, claim.task) for claim in claims}
        self._done: list[End[Claim]] = []
        self._flushed_at = self._claimed_at
        #: Jobs that failed for good, and those that were queued for another attempt.
        self.failed = 0
        self.again = 0

    def run(self) -> list[Claim]:
        """Runs them all, or as many as the window and pauses allow; returns the ticket's next jobs."""
        timer = threading.Timer(self._window, self.hand_back)
        timer.daemon = True
        if len(self._waiting) > 1:
            timer.start()
        try:
            with SoftLimit() as limited:
                while (claim := self._next()) is not None:
                    self._run(claim, limited)
                    if self._waiting and time.monotonic() - self._flushed_at > FLUSH_AFTER:
                        self.flush()
            kept_log.flush()
            if (state := process_state.kept()) is not None:
                state.put_back(self._task)
            goes_on = self._ticket is not None and recycling.room() != 0 and self._may_begin()
            return self._settle_and_claim(self._ticket) if self._ticket and goes_on else []
        finally:
            timer.cancel()
            self.hand_back()
            run_table.current().clear()

    def _next(self) -> Claim | None:
        """The next job; None when there is none, and when it was paused: what has not begun is handed back then."""
        if not self._may_begin():
            return None
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def _may_begin(self) -> bool:
        return release.may_begin(self._parts, self._kinds)

    def _run(self, claim: Claim, limited: SoftLimit) -> None:
        began = time.monotonic()
        with settle.attempt_of(claim):
            try:
                kept = run.run_handler(self._parts, claim, limited)
            except AttemptFailed as failed:
                metrics.observe_wait(claim.task, claim.queue, claim.waited + began - self._claimed_at)
                metrics.observe_run(claim.task, claim.queue, time.monotonic() - began)
                status = settle.settle_failed(self._parts, failed)
                self.failed += status is JobStatus.FAILED
                self.again += status is JobStatus.QUEUED
                return
        ended = time.monotonic()
        with self._lock:
            self._done.append(
                ends.completed(
                    claim, kept.text, began - self._claimed_at, ended - self._claimed_at, kept.note
                )
            )

    def flush(self) -> None:
        """Settles what is done, in one statement."""
        if done := self._take_done():
            settle_many(self._parts, done)

    def _settle_and_claim(self, ticket: Ticket) -> list[Claim]:
        """Settles what is done, and claims the ticket's next jobs in the same statement."""
        if done := self._take_done():
            return settle_many(self._parts, done, ticket)
        return claims.claim_due(self._parts, ticket)

    def _take_done(self) -> list[End[Claim]]:
        self._flushed_at = time.monotonic()
        with self._lock:
            done, self._done = self._done, []
        _observe(done)
        return done

    @prefork.held_off()
    def hand_back(self) -> None:
        """Settles what is done and gives back what has not begun, so that nothing waits behind a slow job.

        That job may fork meanwhile: its copy must not have locks of the database's driver that this thread holds.
        """
        with self._lock:
            rest = list(self._waiting)
            self._waiting.clear()
        self.flush()
        if rest:
            release.give_back(self._parts, rest)


def _observe(done: Sequence[End[Claim]]) -> None:
    """Counts what was waited and run, task by task; a chunk has one, or few."""
    of_task: dict[tuple[str, str], list[End[Claim]]] = {}
    for one in done:
        of_task.setdefault((one.held.task, one.held.queue), []).append(one)
    for (task, queue), some in of_task.items():
        waits = [one.held.waited + (one.ran_from or 0.0) for one in some]
        metrics.observe_many(
            task, queue, waits, [(one.ran_until or 0.0) - (one.ran_from or 0.0) for one in some]
        )


def settle_many(parts: Runtime, done: Sequence[End[Claim]], ticket: Ticket | None = None) -> list[Claim]:
    """Writes completed attempts, except those whose lease was lost; returns the next jobs of the ticket, if there is one."""
    ids = {one.held.id for one in done}

    def write(connection: Connection, own: list[Claim], rules: FlowRules) -> tuple[set[UUID], list[Claim]]:
        """What an earlier try settled and claimed, whose answer did not come through, counts as well."""
        following = [claim for claim in own if claim.id not in ids] if ticket else []
        if ticket is None or following or rules.closes(ticket.queue, ticket.task):
            count = ends.complete_many(connection, done)
        else:
            in_lanes = rules.limits(ticket.queue, ticket.task)
            terms = claims.terms_of(parts, ticket, WORK_IN_A_SLOT if in_lanes else WORK_IN_A_MESSAGE)
            count, following = tickets.end_and_claim(connection, done, ticket, terms, in_lanes=in_lanes)
        if count == len(done):
            return ids, following
        return {one.held.id for one in done if ends.status_after(connection, one.held)}, following

    settled: set[UUID] = set()
    following: list[Claim] = []
    try:
        settled, following = claims.until_claimed(parts, write, "attempts could not be settled yet")
    except Exception as error:
        if never_works(error):
            return _settle_each(parts, done, ticket)
        if not isinstance(error, DATABASE_ERRORS):
            raise
    _note_settled(done, settled)
    if groups := {one.held.group_id for one in done if one.held.group_id is not None}:
        parts.advancer.after(groups)
    return following


def _settle_each(parts: Runtime, done: Sequence[End[Claim]], ticket: Ticket | None) -> list[Claim]:
    """Writes attempts one by one, since together with one whose result cannot be stored none is."""
    for one in done:
        with settle.attempt_of(one.held):
            try:
                settle.settle_completed(parts, one.held, Kept(one.result, one.note))
            except AttemptFailed as failed:
                settle.settle_failed(parts, failed)
    return [] if ticket is None else claims.claim_due(parts, ticket)


def _note_settled(done: Sequence[End[Claim]], settled: Container[UUID]) -> None:
    """Counts and logs what was settled, and what had lost its lease."""
    kept = [one for one in done if one.held.id in settled]
    metrics.jobs_completed.inc(len(kept))
    logs.info_each(logger, "job completed", [_about(one) for one in kept])
    if len(kept) == len(done):
        return
    claims.give_up(one.held for one in done if one.held.id not in settled)
    for one in done:
        if one.held.id not in settled:
            metrics.leases_lost.inc()
            logger.error("lease was lost, the attempt's outcome is dropped", extra=_about(one))


def _about(one: End[Claim]) -> dict[str, str | int | float | UUID]:
    """What a line about a job of a chunk says."""
    return {
        **settle.fields_of(one.held),
        "task": one.held.task,
        "waited_seconds": round(one.held.waited + (one.ran_from or 0.0), 3),
    }
