"""The wire format of the dead letter queue."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from webapp.api.page_schemas import Fields
from webapp.api.schemas import MAX_OFFSET, MAX_REASON, Moment, may_be_redacted
from webapp.dead_letters.model import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetterState,
    Group,
    Report,
    ResolveRequest,
)
from webapp.jobs.request import Ahead, moment, printable

#: Most jobs in one selection.
MAX_SELECTION = 1_000
#: Fewest and most jobs per second that a requeue may let become due.
RATES = (0.001, 10_000.0)

Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(printable)]
Words = Annotated[str, Field(min_length=1, max_length=MAX_REASON), AfterValidator(printable)]
Time = Annotated[AwareDatetime, BeforeValidator(moment)]


class LetterQuery(BaseModel):
    """What letters are looked for by."""

    model_config = ConfigDict(extra="forbid")

    task: Name | None = None
    queue: Name | None = None
    reason: Literal["exhausted", "discarded"] | None = None
    error_type: Name | None = None
    fingerprint: Name | None = None
    dead_after: Time | None = None
    dead_before: Time | None = None

    def filter(self, **more: Any) -> DeadLetterFilter:
        """Which letters are meant."""
        return DeadLetterFilter(**{name: getattr(self, name) for name in LetterQuery.model_fields}, **more)


class DeadLetterQuery(LetterQuery):
    """The query of `GET /dlq`."""

    limit: int = Field(1_000, ge=1, le=1_000)
    offset: int = Field(0, ge=0, le=MAX_OFFSET)
    fields: Fields = []


class LettersQuery(LetterQuery):
    """The query of `GET /dlq/letters`."""

    state: Literal["open", "requeued", "discarded", "all"] = "open"
    limit: int = Field(20, ge=1, le=100)
    cursor: int | None = Field(None, ge=1, le=2**63 - 1)

    @property
    def wanted(self) -> DeadLetterFilter:
        """Which letters are meant."""
        return self.filter(state=None if self.state == "all" else DeadLetterState(self.state))


class GroupsQuery(LetterQuery):
    """The query of `GET /dlq/groups`."""

    limit: int = Field(20, ge=1, le=100)


class HistoryQuery(BaseModel):
    """The query of `GET /dlq/history`: what makes letters alike."""

    model_config = ConfigDict(extra="forbid")

    task: Name | None = None
    queue: Name | None = None
    error_type: Name | None = None
    fingerprint: Name | None = None

    def filter(self) -> DeadLetterFilter:
        """Which letters are meant."""
        return DeadLetterFilter(**self.model_dump())


class HourAnswer(BaseModel):
    """How many letters came into the queue and left it, requeued, discarded or pruned, in the hour that begins at `at`."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    at: Moment
    opened: int
    closed: int


class HistoryAnswer(BaseModel):
    """How many are open now, and what happened in each hour of the last day, the newest last."""

    model_config = ConfigDict(extra="forbid")

    open: int
    hours: list[HourAnswer]


class ResolveOne(BaseModel):
    """The body of `POST /dlq/{id}/requeue` and `POST /dlq/{id}/discard`; it may be left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    by: Words | None = None
    why: Words | None = None


class DiscardRequest(ResolveOne):
    """The body of `POST /dlq/discard`: a selection, what matches a filter, or all."""

    ids: (
        Annotated[list[Annotated[UUID, Field(strict=False)]], Field(min_length=1, max_length=MAX_SELECTION)]
        | None
    ) = None
    filter: LetterQuery | None = None
    all: Literal[True] | None = None
    dry_run: bool = False

    @model_validator(mode="after")
    def _one_way_of_choosing(self) -> Self:
        if sum(given is not None for given in (self.ids, self.filter, self.all)) != 1:
            raise ValueError("must have one of ids, filter and all")
        if self.filter is not None and not self.filter.model_fields_set:
            raise ValueError('must have a filter that names something; "all": true stands for every letter')
        return self

    def request(self, by: str | None) -> ResolveRequest:
        """What the domain is asked for.

        Args:
            by: who asks, where the request does not say.
        """
        wanted = self.filter.filter() if self.filter is not None else DeadLetterFilter()
        if self.ids is not None:
            wanted = DeadLetterFilter(ids=tuple(self.ids))
        return ResolveRequest(wanted, dry_run=self.dry_run, by=self.by or by, why=self.why)


class RequeueRequest(DiscardRequest):
    """The body of `POST /dlq/requeue`; `rate` is in jobs per second, `start_at` when the first of them is due."""

    rate: float | None = Field(None, ge=RATES[0], le=RATES[1])
    start_at: Ahead | None = None

    def request(self, by: str | None) -> ResolveRequest:
        """What the domain is asked for."""
        plain = super().request(by)
        return ResolveRequest(
            plain.wanted,
            dry_run=plain.dry_run,
            rate=self.rate,
            start_at=self.start_at,
            by=plain.by,
            why=plain.why,
        )


class LetterAnswer(BaseModel):
    """A dead letter as clients see it."""

    model_config = ConfigDict(extra="forbid", from_attributes=True, json_schema_extra=may_be_redacted)

    id: int
    job_id: UUID
    task: str | None
    queue: str | None
    reason: str
    error_type: str | None
    error_message: str | None
    fingerprint: str
    dead_at: Moment
    requeued_at: Moment | None
    discarded_at: Moment | None
    resolved_by: str | None
    resolved_why: str | None

    @classmethod
    def of(cls, letter: DeadLetter) -> dict[str, Any]:
        """The JSON-ready form of a letter."""
        return cls.model_validate(letter).model_dump(mode="json")


class GroupAnswer(BaseModel):
    """Letters that died of the same, and the newest of them as a sample."""

    model_config = ConfigDict(extra="forbid", from_attributes=True, json_schema_extra=may_be_redacted)

    task: str | None
    queue: str | None
    error_type: str | None
    fingerprint: str
    count: int
    first_dead_at: Moment
    last_dead_at: Moment
    sample_job_id: UUID
    sample_message: str | None
    sample_traceback: str | None

    @classmethod
    def of(cls, group: Group) -> dict[str, Any]:
        """The JSON-ready form of a group."""
        return cls.model_validate(group).model_dump(mode="json")


class ReportAnswer(BaseModel):
    """What became of the letters; `more` says that the same request should be sent again, with `next_start_at` as its `start_at`."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    matched: int
    changed: int
    more: bool
    last_run_at: Moment | None
    next_start_at: Moment | None

    @classmethod
    def of(cls, report: Report, *, dry_run: bool = False) -> dict[str, Any]:
        """The JSON-ready form of a report."""
        return {**cls.model_validate(report).model_dump(mode="json"), "dry_run": dry_run}
