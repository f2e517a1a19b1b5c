"""The wire format of lists of jobs: what is asked for, and a page of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol, Self
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

from webapp.api.schemas import MAX_OFFSET, JobFields, Moment, may_be_redacted
from webapp.api.strictjson import BadBody, read_json
from webapp.jobs import options
from webapp.jobs.filters import Filter
from webapp.jobs.model import JobRow
from webapp.jobs.pages import LARGE, Page
from webapp.jobs.request import JobKey, Name, OneTag, keepable, moment
from webapp.jobs.retention import made_at
from webapp.jobs.states import JobStatus


def _as_list(given: object) -> object:
    return [given] if isinstance(given, str) else given


def _json_object(given: object) -> object:
    try:
        parsed = read_json(given.encode()) if isinstance(given, str) else given
    except (BadBody, UnicodeEncodeError) as error:
        if isinstance(error, BadBody) and error.field != "body":
            raise ValueError(str(error)) from None
        parsed = None
    if not isinstance(parsed, dict):
        raise ValueError('must be a JSON object, such as {"customer":17}')  # noqa: TRY004 - pydantic reports this one
    return parsed


def _names(given: object) -> object:
    """Names with commas between, given once or more often."""
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, list):
        return listed
    return [name for one in listed for name in (one.split(",") if isinstance(one, str) else [one])]


#: Which fields of a job are wanted; none stands for all.
Fields = Annotated[
    list[Literal[*JobFields.model_fields]],  # type: ignore[valid-type] # the fields are known when this is imported
    BeforeValidator(_names),
    Field(
        max_length=len(JobFields.model_fields), description="Names with commas between; without them, all."
    ),
]


def large_of(fields: Sequence[str]) -> frozenset[str]:
    """Those of the wanted fields that may be large, and are read for them alone."""
    return LARGE & frozenset(fields) if fields else LARGE


def listed(job: JobRow, fields: Sequence[str]) -> dict[str, Any]:
    """The JSON-ready form of a job in a list.

    Args:
        fields: those that are wanted; none stands for all.
    """
    answer = JobFields.of(job)
    return {name: answer[name] for name in fields} if fields else answer


class PageQuery(BaseModel):
    """The query of `GET /jobs`."""

    model_config = ConfigDict(extra="forbid")

    status: JobStatus | None = None
    limit: int = Field(20, ge=1, le=100)
    offset: int = Field(0, ge=0, le=MAX_OFFSET)
    cursor: UUID | None = None
    task: Name | None = None
    queue: Name | None = None
    key: JobKey | None = None
    tag: Annotated[list[OneTag], BeforeValidator(_as_list), Field(max_length=options.MAX_TAGS)] = []
    created_after: Annotated[AwareDatetime, BeforeValidator(moment)] | None = None
    created_before: Annotated[AwareDatetime, BeforeValidator(moment)] | None = None
    payload: Annotated[dict[str, Any], BeforeValidator(_json_object), AfterValidator(keepable)] | None = None

    fields: Fields = []

    @model_validator(mode="after")
    def _one_way_of_paging(self) -> Self:
        if self.cursor is not None and self.offset:
            raise ValueError("cursor and offset are two ways of paging; give one of them")
        return self

    @property
    def wanted(self) -> Filter:
        """Which jobs are asked for."""
        return Filter(
            status=self.status.value if self.status else None,
            task=self.task,
            queue=self.queue,
            key=self.key,
            tags=tuple(self.tag),
            created_after=self.created_after,
            created_before=self.created_before,
            payload=None if self.payload is None else json.dumps(self.payload),
        )


def _all_optional(schema: dict[str, Any]) -> None:
    schema.pop("required", None)
    may_be_redacted(schema)


class ListedJob(JobFields):
    """A job in a list: with the fields that were asked for, or all of them."""

    model_config = ConfigDict(json_schema_extra=_all_optional)


class Paging(Protocol):
    """What of a query is about the page, and not about what is on it."""

    limit: int
    cursor: UUID | None
    fields: Fields

    @property
    def offset(self) -> int:
        """Jobs that are passed over."""


class PageAnswer(BaseModel):
    """The answer of `GET /jobs`."""

    model_config = ConfigDict(extra="forbid")

    items: list[dict[str, Any]]
    total: int
    #: `total` is counted up to 10,000, and for a moment; above it is an estimate.
    total_is_estimate: bool
    limit: int
    offset: int
    #: The `cursor` of the next page; None on the last one.
    next_cursor: str | None
    #: Only where a page has fewer jobs than it may, and there may be more: because the next one would make it larger than
    #: two MiB (`bytes`), or because its time was over (`time`).
    ended_early: Literal["bytes", "time"] | None = None
    #: The `offset` of the next page, where this one ended early for its size.
    next_offset: int | None = None
    #: Jobs that were created before this moment were not looked at.
    searched_until: Moment | None = None

    @classmethod
    def of(cls, page: Page, query: Paging) -> dict[str, Any]:
        """The JSON-ready form of a page; what does not apply is left out."""
        answer = cls(
            items=[listed(job, query.fields) for job in page.jobs],
            total=page.total,
            total_is_estimate=page.is_estimate,
            limit=query.limit,
            offset=query.offset,
            next_cursor=str(page.next_before) if page.next_before else None,
            ended_early=page.short.value if page.short else None,
            next_offset=query.offset + len(page.jobs) if page.short == "bytes" and not query.cursor else None,
            searched_until=made_at(page.searched_until) if page.searched_until else None,
        )
        shown = answer.model_dump()
        return {
            name: value
            for name, value in shown.items()
            if value is not None or name not in {"ended_early", "next_offset", "searched_until"}
        }
