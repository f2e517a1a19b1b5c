"""`GET /batches/{id}` and its events: requests that may stay until something happens to a batch."""

from __future__ import annotations

from functools import partial

from flask import Blueprint, Response, jsonify, request

from webapp.access.model import Scope
from webapp.api import batch_examples as examples
from webapp.api.batch_answers import BatchItem, BatchState
from webapp.api.batch_schemas import ShowBatchQuery
from webapp.api.batches import batch_id_of, batches, shown
from webapp.api.callers import reach
from webapp.api.group_following import Following, moment_of
from webapp.api.jobs import query_values
from webapp.api.openapi import documented
from webapp.batches.errors import BatchError
from webapp.batches.model import FINAL, BatchRow

bp = Blueprint("batch_following", __name__)


def _following(given: str) -> Following[BatchRow]:
    """How the batch of a path is followed."""
    service, within, batch_id = batches(), reach(), batch_id_of(given)
    return Following(
        get=partial(service.get, batch_id, within),
        watch=partial(service.watch, batch_id, within),
        is_over=lambda batch: batch.status in FINAL,
        answer=BatchItem.of,
        gone=BatchError,
        event_id=event_id,
    )


def event_id(batch: BatchRow) -> str:
    """Names a batch's state: the moment of its last change, and how many members had ended."""
    return f"{moment_of(batch)}-{batch.totals.total}-{batch.ended}"


@bp.get("/batches/<batch_id>")
@documented(
    {200: BatchState}, 404, 410, 422, 503, need=Scope.JOBS_READ, query=ShowBatchQuery, examples=examples.SHOW
)
def show(batch_id: str) -> Response:
    """One batch, with exact counts; with `wait` as soon as it is over, or as it is after so many seconds."""
    wait = ShowBatchQuery.model_validate(query_values()).wait if request.args else 0.0
    followed = _following(batch_id)
    return jsonify(shown(followed.until_over(wait) if wait else followed.get()))


@bp.get("/batches/<batch_id>/events")
@documented(
    {200: "text/event-stream", 204: None},
    404,
    410,
    503,
    need=Scope.JOBS_READ,
    headers={"Last-Event-ID": "What the client has seen."},
    examples=examples.EVENTS,
)
def events(batch_id: str) -> Response:
    """A batch's changes as server-sent events until it is over: about once a second while its members end.

    204 when the client has seen the last of them, which it says in `Last-Event-ID`.
    """
    return _following(batch_id).events()
