"""How batches are answered: how each stands, what came with it, what became of what was asked."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from webapp.api.answers import BatchAnswer
from webapp.api.batch_schemas import Cancel
from webapp.api.schemas import REDACTED, Moment, may_be_redacted
from webapp.batches.control import Cancelling, Retrying
from webapp.batches.explain import Explanation
from webapp.batches.model import BatchRow, Event, Status
from webapp.jobs.nesting import readable


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class BatchItem(_Answer):
    """A batch in a list. Counts are exact at one moment; `open` members have not ended. `rate` is members a second."""

    id: UUID
    name: str | None
    status: Status
    tenant: str
    submitted_by: int | None
    parent_id: UUID | None
    total: int
    completed: int
    failed: int
    cancelled: int
    open: int
    rate: float | None
    expected_at: Moment | None
    complete_job_id: UUID | None
    success_job_id: UUID | None
    failure_job_id: UUID | None
    callback_job_id: UUID | None
    created_at: Moment
    updated_at: Moment
    open_until: Moment | None
    closed_at: Moment | None
    closed_why: str | None
    finished_at: Moment | None
    cancel_requested_at: Moment | None
    cancel_reason: str | None
    is_retrying: bool

    @classmethod
    def of(cls, batch: BatchRow) -> dict[str, Any]:
        """The JSON-ready form of a batch."""
        counts = {
            name: getattr(batch.totals, name)
            for name in ("total", "completed", "failed", "cancelled", "open")
        }
        rate = batch.rate
        of_its_own = {
            **counts,
            "rate": None if rate is None else round(rate, 3),
            "open_until": batch.deadline if batch.closed_at is None else None,
            "is_retrying": batch.retry_until is not None,
        }
        own = {name: getattr(batch, name) for name in BatchItem.model_fields if name not in of_its_own}
        return BatchItem(**own, **of_its_own).model_dump(mode="json")


class EventAnswer(_Answer):
    """A job that tells of a batch, as it was asked for; `payload` without what it will be told."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=may_be_redacted)

    task: str
    queue: str
    payload: dict[str, Any] | None


class BatchState(BatchItem):
    """A batch by itself: with the jobs that tell of it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=may_be_redacted)

    on_complete: EventAnswer | None
    on_success: EventAnswer | None
    on_failure: EventAnswer | None
    callback_url: str | None

    @classmethod
    def of_one(cls, batch: BatchRow, *, with_content: bool = True) -> dict[str, Any]:
        """The JSON-ready form of a batch and what it was made with.

        Args:
            with_content: also what its jobs carry.
        """
        answer = BatchItem.of(batch)
        for event in Event:
            answer[event.option] = _event(batch.options.get(event.option), with_content=with_content)
        if with_content:
            return answer | {"callback_url": batch.callback_url}
        return answer | {"callback_url": None, REDACTED: True}


def _event(document: dict[str, Any] | None, *, with_content: bool) -> dict[str, Any] | None:
    if document is None:
        return None
    own = {"task": document["task"], "queue": document["queue"]}
    if not with_content:
        return own | {"payload": None, REDACTED: True}
    return own | {"payload": readable(json.loads(document["payload"]))}


class MadeBatch(BatchState):
    """A batch that was made, and what became of the jobs that came with it."""

    jobs: BatchAnswer | None


class BatchPage(_Answer):
    """A page of batches, the newest first."""

    items: list[BatchItem]
    next_cursor: UUID | None


class CancelledBatch(BatchState):
    """A batch, and what became of the request to cancel it: `members` were cancelled and `asked` to stop by the request itself."""

    cancel: Cancel
    members: int
    asked: int
    more: bool

    @classmethod
    def of_done(cls, done: Cancelling, *, with_content: bool) -> dict[str, Any]:
        """The JSON-ready form of it."""
        is_over = done.batch.status is Status.CANCELLED
        return BatchState.of_one(done.batch, with_content=with_content) | {
            "cancel": "cancelled" if is_over else "asked",
            "members": done.cancelled,
            "asked": done.asked,
            "more": done.more,
        }


class RetriedBatch(BatchState):
    """A batch, and how many failed members the request itself has queued again; `more`: others follow."""

    requeued: int
    more: bool

    @classmethod
    def of_done(cls, done: Retrying, *, with_content: bool) -> dict[str, Any]:
        """The JSON-ready form of it."""
        shown = BatchState.of_one(done.batch, with_content=with_content)
        return shown | {"requeued": done.requeued, "more": done.more}


class BatchExplanation(_Answer):
    """Why a batch is not over: a state for programs, a sentence, and the facts behind it."""

    state: str
    sentence: str
    facts: dict[str, Any]

    @classmethod
    def of(cls, found: Explanation) -> dict[str, Any]:
        """The JSON-ready form of an explanation."""
        return {"state": found.state, "sentence": found.sentence, "facts": found.facts}
