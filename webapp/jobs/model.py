"""Jobs as values: the row, a lease on one attempt, an attempt's record. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from webapp.flow.tenant import DEFAULT_SLUG, told

#: Largest number of an attempt: PostgreSQL's integer.
MAX_ATTEMPT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as it stands in the table."""

    id: UUID
    task: str
    payload: dict[str, Any]
    queue: str
    priority: int
    status: str
    attempt: int
    retry_count: int
    max_retries: int
    timeout: float
    run_at: datetime
    dispatched_at: datetime | None
    lease_expires_at: datetime | None
    worker_id: str | None
    idempotency_key: str | None
    result: Any
    last_error: str | None
    created_at: datetime
    updated_at: datetime
    last_attempt_at: datetime | None
    finished_at: datetime | None
    tags: list[str]
    expires_at: datetime | None
    backoff: dict[str, float] | list[float] | None
    callback_url: str | None
    callback_job_id: UUID | None
    cancel_reason: str | None
    progress: dict[str, Any] | None
    result_note: str | None
    key: str | None = None
    #: The name of the tenant whose it is.
    tenant: str = DEFAULT_SLUG
    #: The number of the key of the API by which it came.
    submitted_by: int | None = None
    #: The batch or workflow that it belongs to.
    group_id: UUID | None = None
    #: When a running attempt was asked to stop.
    cancel_requested_at: datetime | None = None
    #: The request that brought it, and the trace that it belongs to.
    request_id: str | None = None
    traceparent: str | None = None
    #: The unique key that it holds; known where the job is read by itself.
    unique_key: str | None = None
    #: How its payload begins, and how much room payload and result take; known where a list asks for them.
    payload_preview: str | None = None
    payload_bytes: int | None = None
    result_bytes: int | None = None

    @classmethod
    def of(cls, row: Sequence[Any]) -> JobRow:
        """A job as it is read: with a tenant's name where that is not the default one, whose keys are kept as they were given."""
        job = cls(*row)
        if job.tenant is None:
            return replace(job, tenant=DEFAULT_SLUG)
        given: dict[str, Any] = {name: told(key) for name in KEYS if (key := getattr(job, name)) is not None}
        return replace(job, **given)


#: The fields of a job that are kept behind a tenant's mark.
KEYS = ("idempotency_key", "key", "unique_key")


class Claim(NamedTuple):
    """A lease on one attempt of a job: `attempt` is the fence that every later write must show."""

    id: UUID
    task: str
    payload: dict[str, Any]
    queue: str
    attempt: int
    retry_count: int
    max_retries: int
    timeout: float
    worker_id: str
    waited: float
    request_id: str | None
    backoff: dict[str, float] | list[float] | None = None
    traceparent: str | None = None
    callback_of: UUID | None = None
    #: The batch or workflow that it belongs to; not said of one that waited in a lane.
    group_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class LeasedJob:
    """A job that is processing in the hands of a process that is gone, or may be.

    Args:
        recorded: True when this attempt's end is already written.
        spared: how many attempts its process died in without running it.
    """

    id: UUID
    task: str
    queue: str
    attempt: int
    retry_count: int
    max_retries: int
    worker_id: str
    recorded: bool
    request_id: str | None = None
    traceparent: str | None = None
    backoff: dict[str, float] | list[float] | None = None
    spared: int = 0


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt; `outcome` and `ended_at` are None while it runs."""

    attempt: int
    worker_id: str
    outcome: str | None
    started_at: datetime
    ended_at: datetime | None
    error_type: str | None
    error_message: str | None
    traceback: str | None


class CancelAnswer(StrEnum):
    """What asking for a job's cancellation led to."""

    #: The job was waiting and is cancelled; it will not run.
    CANCELLED = "cancelled"
    #: The job runs: its attempt is asked to stop, now or before, and no other will follow.
    ASKED = "asked"
    #: The job is final or unknown, or its last attempt has failed already; nothing was changed.
    NOTHING = "nothing"
