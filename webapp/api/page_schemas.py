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
from webapp.jobs.error_text import short
from webapp.jobs.filters import Filter
from webapp.jobs.model import JobRow
from webapp.jobs.pages import LARGE, READ_IF_WANTED, Page
from webapp.jobs.request import JobKey, Name, OneTag, keepable, moment, printable
from webapp.jobs.retention import made_at
from webapp.jobs.states import JobStatus

#: Most values of one filter.
MOST_VALUES = 20
#: Most jobs that are asked for by their ids.
MOST_IDS = 100
#: The name of a class, with its module or without. What follows a colon is words of an error, which not all may see.
_CLASS = r"^[^\W\d][\w.<>]*$"


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


#: What a list can have that is made for it alone: they are left out where they are not asked for.
MADE = ("payload_preview", "payload_bytes", "result_bytes")
#: Which fields of a job are wanted; none stands for all that a job has by itself.
Fields = Annotated[
    list[Literal[*JobFields.model_fields, *MADE]],  # type: ignore[valid-type] # the fields are known when this is imported
    BeforeValidator(_names),
    Field(
        max_length=len(JobFields.model_fields) + len(MADE),
        description="Names with commas between; without them, all but payload_preview, payload_bytes and result_bytes.",
    ),
]


def _each_once(given: list[Any]) -> list[Any]:
    return list(dict.fromkeys(given))


def _any_of(words: str, most: int = MOST_VALUES) -> Any:
    """What a filter of several values is: given once or more often, and any of them will do."""
    return (BeforeValidator(_as_list), AfterValidator(_each_once), Field(max_length=most, description=words))


def large_of(fields: Sequence[str]) -> frozenset[str]:
    """Those of the wanted fields that may be large, and are read for them alone."""
    return READ_IF_WANTED & frozenset(fields) if fields else LARGE


def listed(job: JobRow, fields: Sequence[str]) -> dict[str, Any]:
    """The JSON-ready form of a job in a list.

    Args:
        fields: those that are wanted; none stands for all.
    """
    answer = JobFields.of(job)
    if not fields:
        return answer
    return {name: answer[name] if name in answer else getattr(job, name) for name in fields}


class PageQuery(BaseModel):
    """The query of `GET /jobs`."""

    model_config = ConfigDict(extra="forbid")

    status: Annotated[list[JobStatus], *_any_of("Any of these.")] = []
    limit: int = Field(20, ge=1, le=100)
    offset: int = Field(0, ge=0, le=MAX_OFFSET)
    cursor: UUID | None = None
    newer_than: UUID | None = Field(None, description="Only jobs that are newer than this one.")
    ids: Annotated[
        list[UUID],
        BeforeValidator(_names),
        AfterValidator(_each_once),
        Field(max_length=MOST_IDS, description="Ids with commas between: these jobs, as far as there are."),
    ] = []
    task: Annotated[list[Name], *_any_of("Any of these.")] = []
    queue: Annotated[list[Name], *_any_of("Any of these.")] = []
    not_status: Annotated[list[JobStatus], *_any_of("None of these.")] = []
    not_task: Annotated[list[Name], *_any_of("None of these.")] = []
    not_queue: Annotated[list[Name], *_any_of("None of these.")] = []
    not_tag: Annotated[list[OneTag], *_any_of("None of these.")] = []
    priority: Annotated[list[Annotated[int, Field(ge=0, le=9)]], *_any_of("Any of these.", 10)] = []
    error: Annotated[str, Field(max_length=200, pattern=_CLASS)] | None = Field(
        None, description="The class of the last error."
    )
    worker: Annotated[str, Field(min_length=1, max_length=300), AfterValidator(printable)] | None = Field(
        None, description="The worker, or process of one, that runs the job or ended its newest attempt."
    )
    idempotency_key: JobKey | None = Field(None, description="The job of this key, as long as the key lives.")
    request_id: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(printable)] | None = None
    key: JobKey | None = None
    tag: Annotated[list[OneTag], BeforeValidator(_as_list), Field(max_length=options.MAX_TAGS)] = []
    created_after: Annotated[AwareDatetime, BeforeValidator(moment)] | None = None
    created_before: Annotated[AwareDatetime, BeforeValidator(moment)] | None = None
    finished_after: Annotated[AwareDatetime, BeforeValidator(moment)] | None = None
    finished_before: Annotated[AwareDatetime, BeforeValidator(moment)] | None = None
    due_after: Annotated[AwareDatetime, BeforeValidator(moment)] | None = None
    due_before: Annotated[AwareDatetime, BeforeValidator(moment)] | None = None
    payload: Annotated[dict[str, Any], BeforeValidator(_json_object), AfterValidator(keepable)] | None = None

    fields: Fields = []

    @model_validator(mode="after")
    def _one_way_of_paging(self) -> Self:
        if self.cursor is not None and self.offset:
            raise ValueError("cursor and offset are two ways of paging; give one of them")
        if (self.status or self.not_status) and not self._statuses:
            raise ValueError("status and not_status leave no state; give fewer")
        return self

    @property
    def _statuses(self) -> list[str]:
        asked = self.status or (list(JobStatus) if self.not_status else [])
        return [one.value for one in asked if one not in self.not_status]

    @property
    def wanted(self) -> Filter:
        """Which jobs are asked for."""
        status, statuses = _one_or_several(self._statuses)
        task, tasks = _one_or_several(self.task)
        queue, queues = _one_or_several(self.queue)
        return Filter(
            status=status,
            statuses=statuses,
            task=task,
            tasks=tasks,
            queue=queue,
            of_queues=queues,
            not_tasks=tuple(self.not_task),
            not_queues=tuple(self.not_queue),
            not_tags=tuple(self.not_tag),
            priorities=tuple(self.priority),
            error=None if self.error is None else short(self.error),
            worker=self.worker,
            finished_after=self.finished_after,
            finished_before=self.finished_before,
            due_after=self.due_after,
            due_before=self.due_before,
            idempotency_key=self.idempotency_key,
            request_id=self.request_id,
            newer_than=self.newer_than,
            ids=tuple(self.ids) if "ids" in self.model_fields_set else None,
            key=self.key,
            tags=tuple(self.tag),
            created_after=self.created_after,
            created_before=self.created_before,
            payload=None if self.payload is None else json.dumps(self.payload),
        )


def _one_or_several(given: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """One value by itself, for which there are simpler statements; several together."""
    return (given[0], ()) if len(given) == 1 else (None, tuple(given))


def _all_optional(schema: dict[str, Any]) -> None:
    schema.pop("required", None)
    may_be_redacted(schema)


class ListedJob(JobFields):
    """A job in a list: with the fields that were asked for, or all of them."""

    model_config = ConfigDict(json_schema_extra=_all_optional)

    #: How the payload begins, as it is kept.
    payload_preview: str | None
    #: What payload and result take in PostgreSQL, bytes; what is large is packed there.
    payload_bytes: int
    result_bytes: int | None


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
