"""Batches as values: how each stands, how quickly its members end, and what was sent in parts. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from webapp.flow.tenant import DEFAULT_SLUG
from webapp.groups.model import Totals

#: Longest name of a batch, and of a part, characters.
LONGEST_NAME, LONGEST_PART = 200, 200
#: How long a batch takes members where it does not say so, and at most, seconds.
OPEN_FOR, LONGEST_OPEN = 86_400.0, 30 * 86_400.0
#: Batches in each other, the outermost included.
DEEPEST = 10
#: Stands for no member: a part was sent from outside.
OUTSIDE = UUID(int=0)
#: The part that comes with the batch itself; no client can name it.
FIRST_PART = ""

#: Least time by which a rate is computed, seconds.
LEAST_SPAN = 1.0
#: After so many seconds the rate of a batch goes by later counts.
SPAN = 15.0


class Status(StrEnum):
    """How a batch stands."""

    #: It takes members.
    OPEN = "open"
    #: It takes no more, and some have not ended.
    CLOSED = "closed"
    #: All of its members have completed.
    COMPLETED = "completed"
    #: All have ended, some of them failed.
    FAILED = "failed"
    #: All have ended, some were cancelled and none failed, or the batch itself was cancelled.
    CANCELLED = "cancelled"


#: Those of a batch all of whose members have ended.
FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


class Event(StrEnum):
    """What a batch tells of, by a job of its own."""

    #: A member failed, the first one.
    FAILURE = "failure"
    #: It is closed, and all members have ended.
    COMPLETE = "complete"
    #: All members have completed, be it after some were queued again.
    SUCCESS = "success"

    @property
    def option(self) -> str:
        """The option that asks for its job.

        Example:
            >>> Event.SUCCESS.option
            'on_success'
        """
        return f"on_{self.value}"


class Pace(NamedTuple):
    """How many members had ended at two moments; the rate goes by the first one.

    Args:
        since, ended: the first.
        then, ended_then: a later one, which is the first before long.
    """

    since: datetime
    ended: int
    then: datetime
    ended_then: int

    @classmethod
    def of(cls, document: Mapping[str, Any] | None) -> Pace | None:
        """What is kept of it."""
        if not document:
            return None
        since, then = (datetime.fromisoformat(document[name]) for name in ("since", "then"))
        return cls(since, int(document["ended"]), then, int(document["ended_then"]))

    def document(self) -> dict[str, Any]:
        """What is kept."""
        return {
            "since": self.since.isoformat(),
            "ended": self.ended,
            "then": self.then.isoformat(),
            "ended_then": self.ended_then,
        }


def paced(before: Pace | None, now: datetime, ended: int) -> Pace | None:
    """The pace after a count; None: it stays as it is. Pure.

    Example:
        >>> first = datetime(2030, 1, 1)
        >>> paced(Pace(first, 0, first, 0), first + timedelta(seconds=20), 50).ended_then
        50
    """
    if before is None:
        return Pace(now, ended, now, ended)
    if (now - before.then).total_seconds() < SPAN:
        return None
    return Pace(before.then, before.ended_then, now, ended)


def rate_of(pace: Pace | None, now: datetime, ended: int) -> float | None:
    """Members that end in a second, of the last while; None where that is not known. Pure.

    Example:
        >>> first = datetime(2030, 1, 1)
        >>> rate_of(Pace(first, 0, first, 0), first + timedelta(seconds=20), 50)
        2.5
    """
    if pace is None:
        return None
    seconds = (now - pace.since).total_seconds()
    return None if seconds < LEAST_SPAN else max(0.0, ended - pace.ended) / seconds


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch as it stands, with counts that are exact at one moment.

    Args:
        now: that moment.
        totals: what its members have come to.
        options: what was asked when it was made.
        closed_why: why it was closed where no one asked for that.
        deadline: until when it takes members.
    """

    id: UUID
    name: str | None
    status: Status
    tenant_id: int
    submitted_by: int | None
    parent_id: UUID | None
    totals: Totals
    options: Mapping[str, Any]
    complete_job_id: UUID | None
    success_job_id: UUID | None
    failure_job_id: UUID | None
    callback_url: str | None
    callback_job_id: UUID | None
    deadline: datetime | None
    cancel_requested_at: datetime | None
    cancel_reason: str | None
    created_at: datetime
    updated_at: datetime
    closed_at: datetime | None
    closed_why: str | None
    finished_at: datetime | None
    retry_until: datetime | None
    pace: Pace | None
    now: datetime
    tenant: str = DEFAULT_SLUG

    @property
    def ended(self) -> int:
        """How many members have ended."""
        return self.totals.total - self.totals.open

    @property
    def rate(self) -> float | None:
        """Members that end in a second, of the last while; None: not known, or none will."""
        return None if self.status in FINAL else rate_of(self.pace, self.now, self.ended)

    @property
    def expected_at(self) -> datetime | None:
        """When all members will have ended, if they go on so; None where that is not known, as while the batch takes more."""
        if self.status is not Status.CLOSED or not self.rate:
            return None
        seconds = self.totals.open / self.rate
        # A rate of nearly nothing says nothing of when.
        return self.now + timedelta(seconds=seconds) if seconds <= 365 * 86_400 else None


class Member(NamedTuple):
    """A member that adds others from inside: it runs, by this attempt.

    Args:
        job_id, attempt: of the member.
    """

    job_id: UUID
    attempt: int


class PartKey(NamedTuple):
    """Which part of a batch something is: what is sent again under it is answered as before.

    Args:
        name: in the words of its sender.
        member: of which member it is; `OUTSIDE`: of none.
    """

    name: str
    member: UUID = OUTSIDE
