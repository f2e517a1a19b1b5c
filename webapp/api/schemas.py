"""The wire format: what may come in, and what goes out. Everything not named here is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
)

from webapp.access.model import Scope
from webapp.api.breaches import Breach
from webapp.infra.jsontext import iso
from webapp.infra.postgres.column_values import LATEST
from webapp.jobs.model import JobRow
from webapp.jobs.nesting import readable
from webapp.jobs.request import MAX_BATCH, printable
from webapp.jobs.states import JobStatus

#: Largest integer that PostgreSQL's and most languages' 64 bits can hold.
_MAX_INTEGER = 2**63 - 1
#: Longest reason of a cancellation, characters.
MAX_REASON = 500
#: Largest `offset`.
MAX_OFFSET = 2**31


class BatchRequest(BaseModel):
    """The body of `POST /jobs/batch`; each of its jobs is checked on its own."""

    model_config = ConfigDict(extra="forbid", strict=True)

    jobs: Annotated[list[Any], Field(min_length=1, max_length=MAX_BATCH)]


Reason = Annotated[str, Field(min_length=1, max_length=MAX_REASON), AfterValidator(printable)]


class CancelRequest(BaseModel):
    """The body of `POST /jobs/{id}/cancel`; it may be left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Reason | None = None


class RetryRequest(BaseModel):
    """The body of `POST /jobs/{id}/retry`; it may be left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Reason | None = None


#: Longest wait for a job to be final, seconds.
MAX_WAIT = 60.0


class ShowQuery(BaseModel):
    """The query of `GET /jobs/{id}`."""

    model_config = ConfigDict(extra="forbid")

    wait: float = Field(0.0, ge=0, le=MAX_WAIT)


Moment = Annotated[datetime, PlainSerializer(iso, return_type=str)]


def _if_sent(given: datetime | None) -> datetime | None:
    """When a message was sent; the end of time stands for a job that none will name, as its lane has tickets."""
    return None if given is None or given >= LATEST else given


def _as_reported(progress: dict[str, Any] | None) -> dict[str, Any] | None:
    """Progress with numbers as its handler gave them: PostgreSQL keeps what is very large as a long integer."""
    if progress is None:
        return None
    return {
        name: float(value) if isinstance(value, int) and value > _MAX_INTEGER else value
        for name, value in progress.items()
    }


#: The field that says that content was left out of an answer.
REDACTED = "redacted"


def may_be_redacted(schema: dict[str, Any]) -> None:
    """Adds to an answer's schema that what its job carries may have been left out."""
    words = f"True where what its job carries is left out: the key has no scope {Scope.JOBS_CONTENT}."
    schema["properties"][REDACTED] = {"const": True, "description": words}


class JobFields(BaseModel):
    """A job as clients see it in a list; times are ISO 8601 in UTC."""

    model_config = ConfigDict(extra="forbid", from_attributes=True, json_schema_extra=may_be_redacted)

    id: UUID
    status: JobStatus
    task: str
    payload: dict[str, Any] | None
    queue: str
    priority: int
    attempt: int
    retry_count: int
    max_retries: int
    timeout: float
    idempotency_key: str | None
    result: Any
    last_error: str | None
    run_at: Moment
    created_at: Moment
    updated_at: Moment
    last_attempt_at: Moment | None
    finished_at: Moment | None
    tags: list[str]
    expires_at: Moment | None
    backoff: dict[str, float] | list[float] | None
    callback_url: str | None
    callback_job_id: UUID | None
    cancel_reason: str | None
    progress: Annotated[dict[str, Any] | None, BeforeValidator(_as_reported)]
    result_note: str | None
    key: str | None
    tenant: str
    submitted_by: int | None
    group_id: UUID | None
    #: The process that runs it, and until when it may without a word.
    worker_id: str | None
    lease_expires_at: Moment | None
    #: When a message was sent for it.
    dispatched_at: Annotated[Moment | None, BeforeValidator(_if_sent)]
    cancel_requested_at: Moment | None
    request_id: str | None
    traceparent: str | None

    @classmethod
    def of(cls, job: JobRow) -> dict[str, Any]:
        """The JSON-ready form of a job."""
        model = cls._checked(job)
        # These are JSON already; pydantic would copy them, and fails where they are nested deeper than it goes.
        model.payload, model.result = {}, None
        answer = model.model_dump(mode="json")
        answer["payload"], answer["result"] = readable(job.payload), readable(job.result)
        if job.status != JobStatus.CANCELLED:
            # The reason of a cancellation that was asked, and came too late, is not why the job ended.
            answer["cancel_reason"] = None
        return answer

    @classmethod
    def of_new(cls, job: JobRow) -> dict[str, Any]:
        """The same of a job that this very request has stored: nothing in it can have been changed since, so it is not checked."""
        if job.backoff is not None:
            # Its numbers may have been given as integers.
            return cls.of(job)
        answer: dict[str, Any] = {name: getattr(job, name) for name in cls.model_fields}
        answer["id"] = str(job.id)
        answer["dispatched_at"] = _if_sent(job.dispatched_at)
        for name in ("run_at", "created_at", "updated_at", "expires_at", "dispatched_at"):
            if answer[name] is not None:
                answer[name] = iso(answer[name])
        return answer

    @classmethod
    def _checked(cls, job: JobRow) -> Self:
        try:
            return cls.model_validate(job)
        except (ValidationError, AttributeError):
            # Columns that hold anything may have been changed by hand; the rest of the row is shown all the same.
            return cls.model_validate(replace(job, backoff=None, progress=None, tags=[]))


class JobAnswer(JobFields):
    """A job as clients see it by itself: with the unique key that it holds, if it holds one."""

    unique_key: str | None


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    model_config = ConfigDict(extra="forbid")

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str | None = None
    errors: list[Breach] | None = None
    #: Of a 403: the scope that the caller's key lacks.
    missing_scope: str | None = None
    #: Of a 429 whose type is `quota`: which of the caller's key is used up, how much it is and how much of it was used.
    quota: str | None = None
    limit: int | None = None
    used: int | None = None
