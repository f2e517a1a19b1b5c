"""The wire format of batches: what one is made of, what is added to it, and how it is steered."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from webapp.api.page_schemas import Fields
from webapp.api.schemas import MAX_WAIT, Reason
from webapp.batches.model import (
    LONGEST_NAME,
    LONGEST_OPEN,
    LONGEST_PART,
    OPEN_FOR,
    Event,
    Member,
    Status,
)
from webapp.batches.requests import Wanted
from webapp.jobs import options
from webapp.jobs.model import MAX_ATTEMPT
from webapp.jobs.options import NO_OPTIONS, Options
from webapp.jobs.request import MAX_BATCH, Backoff, BackoffCurve, JobKey, Tags, keepable, printable
from webapp.jobs.states import JobStatus
from webapp.jobs.submission import Submission
from webapp.outbound.urls import MAX_URL, written_url

BatchName = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME), AfterValidator(printable)]
PartName = Annotated[str, Field(min_length=1, max_length=LONGEST_PART), AfterValidator(printable)]
#: An id in a body, where it is a text.
Id = Annotated[UUID, Field(strict=False)]
CallbackURL = Annotated[str, Field(max_length=MAX_URL), AfterValidator(written_url)]
#: How lists of a request's own jobs are compared.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def digest(given: object) -> bytes:
    """SHA-256 of JSON in a canonical form: the order of keys and the white space do not count.

    Example:
        >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(_CANONICAL.encode(given).encode()).digest()


class EventJob(BaseModel):
    """A job that tells of a batch: its payload gets the batch under `batch`. It is made once, and is no member."""

    model_config = ConfigDict(extra="forbid", strict=True)

    payload: Annotated[dict[str, Any], AfterValidator(keepable)]
    queue: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    key: JobKey | None = None
    priority: int | None = Field(None, ge=options.LOWEST_PRIORITY, le=options.HIGHEST_PRIORITY)
    delay: float | None = Field(None, ge=0, le=options.MAX_DELAY)
    max_retries: int | None = Field(None, ge=0, le=options.MAX_RETRIES)
    backoff: Backoff | None = None
    timeout: float | None = Field(None, gt=0, le=options.MAX_TIMEOUT)
    tags: Tags | None = None
    callback_url: CallbackURL | None = None

    def submission(self) -> Submission:
        """What the domain is asked for."""
        asked = self.model_fields_set - {"payload"}
        given = {name: value for name in asked if (value := getattr(self, name)) is not None}
        if isinstance(self.backoff, BackoffCurve):
            given["backoff"] = self.backoff.model_dump(exclude_none=True)
        if self.tags is not None:
            given["tags"] = tuple(self.tags)
        return Submission(self.payload, None, Options(**given) if given else NO_OPTIONS)


class MemberOf(BaseModel):
    """A member that adds others from inside: it runs, in this attempt."""

    model_config = ConfigDict(extra="forbid", strict=True)

    job_id: Id
    attempt: int = Field(ge=1, le=MAX_ATTEMPT)

    def member(self) -> Member:
        """What the domain is told."""
        return Member(self.job_id, self.attempt)


Jobs = Annotated[list[Any], Field(min_length=1, max_length=MAX_BATCH)]


class CreateBatchRequest(BaseModel):
    """The body of `POST /batches`; null stands for what was not asked."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: BatchName | None = None
    on_complete: EventJob | None = Field(None, description="Made once all members have ended, however.")
    on_success: EventJob | None = Field(None, description="Made once all members have completed.")
    on_failure: EventJob | None = Field(None, description="Made at the first member that fails.")
    callback_url: CallbackURL | None = None
    jobs: Jobs | None = Field(None, description="Members that come with it; each is checked by itself.")
    close: bool = Field(default=False, description="It takes no more than these.")
    open_for: float = Field(OPEN_FOR, ge=1, le=LONGEST_OPEN, description="Seconds that it takes members.")
    parent: Id | None = Field(None, description="The batch that it is a member of.")
    member: MemberOf | None = Field(None, description="Of the parent, where that is closed.")

    def wanted(self, key: str | None, body: object) -> Wanted:
        """What the domain is asked for.

        Args:
            key: of the request.
            body: as it was sent.
        """
        asked = {event: getattr(self, event.option) for event in Event}
        return Wanted(
            self.name,
            {event: job.submission() for event, job in asked.items() if job is not None},
            self.callback_url,
            self.open_for,
            close=self.close,
            parent=self.parent,
            member=None if self.member is None else self.member.member(),
            idempotency_key=key,
            fingerprint=b"" if key is None else digest(body),
        )


class AddRequest(BaseModel):
    """The body of `POST /batches/{batch_id}/jobs`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    part: PartName = Field(description="The same part with the same jobs is answered as before.")
    jobs: Jobs
    member: MemberOf | None = Field(
        None, description="Adds them from inside, also where the batch is closed."
    )


class BatchesQuery(BaseModel):
    """The query of `GET /batches`."""

    model_config = ConfigDict(extra="forbid")

    status: Status | None = None
    name: BatchName | None = None
    parent: UUID | None = None
    limit: int = Field(20, ge=1, le=100)
    cursor: UUID | None = None


class ShowBatchQuery(BaseModel):
    """The query of `GET /batches/{batch_id}`."""

    model_config = ConfigDict(extra="forbid")

    wait: float = Field(0.0, ge=0, le=MAX_WAIT)


class MembersQuery(BaseModel):
    """The query of `GET /batches/{batch_id}/jobs`."""

    model_config = ConfigDict(extra="forbid")

    status: JobStatus | None = None
    limit: int = Field(20, ge=1, le=100)
    cursor: UUID | None = None
    fields: Fields = []

    @property
    def offset(self) -> int:
        """There is one way of paging."""
        return 0


class SteerBatchRequest(BaseModel):
    """The body of `POST /batches/{batch_id}/cancel` and `/retry`; it may be left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Reason | None = None


#: What becomes of a request to cancel a batch.
Cancel = Literal["cancelled", "asked"]
