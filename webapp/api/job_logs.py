"""`GET /jobs/{id}/logs`: what a job's handler has logged, where it is kept; and the same as events of a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated

from flask import Blueprint, Response, current_app, jsonify
from pydantic import BaseModel, ConfigDict, Field

from webapp.access.model import Scope
from webapp.api import examples
from webapp.api.callers import reach
from webapp.api.jobs import job_id_of, job_service, query_values
from webapp.api.openapi import documented
from webapp.jobs.handlers import registry
from webapp.jobs.job_logs import MOST_LINES, JobLog, KeptLine

bp = Blueprint("job_logs", __name__)


class LogQuery(BaseModel):
    """The query of `GET /jobs/{id}/logs`."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(MOST_LINES, ge=1, le=MOST_LINES)
    after: int | None = Field(None, ge=0, le=2**53, description="Only lines after the one with this `id`.")


class LogLine(BaseModel):
    """A line that a handler logged."""

    model_config = ConfigDict(extra="forbid")

    id: int
    attempt: int
    at: Annotated[str, Field(description="ISO 8601, in UTC.")]
    level: str
    text: Annotated[str, Field(description="Its sentence, its fields as JSON, its traceback.")]


class LogPage(BaseModel):
    """The last lines of a job, in order."""

    model_config = ConfigDict(extra="forbid")

    items: list[LogLine]
    next_after: Annotated[int | None, Field(description="The `after` of the next page.")]
    dropped: Annotated[
        int, Field(description="Lines that were written and are not here: older ones, or lost.")
    ]
    kept: Annotated[bool, Field(description="Whether lines of this task are kept.")]


def keeps(task: str) -> bool:
    """True if lines of a task's handler are kept, as this process has it."""
    found = registry.get(task)
    asked = found.keep_log if found is not None else None
    return bool(current_app.extensions["settings"].keep_job_logs) if asked is None else asked


@bp.get("/jobs/<job_id>/logs")
@documented(
    {200: LogPage}, 404, 410, 422, 503, need=Scope.JOBS_CONTENT, query=LogQuery, examples=examples.LOGS
)
def logs(job_id: str) -> Response:
    """What a job's handler has logged, over all attempts: the last 200 lines, of 64 KiB at most, in order."""
    query = LogQuery.model_validate(query_values())
    job, found = job_service().log(job_id_of(job_id), reach())
    lines, last = found.page(query.after, query.limit)
    items = [line._asdict() for line in lines]
    return jsonify({"items": items, "next_after": last, "dropped": found.dropped, "kept": keeps(job.task)})


class LogEvents:
    """The lines of a job that the client of a stream has not seen.

    Args:
        seen: the id of the last one that it has.
        are_told: the client may see them, and there may be some.
    """

    def __init__(self, seen: str, *, are_told: bool) -> None:
        self.are_told = are_told
        self._seen = int(seen) if seen.isdecimal() and len(seen) <= len(str(2**53)) else None

    def id_of(self, state: str) -> str:
        """The id of an event: the job's state, and the last line before it."""
        return state if self._seen is None else f"{state}/{self._seen}"

    def new(self, log: JobLog, state: str) -> Iterator[str]:
        """An event for each new line."""
        lines, _ = log.page(self._seen, MOST_LINES)
        for line in lines:
            self._seen = line.id
            yield event_of(line, self.id_of(state))


def event_of(line: KeptLine, event_id: str) -> str:
    """What a stream says of a line. Pure."""
    return f"event: log\nid: {event_id}\ndata: {json.dumps(line._asdict())}\n\n"
