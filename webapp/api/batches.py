"""`/batches`: jobs that are counted together: make a batch, add jobs, close it, steer it, see what it holds."""

from __future__ import annotations

from functools import partial
from typing import Any, cast
from uuid import UUID

from flask import Blueprint, Response, current_app, jsonify, request
from werkzeug.exceptions import NotFound

from webapp.access.model import Scope
from webapp.api import batch_examples as examples
from webapp.api import usage
from webapp.api.answers import BatchAnswer, JobPage
from webapp.api.batch_answers import (
    BatchExplanation,
    BatchItem,
    BatchPage,
    BatchState,
    CancelledBatch,
    MadeBatch,
    RetriedBatch,
)
from webapp.api.batch_schemas import (
    AddRequest,
    BatchesQuery,
    CreateBatchRequest,
    MembersQuery,
    SteerBatchRequest,
    digest,
)
from webapp.api.bodies import json_body, json_body_if_any, largest_batch
from webapp.api.callers import caller, reach
from webapp.api.items import ReadItems, count, summed
from webapp.api.jobs import job_service, limited, query_values
from webapp.api.keys import HEADER, REPLAYED, one_key
from webapp.api.openapi import documented
from webapp.api.page_schemas import PageAnswer, large_of
from webapp.api.redaction import all_shown
from webapp.api.schedules import maintenance_workers
from webapp.api.searching import searching
from webapp.batches.control import Control
from webapp.batches.model import BatchRow, Status
from webapp.batches.requests import Items
from webapp.batches.service import Batches
from webapp.infra.postgres import deadlines
from webapp.jobs.filters import Filter

bp = Blueprint("batches", __name__)

#: How long a request with many jobs may wait for PostgreSQL, seconds, as `POST /jobs/batch`.
ADD_BUDGET = 20.0
#: How long one that steers many may, seconds.
STEER_BUDGET = 10.0
_REPLAYED = {
    REPLAYED: {
        "schema": {"const": "true"},
        "description": "Only with 200: this request was made before, and this is its answer.",
    }
}
_TRACE = {"traceparent": "W3C Trace Context: the jobs' attempts belong to this trace."}
_reading = partial(documented, need=Scope.JOBS_READ)
_controlling = partial(documented, need=Scope.JOBS_CONTROL, body=SteerBatchRequest, body_optional=True)


def batches() -> Batches:
    """The front door of this application's batches."""
    return cast("Batches", current_app.extensions["batches"])


def control() -> Control:
    """What steers them."""
    return cast("Control", current_app.extensions["batch_control"])


def batch_id_of(given: str) -> UUID:
    """The id in a path.

    Raises:
        NotFound: it is no UUID, so no batch has it.
    """
    try:
        return UUID(given)
    except ValueError:
        raise NotFound(f"no batch has this id: a batch's id is a UUID (given: {given[:100]!r})") from None


def shown(batch: BatchRow) -> dict[str, Any]:
    """A batch as the caller of this request may see it."""
    return BatchState.of_one(batch, with_content=caller().sees_content)


def _read(given: list[Any], largest: int) -> Items:
    usage.charge(len(given))
    deadlines.bound(ADD_BUDGET)
    items = ReadItems(given, largest)
    return Items(items.submissions, items.answers, digest(given))


@bp.post("/batches")
@limited
@documented(
    {200: MadeBatch, 201: MadeBatch},
    *(400, 404, 409, 410, 413, 415, 422, 429, 503),
    need=Scope.JOBS_SUBMIT,
    body=CreateBatchRequest,
    headers={HEADER: "Makes sending the same request again safe, as long as its batch is kept.", **_TRACE},
    answer_headers=_REPLAYED,
    examples=examples.CREATE,
)
def create() -> tuple[Response, int]:
    """Makes a batch, perhaps with jobs; 201, or 200 with the batch that this request has made before."""
    largest = usage.largest_body()
    request.max_content_length = largest_batch(largest)
    body = json_body()
    given = CreateBatchRequest.model_validate(body)
    wanted = given.wanted(one_key(request.headers.get(HEADER), None), body)
    made = batches().create(wanted, reach(), None if given.jobs is None else _read(given.jobs, largest))
    answer = shown(made.batch) | {"jobs": summed(made.answers) if made.answers else None}
    if made.is_new and made.answers:
        count(answer["jobs"])
    response = jsonify(answer)
    if not made.is_new:
        response.headers[REPLAYED] = "true"
    return response, 201 if made.is_new else 200


@bp.get("/batches")
@_reading({200: BatchPage}, 422, 503, query=BatchesQuery, examples=examples.PAGE)
def index() -> Response:
    """Batches from the newest on: how each stands, how quickly it goes on."""
    query = BatchesQuery.model_validate(query_values())
    found = batches().page(
        reach(),
        status=None if query.status is None else Status(query.status),
        name=query.name,
        parent=query.parent,
        before=query.cursor,
        limit=query.limit,
    )
    last = str(found[-1].id) if len(found) == query.limit else None
    return jsonify({"items": [BatchItem.of(one) for one in found], "next_cursor": last})


@bp.post("/batches/<batch_id>/jobs")
@limited
@documented(
    {200: BatchAnswer},
    *(404, 409, 410, 413, 415, 422, 429, 503),
    need=Scope.JOBS_SUBMIT,
    body=AddRequest,
    headers=_TRACE,
    answer_headers=_REPLAYED,
    examples=examples.ADD,
)
def add(batch_id: str) -> Response:
    """Adds up to 10,000 jobs under the name of a part; the same part again is answered as before, and stores nothing."""
    largest = usage.largest_body()
    request.max_content_length = largest_batch(largest)
    wanted = AddRequest.model_validate(json_body())
    member = None if wanted.member is None else wanted.member.member()
    items = _read(wanted.jobs, largest)
    added = batches().add(batch_id_of(batch_id), wanted.part, items, reach(), member=member)
    answer = summed(added.answers)
    response = jsonify(answer)
    if added.is_new:
        count(answer)
    else:
        response.headers[REPLAYED] = "true"
    return response


@bp.get("/batches/<batch_id>/jobs")
@_reading(
    {200: JobPage}, 404, 410, 422, 503, query=MembersQuery, examples=examples.MEMBERS, names_job="/items/0/id"
)
def members(batch_id: str) -> Response:
    """The jobs of a batch, the newest first."""
    query = MembersQuery.model_validate(query_values())
    batch = batches().get(batch_id_of(batch_id), reach())
    status = None if query.status is None else query.status.value
    wanted = Filter(status=status, group=batch.id, since=batch.created_at).within(reach())
    with searching(wanted):
        page = job_service().page(
            wanted, reach(), limit=query.limit, before=query.cursor, large=large_of(query.fields)
        )
    answer = PageAnswer.of(page, query)
    return jsonify(answer | {"items": all_shown(answer["items"])})


@bp.post("/batches/<batch_id>/close")
@documented({200: BatchState}, 404, 410, 503, need=Scope.JOBS_SUBMIT, examples=examples.CLOSE)
def close(batch_id: str) -> Response:
    """Has a batch take no more jobs; once all of them have ended it is over. One that is closed stays as it is."""
    return jsonify(shown(batches().close(batch_id_of(batch_id), reach())))


@bp.post("/batches/<batch_id>/cancel")
@_controlling(
    {200: CancelledBatch, 202: CancelledBatch},
    *(404, 409, 410, 413, 415, 422, 503),
    examples=examples.CANCEL,
)
def cancel(batch_id: str) -> tuple[Response, int]:
    """Closes a batch, cancels members that wait and asks those that run to stop; 200 when it is over, 202 while others follow."""
    wanted = SteerBatchRequest.model_validate(json_body_if_any())
    deadlines.bound(STEER_BUDGET)
    done = control().cancel(batch_id_of(batch_id), reach(), wanted.reason)
    answer = CancelledBatch.of_done(done, with_content=caller().sees_content)
    return jsonify(answer), 200 if answer["cancel"] == "cancelled" else 202


@bp.post("/batches/<batch_id>/retry")
@_controlling({200: RetriedBatch}, *(404, 410, 413, 415, 422, 503), examples=examples.RETRY)
def retry(batch_id: str) -> Response:
    """Queues the members again that have failed by now, with a fresh budget of retries; the batch goes on, and may succeed."""
    wanted = SteerBatchRequest.model_validate(json_body_if_any())
    deadlines.bound(STEER_BUDGET)
    done = control().retry(batch_id_of(batch_id), reach(), wanted.reason)
    return jsonify(RetriedBatch.of_done(done, with_content=caller().sees_content))


@bp.get("/batches/<batch_id>/explain")
@_reading({200: BatchExplanation}, 404, 410, 503, examples=examples.EXPLAIN)
def explain(batch_id: str) -> Response:
    """Why a batch is not over."""
    found = batches().explain(batch_id_of(batch_id), reach(), maintenance_workers)
    return jsonify(BatchExplanation.of(found))
