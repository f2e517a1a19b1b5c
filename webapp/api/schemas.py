"""The wire format: what may come in, and what goes out. Everything not named here is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from webapp.access.model import Scope
from webapp.api.unique_schemas import UniqueJob, check_key, check_text
from webapp.infra.jsontext import iso
from webapp.infra.postgres.column_values import LATEST
from webapp.jobs import options
from webapp.jobs.model import JobRow
from webapp.jobs.nesting import MAX_DEPTH, is_deeper, readable
from webapp.jobs.options import Options
from webapp.jobs.states import JobStatus
from webapp.jobs.submission import Submission
from webapp.jobs.tables import MAX_KEY_LENGTH
from webapp.outbound.urls import MAX_URL, written_url

#: Integers PostgreSQL's and most languages' 64 bits can hold.
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**63 - 1
#: Longest reason of a cancellation, characters.
MAX_REASON = 500
#: Largest `offset`.
MAX_OFFSET = 2**31


def keepable(payload: dict[str, Any]) -> dict[str, Any]:
    """Refuses what PostgreSQL or another language could not read back unchanged.

    Raises:
        ValueError: with the path of the offending value.
    """
    if is_deeper(payload, MAX_DEPTH):
        raise ValueError(f"must not be nested deeper than {MAX_DEPTH} levels")
    pending: list[tuple[str, Any]] = [("payload", payload)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                check_text(path, key)
                pending.append((f"{path[:200]}.{key[:50]}", inner))
        elif isinstance(value, list):
            pending.extend((f"{path[:200]}[{index}]", inner) for index, inner in enumerate(value))
        elif isinstance(value, str):
            check_text(path, value)
        elif isinstance(value, int | float):
            _check_number(path, value)
    return payload


def _check_number(path: str, value: float) -> None:
    if isinstance(value, int) and not _MIN_INTEGER <= value <= _MAX_INTEGER:
        raise ValueError(f"{path} must be an integer of at most 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path} must be a finite number")


def _printable_key(value: str) -> str:
    check_key("idempotency_key", value)
    return value


def moment(given: object) -> datetime:
    """A time with an offset, in UTC; no number, and no time of an unknown zone."""
    try:
        if isinstance(given, str) and (parsed := datetime.fromisoformat(given)).tzinfo is not None:
            return parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("must be a time with an offset in ISO 8601, such as 2030-01-01T00:00:00Z")


def _within_a_century(given: datetime) -> datetime:
    if given - datetime.now(UTC) > timedelta(seconds=options.MAX_DELAY):
        raise ValueError("must be at most 100 years ahead")
    return given


def printable(value: str) -> str:
    """Words that can be shown.

    Raises:
        ValueError: they cannot.
    """
    if not value.isprintable() or value != value.strip():
        raise ValueError("must be printable, and neither begin nor end with a space")
    return value


def _each_once(tags: list[str]) -> list[str]:
    if len(set(tags)) < len(tags):
        raise ValueError("must not name a tag twice")
    return tags


class BackoffCurve(BaseModel):
    """The wait before retry n is `base ** n` seconds, at most `max`, less a random share of up to `jitter`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    base: float | None = Field(None, ge=1, le=100)
    max: float | None = Field(None, ge=0, le=options.MAX_BACKOFF_WAIT)
    jitter: float | None = Field(None, ge=0, le=1)


BackoffStep = Annotated[float, Field(ge=0, le=options.MAX_BACKOFF_WAIT)]
BackoffSteps = Annotated[list[BackoffStep], Field(min_length=1, max_length=options.MAX_BACKOFF_STEPS)]
#: What pydantic puts into the path of a field that may have one of two shapes.
SHAPES = ("shape: object", "shape: list")
Backoff = Annotated[
    Annotated[BackoffCurve, Tag(SHAPES[0])] | Annotated[BackoffSteps, Tag(SHAPES[1])],
    Discriminator(lambda given: SHAPES[isinstance(given, (list, tuple))]),
]
Ahead = Annotated[AwareDatetime, BeforeValidator(moment), AfterValidator(_within_a_century)]
Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(printable)]
OneTag = Annotated[str, Field(min_length=1, max_length=options.MAX_TAG_LENGTH), AfterValidator(printable)]


def _keepable_key(value: str) -> str:
    check_key("key", value)
    return value


Tags = Annotated[list[OneTag], Field(max_length=options.MAX_TAGS), AfterValidator(_each_once)]
JobKey = Annotated[
    str, Field(min_length=1, max_length=options.MAX_JOB_KEY_LENGTH), AfterValidator(_keepable_key)
]


class SubmitRequest(BaseModel):
    """The body of `POST /jobs`, and an item of `POST /jobs/batch`; null stands for what was not asked."""

    model_config = ConfigDict(extra="forbid", strict=True)

    payload: Annotated[dict[str, Any], AfterValidator(keepable)]
    idempotency_key: (
        Annotated[str, Field(min_length=1, max_length=MAX_KEY_LENGTH), AfterValidator(_printable_key)] | None
    ) = None
    queue: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    key: JobKey | None = None
    priority: int | None = Field(None, ge=options.LOWEST_PRIORITY, le=options.HIGHEST_PRIORITY)
    run_at: Ahead | None = None
    delay: float | None = Field(None, ge=0, le=options.MAX_DELAY)
    max_retries: int | None = Field(None, ge=0, le=options.MAX_RETRIES)
    backoff: Backoff | None = None
    timeout: float | None = Field(None, gt=0, le=options.MAX_TIMEOUT)
    expires_at: Ahead | None = None
    tags: Tags | None = None
    callback_url: Annotated[str, Field(max_length=MAX_URL), AfterValidator(written_url)] | None = None
    unique: UniqueJob | None = None

    @field_validator("delay")
    @classmethod
    def _one_way_of_waiting(cls, delay: float | None, info: ValidationInfo) -> float | None:
        if delay is not None and info.data.get("run_at") is not None:
            raise ValueError("must not be given together with run_at")
        return delay

    def submission(self, key: str | None) -> Submission:
        """What the domain is asked for, under this idempotency key."""
        asked = self.model_fields_set - {"payload", "idempotency_key"}
        given = {name: value for name in asked if (value := getattr(self, name)) is not None}
        if not given:
            return Submission(self.payload, key)
        if isinstance(self.backoff, BackoffCurve):
            given["backoff"] = self.backoff.model_dump(exclude_none=True)
        if self.tags is not None:
            given["tags"] = tuple(self.tags)
        if self.unique is not None:
            given["unique"] = self.unique.asked()
        return Submission(self.payload, key, Options(**given))


#: Most jobs in one batch.
MAX_BATCH = 10_000


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


class Breach(BaseModel):
    """One rule that a request broke."""

    model_config = ConfigDict(extra="forbid")

    field: str
    rule: str
    given: str


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
