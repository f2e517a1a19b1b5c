"""The wire format of flow control: queues, tasks, pauses, and the record of changes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from webapp.api.dlq_schemas import Words
from webapp.api.schemas import Moment
from webapp.flow.admission import LEAST_AGE, MOST_AGE, MOST_DEPTH, MOST_KEY_DEPTH, Bounds
from webapp.flow.limits import (
    LEAST_AGEING,
    LEAST_PERIOD,
    MOST_AGEING,
    MOST_CONCURRENCY,
    MOST_PERIOD,
    MOST_STARTS,
    KeyOrder,
    Limits,
    QueueLimits,
    Rate,
)
from webapp.flow.model import FlowChange, FlowState
from webapp.jobs.request import printable
from webapp.queues.listing import QueueState

#: Longest name of a target, characters: its kind, the name of a queue or task, and a key.
MAX_TARGET = 500


class PauseRequest(BaseModel):
    """The body of a pause or a resume; it may be left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    by: Words | None = None
    why: Words | None = None


class RateLimit(BaseModel):
    """How often jobs may start: `limit` in `per` seconds, `burst` of them at once after a pause."""

    model_config = ConfigDict(extra="forbid", strict=True)

    limit: int = Field(ge=1, le=MOST_STARTS)
    per: float = Field(1.0, ge=LEAST_PERIOD, le=MOST_PERIOD)
    burst: int | None = Field(
        None, ge=1, le=MOST_STARTS, description="A fortieth of the limit where it is not given."
    )

    @field_validator("burst")
    @classmethod
    def _not_above_the_limit(cls, burst: int | None, info: ValidationInfo) -> int | None:
        if burst is not None and burst > info.data.get("limit", MOST_STARTS):
            raise ValueError("must be at most the limit")
        return burst

    def given(self) -> Rate:
        """As a value."""
        return Rate.of(self.limit, self.per, self.burst)


class LimitsRequest(BaseModel):
    """The body of `PUT /tasks/{task}`: all its limits; what is left out or null has none."""

    model_config = ConfigDict(extra="forbid", strict=True)

    concurrency: int | None = Field(None, ge=1, le=MOST_CONCURRENCY, description="Jobs that run at once.")
    rate: RateLimit | None = None
    by: Words | None = None
    why: Words | None = None

    def given(self) -> QueueLimits:
        """As a value."""
        return QueueLimits(_limits(self.concurrency, self.rate))


class KeysLimits(BaseModel):
    """Limits of each key of a queue."""

    model_config = ConfigDict(extra="forbid", strict=True)

    concurrency: int | None = Field(None, ge=1, le=MOST_CONCURRENCY)
    rate: RateLimit | None = None
    order: Literal["fifo"] | None = Field(
        None, description="fifo: its jobs run strictly one after the other, as they were submitted."
    )
    max_depth: int | None = Field(
        None,
        ge=1,
        le=MOST_KEY_DEPTH,
        description="Jobs of a key that may be queued; more are refused with 429. Jobs without a key are not counted.",
    )

    @field_validator("order")
    @classmethod
    def _one_at_a_time(cls, order: str | None, info: ValidationInfo) -> str | None:
        concurrency = info.data.get("concurrency") or 1
        if order is not None and concurrency > 1:
            raise ValueError(
                f"must be null where the concurrency of keys is {concurrency}: jobs in order run one at a time"
            )
        return order


class QueueLimitsRequest(LimitsRequest):
    """The body of `PUT /queues/{queue}`: all its limits; what is left out or null has none."""

    keys: KeysLimits | None = Field(
        None, description="Limits of each key; jobs without one are a key of their own."
    )
    fair: bool = Field(default=False, description="Keys take turns though nothing is limited.")
    ageing: float | None = Field(
        None,
        ge=LEAST_AGEING,
        le=MOST_AGEING,
        description="Seconds of waiting that a step of priority is worth, within a key; null: priority comes first.",
    )
    max_depth: int | None = Field(
        None, ge=1, le=MOST_DEPTH, description="Jobs that may be queued; more are refused with 503."
    )
    max_age: float | None = Field(
        None,
        ge=LEAST_AGE,
        le=MOST_AGE,
        description="Seconds that the oldest due job may have waited; after five seconds beyond it, submissions are refused with"
        " 503 until it is half as old.",
    )

    def given(self) -> QueueLimits:
        """As a value."""
        keys = self.keys or KeysLimits()
        return QueueLimits(
            _limits(self.concurrency, self.rate),
            _limits(keys.concurrency, keys.rate),
            self.fair,
            KeyOrder(keys.order) if keys.order else None,
            self.ageing,
            Bounds(self.max_depth, self.max_age, keys.max_depth),
        )


def _limits(concurrency: int | None, rate: RateLimit | None) -> Limits:
    return Limits(concurrency, rate.given() if rate else None)


class ChangesQuery(BaseModel):
    """The query of `GET /flow/changes`."""

    model_config = ConfigDict(extra="forbid")

    target: Annotated[str, Field(min_length=1, max_length=MAX_TARGET), AfterValidator(printable)] | None = (
        Field(None, description="A queue, a task or a key, such as queues/default/keys/acme.")
    )
    limit: int = Field(20, ge=1, le=100)
    cursor: int | None = Field(None, ge=1, le=2**63 - 1)


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FlowAnswer(_Answer):
    """Whether a queue or a task is paused, since when, by whom and why; `version` is in the ETag as well."""

    name: str
    paused: bool
    paused_at: Moment | None
    paused_by: str | None
    paused_why: str | None
    version: int
    limits: dict[str, Any]

    @classmethod
    def of(cls, state: FlowState) -> dict[str, Any]:
        """The JSON-ready form of a state."""
        pause = state.pause
        answer = FlowAnswer(
            name=state.name,
            paused=pause is not None,
            paused_at=pause.at if pause else None,
            paused_by=pause.by if pause else None,
            paused_why=pause.why if pause else None,
            version=state.version,
            limits=state.limits.document(),
        )
        return answer.model_dump(mode="json")


class QueueAnswer(FlowAnswer):
    """A queue: what waits in it, what of that is due and for how long, and how many jobs run."""

    waiting: int
    due: int
    oldest_due_seconds: float
    running: int

    @classmethod
    def of_queue(cls, queue: QueueState) -> dict[str, Any]:
        """The JSON-ready form of a queue."""
        return FlowAnswer.of(queue.flow) | {
            "waiting": queue.depth.queued,
            "due": queue.depth.due,
            "oldest_due_seconds": round(queue.depth.oldest, 3),
            "running": queue.running,
        }


class Queues(_Answer):
    """All queues; `counts_are_estimates` when there are more jobs in one than are counted."""

    items: list[QueueAnswer]
    counts_are_estimates: bool


class ChangeAnswer(BaseModel):
    """A change: who made it and why, what held before and what since."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    id: int
    at: Moment
    who: str | None
    target: str
    old: dict[str, Any]
    new: dict[str, Any]
    why: str | None

    @classmethod
    def of(cls, change: FlowChange) -> dict[str, Any]:
        """The JSON-ready form of a change."""
        return cls.model_validate(change).model_dump(mode="json")


class ChangePage(_Answer):
    """A page of changes."""

    items: list[ChangeAnswer]
    next_cursor: int | None
