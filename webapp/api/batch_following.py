"""`GET /batches/{id}` and its events: requests that may stay until something happens to a batch."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from flask import Blueprint, Response, jsonify, request
from sqlalchemy.exc import SQLAlchemyError

from webapp.access.model import Scope
from webapp.api import batch_examples as examples
from webapp.api.batch_answers import BatchItem, BatchState
from webapp.api.batch_schemas import ShowBatchQuery
from webapp.api.batches import batch_id_of, batches, shown
from webapp.api.callers import reach
from webapp.api.following import (
    EVENTS_LIMIT,
    LOOK_BUDGET,
    PING_EVERY,
    RECONNECT_MS,
    closing_watch,
    enter,
)
from webapp.api.jobs import query_values
from webapp.api.openapi import documented
from webapp.api.work_slots import WorkSlots, work_slots
from webapp.batches.errors import BatchError
from webapp.batches.model import FINAL, BatchRow
from webapp.batches.service import Batches
from webapp.flow.reach import Reach
from webapp.infra.postgres import database_errors, deadlines
from webapp.infra.postgres.database_errors import Trouble
from webapp.jobs.watchers import Watch

bp = Blueprint("batch_following", __name__)


@bp.get("/batches/<batch_id>")
@documented(
    {200: BatchState}, 404, 410, 422, 503, need=Scope.JOBS_READ, query=ShowBatchQuery, examples=examples.SHOW
)
def show(batch_id: str) -> Response:
    """One batch, with exact counts; with `wait` as soon as it is over, or as it is after so many seconds."""
    wait = ShowBatchQuery.model_validate(query_values()).wait if request.args else 0.0
    wanted = batch_id_of(batch_id)
    within = reach()
    batch = batches().get(wanted, within)
    if wait and batch.status not in FINAL:
        batch = _until_over(batch, wait, within)
    return jsonify(shown(batch))


def _until_over(batch: BatchRow, seconds: float, within: Reach) -> BatchRow:
    found, slots = batches(), work_slots()
    end = time.monotonic() + seconds
    with closing_watch(batch.id) as watch:
        batch = _watched(found, batch, within)
        slots.leave()
        while batch.status not in FINAL and watch.wait(end - time.monotonic()):
            batch = _look(found, slots, watch, batch, within)
        if batch.status not in FINAL and watch.is_open():
            batch = _look(found, slots, watch, batch, within)
    return batch


def _watched(found: Batches, batch: BatchRow, within: Reach) -> BatchRow:
    """The batch, which tells of its changes from now on; where it cannot be marked, it is looked at every second."""
    try:
        return found.watch(batch.id, within)
    except SQLAlchemyError as error:
        if database_errors.trouble_of(error) is Trouble.DEFECT:
            raise
        return batch


def _look(found: Batches, slots: WorkSlots, watch: Watch, before: BatchRow, within: Reach) -> BatchRow:
    """The batch as it stands; while PostgreSQL is away, as it was."""
    try:
        with slots.slot(), deadlines.within(LOOK_BUDGET):
            return found.get(before.id, within)
    except SQLAlchemyError:
        watch.miss()
        return before


def event_id(batch: BatchRow) -> str:
    """Names a batch's state: the moment of its last change in microseconds, and how many members had ended."""
    return f"{round(batch.updated_at.timestamp() * 1_000_000)}-{batch.totals.total}-{batch.ended}"


def event_of(batch: BatchRow) -> str:
    """What a stream says of a batch: `final` once, else `state`."""
    name = "final" if batch.status in FINAL else "state"
    return f"event: {name}\nid: {event_id(batch)}\ndata: {json.dumps(BatchItem.of(batch))}\n\n"


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
    found, within = batches(), reach()
    batch = found.get(batch_id_of(batch_id), within)
    known = request.headers.get("Last-Event-ID", "")
    if batch.status in FINAL and known == event_id(batch):
        return Response(status=204)
    watch = enter(batch.id)
    slots = work_slots()
    try:
        batch = _watched(found, batch, within)
    except BaseException:
        watch.leave()
        raise
    stream = _stream(found, slots, watch, batch, known, within=within)
    answer = Response(stream, mimetype="text/event-stream")
    answer.headers["Cache-Control"] = "no-cache"
    answer.headers["X-Accel-Buffering"] = "no"
    # A generator that was never begun does not run its `finally`, so the place is given back here.
    answer.call_on_close(watch.leave)
    return answer


def _stream(
    found: Batches, slots: WorkSlots, watch: Watch, batch: BatchRow, known: str, *, within: Reach
) -> Iterator[str]:
    end = time.monotonic() + EVENTS_LIMIT
    yield f"retry: {RECONNECT_MS}\n\n"
    while True:
        if event_id(batch) != known:
            yield event_of(batch)
            known = event_id(batch)
        left = end - time.monotonic()
        if batch.status in FINAL or left <= 0 or not watch.is_open():
            return
        woken = watch.wait(min(PING_EVERY, left))
        try:
            batch = _look(found, slots, watch, batch, within)
        except BatchError:
            # It was deleted meanwhile: a client that connects again is told so.
            return
        if not woken:
            yield ": ping\n\n"
