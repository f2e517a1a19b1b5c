"""`/workflows`: submit workflows, look at them and their steps, follow, cancel and retry them."""

from __future__ import annotations

from functools import partial
from typing import cast
from uuid import UUID

from flask import Blueprint, Response, current_app, jsonify, request
from werkzeug.exceptions import NotFound

from webapp.access.model import Scope
from webapp.api import usage
from webapp.api import workflow_examples as examples
from webapp.api.answers import Explained
from webapp.api.batch import BATCH_BUDGET
from webapp.api.bodies import json_body, json_body_if_any, largest_batch
from webapp.api.callers import caller, reach
from webapp.api.group_following import Following
from webapp.api.jobs import limited, query_values
from webapp.api.keys import HEADER, REPLAYED, one_key
from webapp.api.openapi import documented
from webapp.api.redaction import all_shown, shown, without_content
from webapp.api.schedules import maintenance_workers
from webapp.api.workflow_answers import (
    GraphAnswer,
    StepAnswer,
    StepExplained,
    StepPage,
    WorkflowAnswer,
    WorkflowPage,
)
from webapp.api.workflow_schemas import (
    GraphQuery,
    StepsQuery,
    WorkflowQuery,
    WorkflowRequest,
    WorkflowsQuery,
    WorkflowSteer,
)
from webapp.infra.postgres import deadlines
from webapp.jobs import origins
from webapp.workflows.drawing import mermaid
from webapp.workflows.errors import WorkflowError
from webapp.workflows.model import Status, StepStatus, WorkflowRow
from webapp.workflows.preparing import steps_in
from webapp.workflows.service import Workflows

bp = Blueprint("workflows", __name__)

_reading = partial(documented, need=Scope.JOBS_READ)
_controlling = partial(
    documented,
    *({200: WorkflowAnswer}, 404, 409, 410, 413, 415, 422, 503),
    need=Scope.JOBS_CONTROL,
    body=WorkflowSteer,
    body_optional=True,
)


def workflows() -> Workflows:
    """The front door of this application's workflows."""
    return cast("Workflows", current_app.extensions["workflows"])


def workflow_id_of(given: str) -> UUID:
    """The id in a path.

    Raises:
        NotFound: it is no UUID, so no workflow has it.
    """
    try:
        return UUID(given)
    except ValueError:
        raise NotFound(f"no workflow has this id: it is a UUID (given: {given[:100]!r})") from None


@bp.post("/workflows")
@limited
@documented(
    {200: WorkflowAnswer, 201: WorkflowAnswer},
    *(400, 403, 409, 413, 415, 422, 429, 503),
    need=Scope.JOBS_SUBMIT,
    body=WorkflowRequest,
    headers={
        HEADER: "Makes sending the same request again safe, as long as the workflow is kept.",
        "traceparent": "W3C Trace Context: the attempts of all of its jobs belong to this trace.",
    },
    answer_headers={
        REPLAYED: {
            "schema": {"const": "true"},
            "description": "Only with 200: the idempotency key was used for this request before, and this is its workflow.",
        }
    },
    examples=examples.SUBMIT,
)
def submit() -> tuple[Response, int]:
    """Stores a workflow and has its first steps begin: 201 when it is new, 200 with the one that its idempotency key was used for.

    Each step is a job that is stored when those that it waits for have ended. All of it is looked at before anything is stored, and a
    field that breaks a rule is named; of steps that wait for each other in a circle, the circle.
    """
    request.max_content_length = largest_batch(usage.largest_body())
    spec = WorkflowRequest.model_validate(json_body()).spec()
    usage.charge(steps_in(spec))
    key = one_key(request.headers.get(HEADER), None)
    deadlines.bound(BATCH_BUDGET)
    within = reach()
    submitted = workflows().submit(spec, origins.of_request(within), within, key)
    answer = jsonify(shown(WorkflowAnswer.of(submitted.workflow)))
    if submitted.created:
        return answer, 201
    answer.headers[REPLAYED] = "true"
    return answer, 200


@bp.get("/workflows")
@_reading({200: WorkflowPage}, 422, 503, query=WorkflowsQuery, examples=examples.PAGE)
def index() -> Response:
    """Workflows, the newest first."""
    query = WorkflowsQuery.model_validate(query_values())
    found = workflows().page(
        reach(),
        status=Status(query.status) if query.status is not None else None,
        name=query.name,
        before=query.cursor,
        limit=query.limit,
    )
    last = found[-1].id if len(found) == query.limit else None
    items = all_shown(WorkflowAnswer.of(row) for row in found)
    return jsonify({"items": items, "next_cursor": last and str(last)})


@bp.get("/workflows/<workflow_id>")
@_reading({200: WorkflowAnswer}, 404, 410, 422, 503, query=WorkflowQuery, examples=examples.ONE)
def one(workflow_id: str) -> Response:
    """One workflow; with `wait` as soon as it has ended, or as it is after so many seconds."""
    wait = WorkflowQuery.model_validate(query_values()).wait
    wanted = workflow_id_of(workflow_id)
    found = _following(wanted).until_over(wait) if wait else workflows().get(wanted, reach())
    return jsonify(shown(WorkflowAnswer.of(found)))


def _following(workflow_id: UUID) -> Following[WorkflowRow]:
    service, within, sees_content = workflows(), reach(), caller().sees_content
    return Following(
        get=partial(service.get, workflow_id, within),
        watch=partial(service.watch, workflow_id, within),
        is_over=lambda row: row.status.is_final,
        answer=lambda row: (
            WorkflowAnswer.of(row) if sees_content else without_content(WorkflowAnswer.of(row))
        ),
        gone=WorkflowError,
    )


@bp.get("/workflows/<workflow_id>/events")
@_reading(
    {200: "text/event-stream", 204: None},
    *(404, 410, 503),
    headers={"Last-Event-ID": "What the client has seen."},
    examples=examples.EVENTS,
)
def events(workflow_id: str) -> Response:
    """A workflow's changes as server-sent events until it has ended: `state`, and `final` at the end.

    Changes that follow each other closely are told as one. 204 when the client has seen the last of them.
    """
    return _following(workflow_id_of(workflow_id)).events()


@bp.get("/workflows/<workflow_id>/graph")
@_reading({200: GraphAnswer}, 404, 410, 422, 503, query=GraphQuery, examples=examples.GRAPH)
def graph(workflow_id: str) -> Response:
    """The steps of a workflow and which waits for which; with `format=mermaid` the text of a flowchart."""
    query = GraphQuery.model_validate(query_values())
    workflow, steps = workflows().steps(workflow_id_of(workflow_id), reach())
    if query.format == "mermaid":
        return Response(mermaid(steps), mimetype="text/vnd.mermaid")
    return jsonify(GraphAnswer.of(workflow, steps))


@bp.get("/workflows/<workflow_id>/explain")
@_reading({200: Explained}, 404, 410, 503, examples=examples.EXPLAIN)
def explain(workflow_id: str) -> Response:
    """Why a workflow is not done, in one sentence and in a form for machines."""
    found = workflows().explain(workflow_id_of(workflow_id), reach(), maintenance_workers)
    return jsonify({"state": found.state, "sentence": found.sentence, "facts": found.facts})


@bp.get("/workflows/<workflow_id>/steps")
@_reading({200: StepPage}, 404, 410, 422, 503, query=StepsQuery, examples=examples.STEPS)
def steps(workflow_id: str) -> Response:
    """The steps of a workflow, each behind those that it waits for."""
    query = StepsQuery.model_validate(query_values())
    _, every = workflows().steps(workflow_id_of(workflow_id), reach())
    names = [step.name for step in every]
    wanted = StepStatus(query.status) if query.status is not None else None
    found = [step for step in every[query.cursor + 1 :] if wanted is None or step.status is wanted]
    page = found[: query.limit]
    last = page[-1].number if len(found) > query.limit else None
    return jsonify({"items": [StepAnswer.of(step, names) for step in page], "next_cursor": last})


@bp.get("/workflows/<workflow_id>/steps/<step>")
@_reading({200: StepExplained}, 404, 410, 503, examples=examples.STEP)
def step(workflow_id: str, step: str) -> Response:
    """One step, with why it does not run: what it waits for, or why it was left out."""
    found, names, explained = workflows().explain_step(workflow_id_of(workflow_id), step, reach())
    return jsonify(StepExplained.of_explained(found, names, explained))


@bp.post("/workflows/<workflow_id>/cancel")
@_controlling(examples=examples.CANCEL)
def cancel(workflow_id: str) -> Response:
    """Cancels a workflow: what waits will not run, what runs is asked to stop, what runs at the end in any case does; 409 when it has ended."""
    wanted = WorkflowSteer.model_validate(json_body_if_any())
    deadlines.bound(BATCH_BUDGET)
    found = workflows().cancel(workflow_id_of(workflow_id), reach(), wanted.reason)
    return jsonify(shown(WorkflowAnswer.of(found)))


@bp.post("/workflows/<workflow_id>/retry")
@_controlling(examples=examples.RETRY)
def retry(workflow_id: str) -> Response:
    """Has what failed or was cancelled run again, and what was left out on that account wait again; 409 when there is nothing such."""
    wanted = WorkflowSteer.model_validate(json_body_if_any())
    deadlines.bound(BATCH_BUDGET)
    found = workflows().retry(workflow_id_of(workflow_id), reach(), wanted.reason)
    return jsonify(shown(WorkflowAnswer.of(found)))
