"""The answers that are put together from others, for the description of the API; the views make them as plain dictionaries."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, RootModel

from webapp.api.attempt_schemas import AttemptAnswer
from webapp.api.breaches import Breach
from webapp.api.dlq_schemas import GroupAnswer, LetterAnswer, ReportAnswer
from webapp.api.page_schemas import ListedJob, PageAnswer
from webapp.api.schemas import JobAnswer


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class IndexAnswer(_Answer):
    """The answer of `GET /`: paths of this API."""

    name: Literal["DJPS"] = "DJPS"
    version: str
    docs: str = "/docs/"
    openapi: str = "/openapi.json"
    jobs: str = "/jobs"
    health: str = "/health"
    ready: str = "/health/ready"
    metrics: str = "/metrics"


class HealthAnswer(_Answer):
    """The answer of `GET /health`."""

    status: Literal["ok"] = "ok"


class ReadyAnswer(_Answer):
    """The answer of `GET /health/ready`; each dependency is `ok` or says what is wrong."""

    status: Literal["ok", "degraded", "unavailable"]
    dependencies: dict[str, str]


class Jobs(RootModel[list[ListedJob]]):
    """An array of jobs."""


class JobPage(PageAnswer):
    """A page of jobs."""

    items: list[ListedJob]  # type: ignore[assignment] # the view fills in dictionaries, which cost less


class Cancelling(JobAnswer):
    """A job, and what became of the request to cancel it."""

    cancel: Literal["cancelled", "asked"]


class AttemptWithDuration(AttemptAnswer):
    """An attempt with how long it took, in seconds."""

    duration: float | None


class AttemptPage(_Answer):
    """A job's attempts, and the `before` of the next page."""

    items: list[AttemptWithDuration]
    next_before: int | None


class Explained(_Answer):
    """Why a job does not run."""

    state: Literal[
        "final",
        "running",
        "stopping",
        "failing",
        "expired",
        "waiting_until",
        "queue_paused",
        "task_paused",
        "broker_away",
        "no_worker",
        "filing",
        "key_paused",
        "queue_limit",
        "task_limit",
        "key_limit",
        "in_order_behind",
        "queue_rate",
        "task_rate",
        "key_rate",
        "turn_of_others",
        "behind_others",
        "sent",
        "due",
    ]
    sentence: str
    facts: dict[str, Any]


class BatchItem(_Answer):
    """What became of one job of a batch; of one that is refused for a bound, `reason` and the seconds until it would be taken."""

    outcome: Literal["created", "existing", "invalid"]
    id: UUID | None = None
    held: Literal[True] | None = None
    replaced: Literal[True] | None = None
    errors: list[Breach] | None = None
    reason: Literal["queue-full", "key-full"] | None = None
    retry_after: int | None = None


class BatchAnswer(_Answer):
    """What became of a batch, in its order."""

    created: int
    existing: int
    invalid: int
    items: list[BatchItem]


class LetterPage(_Answer):
    """A page of dead letters."""

    items: list[LetterAnswer]
    total: int
    next_cursor: int | None


class Groups(_Answer):
    """Dead letters by what they died of."""

    items: list[GroupAnswer]


class Resolving(ReportAnswer):
    """What became of the letters that match."""

    dry_run: bool
