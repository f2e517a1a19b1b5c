"""What follows the end of a workflow: the jobs that were asked for, and who is told of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection
from uuid_utils.compat import uuid7

from webapp.groups.model import Totals
from webapp.infra.jsontext import iso
from webapp.jobs import callbacks
from webapp.jobs.making import Asked, Refusal, submission_of
from webapp.jobs.submission import Submission
from webapp.workflows import store
from webapp.workflows.decisions import Decision
from webapp.workflows.means import Done, Means, origin_of, store_jobs
from webapp.workflows.model import TOLD_BY, Status, WorkflowRow

logger = logging.getLogger(__name__)

#: What is told of, with the ends that it is told of.
EVENTS = {
    "complete": frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED}),
    "success": frozenset({Status.COMPLETED}),
    "failure": frozenset({Status.FAILED}),
}


def told_of(workflow: WorkflowRow, status: Status, totals: Totals) -> dict[str, Any]:
    """What a job is told of the workflow that it follows. Pure."""
    return {
        "id": str(workflow.id),
        "name": workflow.name,
        "status": status.value,
        "totals": totals._asdict(),
    }


def wanted(workflow: WorkflowRow, status: Status) -> dict[str, Mapping[str, Any]]:
    """The jobs that are to be made at this end, by the name of the event: each that was asked for, and was not made before. Pure."""
    return {
        event: workflow.options[f"on_{event}"]
        for event, ends in EVENTS.items()
        if status in ends
        and workflow.options.get(f"on_{event}")
        and getattr(workflow, f"{event}_job_id") is None
    }


def payload_of_callback(url: str, workflow: WorkflowRow, status: Status, totals: Totals) -> dict[str, Any]:
    """The payload of the `http` job that tells of a workflow's end, in the form of Standard Webhooks. Pure."""
    data = told_of(workflow, status, totals) | {
        "created_at": iso(workflow.created_at),
        "finished_at": iso(workflow.now),
    }
    body = {"type": f"workflow.{status.value}", "timestamp": iso(workflow.now), "data": data}
    return {"task": callbacks.TASK, "url": url, "json": body, "retry_on": ["3xx", "4xx"]}


def follow(
    connection: Connection, means: Means, workflow: WorkflowRow, decision: Decision, done: Done
) -> WorkflowRow:
    """Makes the jobs that follow an end; returns the workflow with their ids."""
    told = told_of(workflow, decision.status, decision.totals)
    ids: dict[str, UUID] = {}
    for event, job in wanted(workflow, decision.status).items():
        payload = dict(job["payload"]) | {TOLD_BY: told}
        made = _made(connection, means, workflow, submission_of(job, payload), done)
        if made is not None:
            ids[f"{event}_job_id"] = made
    if workflow.callback_url is not None:
        payload = payload_of_callback(workflow.callback_url, workflow, decision.status, decision.totals)
        job = {"payload": payload, "max_retries": len(callbacks.BACKOFF), "backoff": list(callbacks.BACKOFF)}
        made = _made(connection, means, workflow, submission_of(job), done)
        if made is not None:
            store.sign_callback(connection, made, workflow.id)
            ids["callback_job_id"] = made
    return replace(workflow, **ids)  # type: ignore[arg-type] # as they are named


def _made(
    connection: Connection, means: Means, workflow: WorkflowRow, submission: Submission, done: Done
) -> UUID | None:
    """Stores a job that belongs to no group; None where it cannot be stored: the end stands all the same."""
    asked = Asked(submission, uuid7(), origin_of(workflow))
    (made,) = means.making.made([asked])
    if isinstance(made, Refusal) and made.is_full:
        # It was promised, and no one would ask for it again.
        made = means.making.completed(asked, workflow.now)
    if isinstance(made, Refusal):
        logger.error(
            "job that follows a workflow could not be made",
            extra={"workflow_id": str(workflow.id), "reason": made.words},
        )
        return None
    store_jobs(connection, means, [made], done, is_told=False)
    return made.id
