"""`/queues`, `/tasks` and `/flow/changes`: look at queues and tasks, pause and resume them, see who did."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from flask import Blueprint, Response, current_app, jsonify, request

from webapp.access.model import Scope
from webapp.api import flow_examples
from webapp.api.actors import name_of_actor
from webapp.api.bodies import json_body, json_body_if_any
from webapp.api.callers import reach
from webapp.api.flow_schemas import (
    ChangeAnswer,
    ChangePage,
    ChangesQuery,
    FlowAnswer,
    LimitsRequest,
    PauseRequest,
    QueueAnswer,
    QueueLimitsRequest,
    Queues,
)
from webapp.api.jobs import query_values
from webapp.api.openapi import documented
from webapp.api.task_schemas import TaskAnswer, Tasks
from webapp.flow.limits import NO_LIMITS
from webapp.flow.model import FlowState, Kind, Target
from webapp.flow.service import Flow, tag_of
from webapp.infra.postgres import deadlines
from webapp.jobs.handlers import registry
from webapp.queues.listing import depths, queue_state, queue_states

bp = Blueprint("flow", __name__)

IF_MATCH = {"If-Match": "An ETag of it: where it was changed since, nothing is done, and the answer is 412."}
ETAG: dict[str, dict[str, Any]] = {
    "ETag": {"schema": {"type": "string"}, "description": "Its version, which grows with each change."}
}
#: Seconds a request has that changes something: it waits for claims that go on, and a limit until every process knows of it.
CHANGE_BUDGET = 5.0
#: What a request that changes something may be answered beside 200.
_REFUSALS = (404, 409, 412, 413, 415, 422, 503)
#: How changes of a queue and of a task are described.
_changing = partial(
    documented, {200: FlowAnswer}, *_REFUSALS, need=Scope.QUEUES_MANAGE, headers=IF_MATCH, answer_headers=ETAG
)
_turning = partial(
    documented,
    {200: FlowAnswer},
    *(404, 412, 413, 415, 422, 503),
    need=Scope.QUEUES_MANAGE,
    body=PauseRequest,
    body_optional=True,
    headers=IF_MATCH,
    answer_headers=ETAG,
)
_unlimiting = partial(
    documented,
    {200: FlowAnswer},
    404,
    412,
    503,
    need=Scope.QUEUES_MANAGE,
    headers=IF_MATCH,
    answer_headers=ETAG,
)


def flow() -> Flow:
    """The front door of this application's flow control."""
    return cast("Flow", current_app.extensions["flow"])


@bp.get("/queues")
@documented({200: Queues}, 503, need=Scope.QUEUES_READ, examples=flow_examples.QUEUES)
def queues() -> Response:
    """All queues, with what waits and runs in each, and whether it is paused."""
    found = depths(current_app.extensions["sqlalchemy"].engine, reach())
    items = [QueueAnswer.of_queue(one) for one in queue_states(flow().states(Kind.QUEUE, reach()), found)]
    return jsonify({"items": items, "counts_are_estimates": found.estimated})


@bp.get("/queues/<queue>")
@documented(
    {200: QueueAnswer}, 404, 503, need=Scope.QUEUES_READ, answer_headers=ETAG, examples=flow_examples.QUEUE
)
def queue(queue: str) -> Response:
    """One queue."""
    state = flow().state(Target(Kind.QUEUE, queue), reach())
    found = depths(current_app.extensions["sqlalchemy"].engine, reach())
    return _tagged(QueueAnswer.of_queue(queue_state(state, found)), state)


@bp.put("/queues/<queue>")
@_changing(body=QueueLimitsRequest, examples=flow_examples.LIMIT_QUEUE)
def limit_queue(queue: str) -> Response:
    """Gives a queue limits in the place of those it has; from the answer on no job starts beyond them."""
    return _limited(Target(Kind.QUEUE, queue), QueueLimitsRequest)


@bp.delete("/queues/<queue>")
@_unlimiting(examples=flow_examples.UNLIMIT_QUEUE)
def unlimit_queue(queue: str) -> Response:
    """Takes all limits of a queue away."""
    return _unlimited(Target(Kind.QUEUE, queue))


@bp.post("/queues/<queue>/pause")
@_turning(examples=flow_examples.PAUSE_QUEUE)
def pause_queue(queue: str) -> Response:
    """Pauses a queue: from a second after the answer on none of its jobs starts; those that run go on, and new ones are taken in."""
    return _turned(Target(Kind.QUEUE, queue), flow().pause)


@bp.post("/queues/<queue>/resume")
@_turning(examples=flow_examples.RESUME_QUEUE)
def resume_queue(queue: str) -> Response:
    """Lets the jobs of a queue start again, within a second."""
    return _turned(Target(Kind.QUEUE, queue), flow().resume)


@bp.get("/tasks")
@documented({200: Tasks}, 503, need=Scope.QUEUES_READ, examples=flow_examples.TASKS)
def tasks() -> Response:
    """All tasks: what the handler of each says of its jobs, its limits, and whether it is paused."""
    within = reach()
    found = flow().states(Kind.TASK, within).values()
    items = [TaskAnswer.of_task(one, registry.get(one.name), within) for one in found]
    return jsonify({"items": items})


@bp.get("/tasks/<task>")
@documented(
    {200: TaskAnswer}, 404, 503, need=Scope.QUEUES_READ, answer_headers=ETAG, examples=flow_examples.TASK
)
def task(task: str) -> Response:
    """One task."""
    state = flow().state(Target(Kind.TASK, task), reach())
    return _tagged(TaskAnswer.of_task(state, registry.get(task), reach()), state)


@bp.put("/tasks/<task>")
@_changing(body=LimitsRequest, examples=flow_examples.LIMIT_TASK)
def limit_task(task: str) -> Response:
    """Gives a task limits, over all queues, in the place of those it has; from the answer on no job starts beyond them."""
    return _limited(Target(Kind.TASK, task), LimitsRequest)


@bp.delete("/tasks/<task>")
@_unlimiting(examples=flow_examples.UNLIMIT_TASK)
def unlimit_task(task: str) -> Response:
    """Takes all limits of a task away."""
    return _unlimited(Target(Kind.TASK, task))


@bp.post("/tasks/<task>/pause")
@_turning(examples=flow_examples.PAUSE_TASK)
def pause_task(task: str) -> Response:
    """Pauses a task in every queue; other tasks of these queues go on."""
    return _turned(Target(Kind.TASK, task), flow().pause)


@bp.post("/tasks/<task>/resume")
@_turning(examples=flow_examples.RESUME_TASK)
def resume_task(task: str) -> Response:
    """Lets the jobs of a task start again, within a second."""
    return _turned(Target(Kind.TASK, task), flow().resume)


@bp.get("/flow/changes")
@documented(
    {200: ChangePage}, 422, 503, need=Scope.QUEUES_READ, query=ChangesQuery, examples=flow_examples.CHANGES
)
def changes() -> Response:
    """Who paused and resumed what, when and why, the newest first."""
    query = ChangesQuery.model_validate(query_values())
    rows = flow().changes(query.target, reach(), before=query.cursor, limit=query.limit)
    return jsonify(
        {
            "items": [ChangeAnswer.of(row) for row in rows],
            "next_cursor": rows[-1].id if len(rows) == query.limit else None,
        }
    )


def _turned(target: Target, turn: Callable[..., FlowState]) -> Response:
    """Pauses or resumes a target as the request says."""
    wanted = PauseRequest.model_validate(json_body_if_any())
    deadlines.bound(CHANGE_BUDGET)
    by = wanted.by or name_of_actor()
    state = turn(target, reach(), by=by, why=wanted.why, expected=request.headers.get("If-Match"))
    return _tagged(FlowAnswer.of(state), state)


def _limited(target: Target, body: type[LimitsRequest]) -> Response:
    """Gives a target the limits of the request."""
    wanted = body.model_validate(json_body())
    deadlines.bound(CHANGE_BUDGET)
    by = wanted.by or name_of_actor()
    state = flow().limit(
        target, wanted.given(), reach(), by=by, why=wanted.why, expected=request.headers.get("If-Match")
    )
    return _tagged(FlowAnswer.of(state), state)


def _unlimited(target: Target) -> Response:
    """Takes the limits of a target away."""
    deadlines.bound(CHANGE_BUDGET)
    expected = request.headers.get("If-Match")
    state = flow().limit(target, NO_LIMITS, reach(), by=name_of_actor(), why=None, expected=expected)
    return _tagged(FlowAnswer.of(state), state)


def _tagged(answer: dict[str, Any], state: FlowState) -> Response:
    response = jsonify(answer)
    response.headers["ETag"] = tag_of(state.version)
    return response
