"""The wire format of flow control: queues, tasks, pauses, and the record of changes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from webapp.api.dlq_schemas import Words
from webapp.api.schemas import Moment, printable
from webapp.flow.model import FlowChange, FlowState
from webapp.queues.listing import QueueState

#: Longest name of a target, characters: its kind, and the name of a queue or task.
MAX_TARGET = 200


class PauseRequest(BaseModel):
    """The body of a pause or a resume; it may be left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    by: Words | None = None
    why: Words | None = None


class ChangesQuery(BaseModel):
    """The query of `GET /flow/changes`."""

    model_config = ConfigDict(extra="forbid")

    target: Annotated[str, Field(min_length=1, max_length=MAX_TARGET), AfterValidator(printable)] | None = (
        Field(None, description="A queue or a task, such as queues/default.")
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


class Tasks(_Answer):
    """All tasks."""

    items: list[FlowAnswer]


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
