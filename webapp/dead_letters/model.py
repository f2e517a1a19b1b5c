"""What is known of dead letters, and what may be asked of them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from webapp.audit.model import Act, Event, Named
from webapp.flow.reach import Reach
from webapp.infra.postgres.literals import array_of, text_array_of

#: Most jobs of a selection that are named on record; the dead letters themselves say by whom each was dealt with.
MOST_NAMED = 100


class DeadLetterState(StrEnum):
    """What became of a dead letter."""

    #: No one has dealt with it.
    OPEN = "open"
    #: Its job was queued again.
    REQUEUED = "requeued"
    #: It was put aside; its job stays failed.
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class NewDeadLetter:
    """A job that has just gone to the dead letter queue; `tenant` is the name of its tenant where that is not the default one."""

    id: UUID
    task: str
    queue: str
    reason: str
    request_id: str | None = None
    traceparent: str | None = None
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters are wanted: all that is given must hold; None stands for any.

    Args:
        reason: `exhausted` or `discarded` (by the handler).
        error_type: the exception's class, with its module.
        fingerprint: the same for errors that differ in numbers and ids only.
        dead_after: at this moment or later.
        dead_before: earlier than this moment.
        ids: of jobs.
        queues: of jobs of one of these; of none, nothing is wanted.
        tenant: of jobs of the tenant with this number.
    """

    state: DeadLetterState | None = DeadLetterState.OPEN
    task: str | None = None
    queue: str | None = None
    reason: str | None = None
    error_type: str | None = None
    fingerprint: str | None = None
    dead_after: datetime | None = None
    dead_before: datetime | None = None
    ids: tuple[UUID, ...] | None = None
    queues: tuple[str, ...] | None = None
    tenant: int | None = None

    @property
    def is_tallied(self) -> bool:
        """True if tallies know how many match: open letters, by what makes them alike."""
        beyond = (self.reason, self.dead_after, self.dead_before, self.ids)
        return self.state is DeadLetterState.OPEN and all(one is None for one in beyond)

    def within(self, reach: Reach) -> DeadLetterFilter:
        """The same, of what a caller reaches."""
        queue, queues = reach.narrowed(self.queue)
        return replace(self, queue=queue, queues=queues, tenant=reach.number)

    def values(self) -> dict[str, Any]:
        """The values of its conditions, by name."""
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        given["state"] = "any" if self.state is None else self.state.value
        if self.queues is None:
            del given["queues"]
        else:
            given["queues"] = text_array_of(self.queues)
        if self.tenant is None:
            del given["tenant"]
        given["ids"] = None if self.ids is None else array_of(self.ids)
        return given


@dataclass(frozen=True, slots=True)
class DeadLetter:
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


@dataclass(frozen=True, slots=True)
class Group:
    """Dead letters of the same error: how many, since when, and the newest of them as a sample."""

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


@dataclass(frozen=True, slots=True)
class ResolveRequest:
    """What should become of the dead letters that match.

    Args:
        wanted: which.
        dry_run: only count them.
        rate: jobs that become due in a second; None: all at once.
        start_at: when the first is due; None: now.
        by: who asks.
        why: why.
    """

    wanted: DeadLetterFilter
    dry_run: bool = False
    rate: float | None = None
    start_at: datetime | None = None
    by: str | None = None
    why: str | None = None

    @property
    def gap(self) -> float:
        """Seconds between one job and the next to be due."""
        return 0.0 if self.rate is None else 1.0 / self.rate


def act_of(event: Event, request: ResolveRequest, matched: int, changed: int) -> Act:
    """What goes on record of a request that was dealt with, or of one batch of it. Pure.

    Args:
        matched: how many it was about.
        changed: how many were dealt with.
    """
    ids = request.wanted.ids
    details: dict[str, Any] = {
        one.name: value.isoformat() if isinstance(value, datetime) else value
        for one in fields(request.wanted)
        if one.name not in {"ids", "state", "tenant"}
        and (value := getattr(request.wanted, one.name)) is not None
    }
    if ids is not None and len(ids) > 1:
        details = {"ids": [str(one) for one in ids[:MOST_NAMED]], "selected": len(ids)}
    elif ids is None:
        details = {"filter": details}
    target = Named("job", str(ids[0])) if ids is not None and len(ids) == 1 else None
    return Act(event, target, matched, changed, request.why, request.by, details)


@dataclass(frozen=True, slots=True)
class Resolved:
    """How many dead letters one batch dealt with; `last_run_at` is when the last of their jobs is due."""

    count: int
    last_run_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the dead letters that a request was about.

    Args:
        matched: those that matched when the request came.
        changed: those that were dealt with.
        more: whether the same request should be sent again to deal with the rest; never after a dry run.
        last_run_at: when the last requeued job is due.
        next_start_at: the `start_at` with which the same request goes on at the same rate.
    """

    matched: int
    changed: int
    more: bool
    last_run_at: datetime | None = None
    next_start_at: datetime | None = None
