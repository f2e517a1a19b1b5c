"""The wire format of a job's attempts: what is asked for, and how each is shown."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from webapp.api.schemas import Moment, may_be_redacted
from webapp.jobs.model import MAX_ATTEMPT, AttemptRow
from webapp.jobs.states import AttemptOutcome


class AttemptsQuery(BaseModel):
    """The query of `GET /jobs/{id}/attempts`."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=1_000)
    before: int | None = Field(None, ge=1, le=MAX_ATTEMPT)


class AttemptAnswer(BaseModel):
    """An attempt as clients see it; `outcome`, `ended_at` and `duration` (seconds) are null while it runs."""

    model_config = ConfigDict(extra="forbid", from_attributes=True, json_schema_extra=may_be_redacted)

    attempt: int
    worker_id: str
    outcome: AttemptOutcome | None
    started_at: Moment
    ended_at: Moment | None
    error_type: str | None
    error_message: str | None
    traceback: str | None

    @classmethod
    def of(cls, row: AttemptRow) -> dict[str, Any]:
        """The JSON-ready form of an attempt."""
        took = None if row.ended_at is None else (row.ended_at - row.started_at).total_seconds()
        return {**cls.model_validate(row).model_dump(mode="json"), "duration": took}
