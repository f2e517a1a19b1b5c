"""What a job may become: the model that the state machine over the store is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ending import complete, end_again, end_cancelled, end_last
from factories import ERROR
from sqlalchemy import Connection

from webapp.dead_letters.store import move_to_dead_letters
from webapp.jobs import retention
from webapp.jobs.model import Claim
from webapp.jobs.states import FINAL, UNBURNT, AttemptOutcome, JobStatus
from webapp.queues import store as queue_store

#: A message is silent when it was sent longer ago, seconds.
SILENT_AFTER = 60.0
#: A final job is pruned after this time, days.
RETENTION_DAYS = 30
MANY = 100

QUEUED, PROCESSING, CANCELLED = JobStatus.QUEUED, JobStatus.PROCESSING, JobStatus.CANCELLED
FAILED, LOST, RELEASED = AttemptOutcome.FAILED, AttemptOutcome.LOST, AttemptOutcome.RELEASED
SNOOZED = AttemptOutcome.SNOOZED


@dataclass(frozen=True)
class Known:
    """What the model knows of a job. `due` is the transaction whose clock `run_at` shows."""

    key: str | None
    max_retries: int
    due: int
    dispatched: bool
    status: JobStatus = QUEUED
    attempt: int = 0
    retries: int = 0
    worker: str | None = None
    asked: bool = False
    late: bool = False
    silent: bool = False
    old: bool = False
    ends: tuple[tuple[int, str, str], ...] = ()
    letters: int = 0
    in_dlq: bool = False
    generation: int = 0

    @property
    def recorded(self) -> bool:
        return any(attempt == self.attempt for attempt, *_ in self.ends)

    @property
    def runs(self) -> bool:
        return self.status is PROCESSING

    def holds(self, attempt: int) -> bool:
        return self.runs and self.attempt == attempt

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    def claimed(self, worker: str) -> Known:
        return replace(self, status=PROCESSING, attempt=self.attempt + 1, worker=worker, late=False)

    def record(self, outcome: AttemptOutcome) -> Known:
        return replace(self, ends=(*self.ends, (self.attempt, outcome.value, str(self.worker))))

    def final(self, status: JobStatus) -> Known:
        return replace(self, status=status, worker=None, late=False, old=False)

    def again(self, outcome: AttemptOutcome, tick: int) -> Known:
        ended = replace(self.record(outcome), dispatched=False, silent=False)
        if self.asked:
            return ended.final(CANCELLED)
        burnt = int(outcome not in UNBURNT)
        return replace(ended, status=QUEUED, worker=None, late=False, due=tick, retries=self.retries + burnt)

    def dead_lettered(self) -> Known:
        return replace(self.final(JobStatus.FAILED), letters=self.letters + 1, in_dlq=True)

    def requeued(self, tick: int) -> Known:
        fresh = replace(self, status=QUEUED, retries=0, due=tick, dispatched=False, silent=False, old=False)
        return replace(fresh, asked=False, in_dlq=False, generation=self.generation + 1)


#: How an attempt's end is written, beyond the fence: the statement, what else it demands, what it makes of the job.
ENDS: dict[str, tuple[Callable[[Connection, Claim], bool], Callable[[Known], bool], Any]] = {
    "completed": (
        lambda connection, claim: complete(connection, claim, "1"),
        lambda row: not row.recorded,
        lambda row, _: row.record(AttemptOutcome.COMPLETED).final(JobStatus.COMPLETED),
    ),
    "failed": (
        lambda connection, claim: bool(end_again(connection, claim, FAILED, ERROR, delay=0)),
        lambda row: not row.recorded,
        lambda row, tick: row.again(FAILED, tick),
    ),
    "released": (
        lambda connection, claim: bool(end_again(connection, claim, RELEASED, None, delay=0)),
        lambda row: not row.recorded,
        lambda row, tick: row.again(RELEASED, tick),
    ),
    "snoozed": (
        lambda connection, claim: bool(end_again(connection, claim, SNOOZED, None, delay=0)),
        lambda row: not row.recorded,
        lambda row, tick: row.again(SNOOZED, tick),
    ),
    "cancelled": (
        end_cancelled,
        lambda row: row.asked and not row.recorded,
        lambda row, _: row.record(AttemptOutcome.CANCELLED).final(CANCELLED),
    ),
    "last": (
        lambda connection, claim: end_last(connection, claim, FAILED, ERROR) is not None,
        lambda row: not row.recorded,
        lambda row, _: (
            row.record(AttemptOutcome.CANCELLED).final(CANCELLED) if row.asked else row.record(FAILED)
        ),
    ),
    "last and dead-lettered": (
        lambda connection, claim: (
            (status := end_last(connection, claim, FAILED, ERROR)) == CANCELLED
            or (status is not None and move_to_dead_letters(connection, claim.id, claim.attempt) is not None)
        ),
        lambda row: not row.recorded,
        lambda row, _: (
            row.record(AttemptOutcome.CANCELLED).final(CANCELLED)
            if row.asked
            else row.record(FAILED).dead_lettered()
        ),
    ),
    "dead-lettered": (
        lambda connection, claim: move_to_dead_letters(connection, claim.id, claim.attempt) is not None,
        lambda row: row.recorded,
        lambda row, _: row.dead_lettered(),
    ),
}

#: What beat takes with SKIP LOCKED: the statement, and the jobs that fit.
SWEEPS: dict[str, tuple[Callable[[Connection], Any], Callable[[Known], bool]]] = {
    "due": (
        lambda connection: queue_store.take_due(connection, "default", MANY),
        lambda row: row.status is QUEUED and not row.dispatched,
    ),
    "unclaimed": (
        lambda connection: queue_store.take_unclaimed(connection, "default", MANY, SILENT_AFTER),
        lambda row: row.status is QUEUED and row.silent,
    ),
    "prune": (
        lambda connection: retention.prune(connection, days=RETENTION_DAYS, limit=MANY),
        lambda row: row.old,
    ),
}
