"""What makes a job the only one of its kind for a time, and whether one that was stored before is in its way. Pure.

A unique key is one text for all tasks and queues. The row of `unique_keys` names the job that holds a key; whether that still
counts is read from the job's own row, so nothing has to be given back when a job ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final
from uuid import UUID

from webapp.jobs.states import JobStatus

if TYPE_CHECKING:
    from webapp.jobs.submission import NewJob

#: Longest unique key, characters.
MAX_UNIQUE_KEY: Final = 200
#: Longest that a key may be held by `for`, seconds: thirty days.
MAX_HELD_FOR: Final = 30 * 86_400.0
#: Furthest that a job may be put off by those that replace it, seconds from its first submission: thirty days.
MAX_WAIT: Final = 30 * 86_400.0


class While(StrEnum):
    """As long as which a job that was stored before is in the way."""

    #: It waits, and has never begun.
    QUEUED = "queued"
    #: It has not ended: it waits, runs, or is tried again.
    UNFINISHED = "unfinished"


class OnConflict(StrEnum):
    """What a submission is answered that makes no job."""

    #: The job that holds the key.
    RETURN = "return"
    #: A refusal that names it.
    REFUSE = "refuse"
    #: The job that holds the key, which is from now on what this submission asks for; one that was started stays as it is.
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class Unique:
    """What a submission asks, so that its job is the only one.

    Args:
        key: for all tasks and queues.
        states: a job in these states is in its way; None where it did not say.
        seconds: so long the job that is stored holds the key, whatever becomes of it.
        on_conflict: what is answered where no job is made.
        max_wait: seconds after its first submission at which a job that is replaced is due at the latest; None: there is no
            such bound.
    """

    key: str
    states: While | None = None
    seconds: float | None = None
    on_conflict: OnConflict = OnConflict.RETURN
    max_wait: float | None = None

    @property
    def asks(self) -> While | None:
        """The states that count: where nothing is said, all of a job that has not ended; with `for` alone, none.

        Only a job that was never started can be replaced.
        """
        if self.on_conflict is OnConflict.REPLACE:
            return While.QUEUED
        if self.states is None and self.seconds is None:
            return While.UNFINISHED
        return self.states

    def wishes(self) -> dict[str, str | float | None]:
        """What was asked, under the names that a client uses; the same text as that of a release that knows no `max_wait`."""
        asked = {
            "key": self.key,
            "while": self.states,
            "for": self.seconds,
            "on_conflict": self.on_conflict,
        }
        return asked if self.max_wait is None else asked | {"max_wait": self.max_wait}


@dataclass(frozen=True, slots=True)
class Holder:
    """The job that a key's row names.

    Args:
        job_id: which.
        lasts: the time for which it was to hold the key has not passed.
        status: as its row has it; None where it is not among the jobs that live.
        attempt: its starts so far.
        is_reached: it is of a queue that the caller reaches; one that is not is never replaced.
    """

    job_id: UUID
    lasts: bool
    status: str | None
    attempt: int | None
    is_reached: bool = True

    @property
    def was_never_started(self) -> bool:
        """True if the job waits for its first attempt."""
        return self.status == JobStatus.QUEUED and self.attempt == 0


def counts(holder: Holder, asked: Unique) -> bool:
    """True if a key's holder is in the way of a submission that asks for the key. Pure.

    Example:
        >>> waits = Holder(UUID(int=1), lasts=False, status="queued", attempt=1)
        >>> counts(waits, Unique("k")), counts(waits, Unique("k", While.QUEUED))
        (True, False)
    """
    if holder.lasts:
        return True
    if asked.asks is While.UNFINISHED:
        return holder.status in {JobStatus.QUEUED, JobStatus.PROCESSING}
    return asked.asks is While.QUEUED and holder.was_never_started


@dataclass(frozen=True, slots=True)
class Placing:
    """Which jobs of some are stored, and which are not.

    Args:
        held: by the id of a job that is not stored, the job that holds its key.
        takers: by key, the job that holds it from now on.
        takes: the ids of all that ask for a key and are stored; others may stand back for each.
        replacing: by the id of a job that is not stored, the job that it replaces.
        changes: by the id of a job that was there before, what it is from now on: the last of those that replace it.
        stored: those that are stored, as they are after others of them have replaced them.
    """

    held: dict[UUID, UUID] = field(default_factory=dict)
    takers: dict[str, NewJob] = field(default_factory=dict)
    takes: set[UUID] = field(default_factory=set)
    replacing: dict[UUID, UUID] = field(default_factory=dict)
    changes: dict[UUID, NewJob] = field(default_factory=dict)
    stored: dict[UUID, NewJob] = field(default_factory=dict)

    def _replace(self, holder: UUID, job: NewJob) -> None:
        """Has a job be what another one asks for."""
        self.replacing[job.id] = holder
        if (first := self.stored.get(holder)) is None:
            self.changes[holder] = replace(job, id=holder)
        else:
            self.stored[holder] = replace(
                job,
                id=holder,
                idempotency_key=first.idempotency_key,
                fingerprint=first.fingerprint,
                unique=first.unique,
            )

    def judge(self, job: NewJob, asked: Unique, holder: Holder | None) -> Holder | None:
        """Has a job hold its key, replace the one that holds it, or stand back; returns who holds it then, if that is another."""
        if holder is None or not counts(holder, asked):
            self.takers[asked.key] = job
            self.takes.add(job.id)
            return Holder(job.id, asked.seconds is not None, JobStatus.QUEUED, attempt=0)
        if asked.on_conflict is OnConflict.REPLACE and holder.was_never_started and holder.is_reached:
            self._replace(holder.job_id, job)
        else:
            self.held[job.id] = holder.job_id
        return None


def place(jobs: Iterable[NewJob], holders: Mapping[str, Holder], owned: Collection[str]) -> Placing:
    """Which jobs are stored where some keys are held: of two with one key the first, with what a later one replaces it by. Pure.

    Args:
        jobs: in the order in which they were given.
        holders: by unique key, the jobs that hold them so far.
        owned: idempotency keys that were used before; what they were used for answers, so nothing is judged.
    """
    placing, known, used = Placing(), dict(holders), set(owned)
    for job in jobs:
        if job.idempotency_key not in used:
            if (asked := job.unique) is not None:
                taken = placing.judge(job, asked, known.get(asked.key))
                known |= {asked.key: taken} if taken is not None else {}
            if job.idempotency_key is not None and job.id not in placing.held:
                used.add(job.idempotency_key)
        if job.id not in placing.held and job.id not in placing.replacing:
            placing.stored[job.id] = job
    return placing
