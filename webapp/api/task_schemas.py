"""The wire format of tasks: how each stands, and what its handler says of its jobs."""

from __future__ import annotations

import logging
from typing import Any

from pydantic import BaseModel, ConfigDict

from webapp.api.flow_schemas import FlowAnswer
from webapp.flow.model import FlowState
from webapp.flow.reach import Reach
from webapp.jobs.handlers import Handler

logger = logging.getLogger(__name__)


class HandlerAnswer(BaseModel):
    """What a handler says of its jobs; null where the settings decide.

    `queue` is null as well where the caller does not reach it. `payload_schema` is the JSON schema of the model that a payload must fit.
    """

    model_config = ConfigDict(extra="forbid")

    queue: str | None
    max_retries: int | None
    timeout: float | None
    priority: int | None
    backoff: dict[str, float] | list[float] | None
    tags: list[str]
    expires_in: float | None
    chunk: int | None
    payload_schema: dict[str, Any] | None

    @classmethod
    def of(cls, handler: Handler, reach: Reach) -> HandlerAnswer:
        """A handler as a caller sees it."""
        return cls(
            queue=handler.queue if reach.has(handler.queue) else None,
            max_retries=handler.max_retries,
            timeout=handler.timeout,
            priority=handler.priority,
            backoff=handler.backoff,
            tags=list(handler.tags),
            expires_in=handler.expires_in,
            chunk=handler.chunk,
            payload_schema=schema_of(handler),
        )


class TaskAnswer(FlowAnswer):
    """A task as it stands; `handler` is null where no handler of it is known here."""

    handler: HandlerAnswer | None

    @classmethod
    def of_task(cls, state: FlowState, handler: Handler | None, reach: Reach) -> dict[str, Any]:
        """The JSON-ready form of a task."""
        about = None if handler is None else HandlerAnswer.of(handler, reach).model_dump(mode="json")
        return FlowAnswer.of(state) | {"handler": about}


class Tasks(BaseModel):
    """All tasks."""

    model_config = ConfigDict(extra="forbid")

    items: list[TaskAnswer]


def schema_of(handler: Handler) -> dict[str, Any] | None:
    """The JSON schema of what a payload must fit; None where there is no model, or it has no schema."""
    if handler.model is None:
        return None
    try:
        return handler.model.model_json_schema()
    except Exception as error:  # noqa: BLE001 - a model of the handler's own may raise anything
        logger.warning(
            "model of a handler has no schema",
            extra={"task": handler.name, "error_type": type(error).__name__},
        )
        return None
