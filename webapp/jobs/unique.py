"""What makes a job the only one of its kind for a time, and whether one that was stored before is in its way. Pure.

A unique key is one text for all tasks and queues. The row of `unique_keys` names the job that holds a key; whether that still
counts is read from the job's own row, so nothing has to be given back when a job ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class Unique:
    """What a submission asks, so that its job is the only one.

    Args:
        key: for all tasks and queues.
        states: a job in these states is in its way; None where it did not say.
        seconds: so long the job that is stored holds the key, whatever becomes of it.
        on_conflict: what is answered where no job is made.
    """

    key: str
    states: While | None = None
    seconds: float | None = None
    on_conflict: OnConflict = OnConflict.RETURN

    @property
    def asks(self) -> While | None:
        """The states that count: where nothing is said, all of a job that has not ended; with `for` alone, none."""
        if self.states is None and self.seconds is None:
            return While.UNFINISHED
        return self.states

    def wishes(self) -> dict[str, str | float | None]:
        """What was asked, under the names that a client uses."""
        return {
            "key": self.key,
            "while": self.states,
            "for": self.seconds,
            "on_conflict": self.on_conflict,
        }


@dataclass(frozen=True, slots=True)
class Holder:
    """The job that a key's row names.

    Args:
        job_id: which.
        lasts: the time for which it was to hold the key has not passed.
        status: as its row has it; None where it is not among the jobs that live.
        attempt: its starts so far.
    """

    job_id: UUID
    lasts: bool
    status: str | None
    attempt: int | None


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
    return asked.asks is While.QUEUED and holder.status == JobStatus.QUEUED and holder.attempt == 0


@dataclass(frozen=True, slots=True)
class Placing:
    """Which jobs of some are stored, and which are not.

    Args:
        held: by the id of a job that is not stored, the job that holds its key.
        takers: by key, the job that holds it from now on.
        takes: the ids of all that ask for a key and are stored; others may stand back for each.
    """

    held: dict[UUID, UUID] = field(default_factory=dict)
    takers: dict[str, NewJob] = field(default_factory=dict)
    takes: set[UUID] = field(default_factory=set)


def place(jobs: Iterable[NewJob], holders: Mapping[str, Holder], owned: Collection[str]) -> Placing:
    """Which jobs are stored where some keys are held: of two with one key, the first. Pure.

    Args:
        jobs: in the order in which they were given.
        holders: by unique key, the jobs that hold them so far.
        owned: idempotency keys that were used before; what they were used for answers, so nothing is judged.
    """
    placing, known, used = Placing(), dict(holders), set(owned)
    for job in jobs:
        if job.idempotency_key in used:
            continue
        if (asked := job.unique) is not None:
            holder = known.get(asked.key)
            if holder is not None and counts(holder, asked):
                placing.held[job.id] = holder.job_id
                continue
            known[asked.key] = Holder(job.id, asked.seconds is not None, JobStatus.QUEUED, attempt=0)
            placing.takers[asked.key] = job
            placing.takes.add(job.id)
        if job.idempotency_key is not None:
            used.add(job.idempotency_key)
    return placing
