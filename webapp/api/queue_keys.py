"""`/queues/{queue}/keys`: single keys of a queue: their own limits, their share of the turns, their pause; whose jobs flood it."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import cast

from flask import Blueprint, Response, current_app, jsonify, request

from webapp.access.model import Scope
from webapp.api import queue_key_examples
from webapp.api.actors import name_of_actor
from webapp.api.bodies import json_body
from webapp.api.callers import reach
from webapp.api.flow import CHANGE_BUDGET, ETAG, IF_MATCH
from webapp.api.jobs import query_values
from webapp.api.openapi import documented
from webapp.api.queue_key_schemas import KeyAnswer, KeyFiguresAnswer, KeyPage, KeyRequest, KeysQuery, key_of
from webapp.flow.keys import Keys
from webapp.flow.model import KeyState, KeyTarget
from webapp.flow.service import tag_of
from webapp.infra.postgres import deadlines

bp = Blueprint("queue_keys", __name__)

_of_one = partial(documented, need=Scope.QUEUES_MANAGE, headers=IF_MATCH, answer_headers=ETAG)


def keys() -> Keys:
    """The front door of this application's keys."""
    return cast("Keys", current_app.extensions["queue_keys"])


@bp.get("/queues/<queue>/keys")
@documented(
    {200: KeyPage}, 404, 422, 503, need=Scope.QUEUES_READ, query=KeysQuery, examples=queue_key_examples.PAGE
)
def page(queue: str) -> Response:
    """Keys of a queue that have limits of their own, in their order; with `order`, those of which most waits or runs.

    Ranked are the keys of the first 50,000 jobs of a queue that wait to be sent, of as many that were sent or lie in lanes, and of as
    many that run.
    """
    query = KeysQuery.model_validate(query_values())
    if query.order is not None:
        return jsonify(KeyPage.of_ranked(keys().ranked(queue, query.order, reach(), limit=query.limit)))
    found = keys().page(queue, reach(), after=query.cursor, limit=query.limit)
    next_cursor = found[-1].key if len(found) == query.limit else None
    return jsonify({"items": [KeyAnswer.of(one) for one in found], "next_cursor": next_cursor})


@bp.get("/queues/<queue>/keys/<path:key>")
@documented(
    {200: KeyFiguresAnswer},
    404,
    422,
    503,
    need=Scope.QUEUES_READ,
    answer_headers=ETAG,
    examples=queue_key_examples.ONE,
)
def one(queue: str, key: str) -> Response:
    """One key of a queue, with what waits and runs of it."""
    figures = keys().figures(KeyTarget(queue, key_of(key)), reach())
    return _tagged(figures.state, KeyFiguresAnswer.of_figures(figures))


@bp.put("/queues/<queue>/keys/<path:key>")
@_of_one(
    {200: KeyAnswer}, 404, 409, 412, 413, 415, 422, 503, body=KeyRequest, examples=queue_key_examples.PUT
)
def put(queue: str, key: str) -> Response:
    """Gives a key limits of its own in the place of those it has, or pauses it; from the answer on no job of it starts beyond them."""
    wanted = KeyRequest.model_validate(json_body())
    deadlines.bound(CHANGE_BUDGET)
    state = keys().put(
        wanted.state(KeyTarget(queue, key_of(key)), datetime.now(UTC)),
        reach(),
        by=wanted.by or name_of_actor(),
        why=wanted.why,
        expected=request.headers.get("If-Match"),
    )
    return _tagged(state, KeyAnswer.of(state))


@bp.delete("/queues/<queue>/keys/<path:key>")
@_of_one({200: KeyAnswer}, 404, 412, 422, 503, examples=queue_key_examples.FORGET)
def forget(queue: str, key: str) -> Response:
    """Makes a key like every key of its queue; where it was paused, its jobs start again."""
    target, expected = KeyTarget(queue, key_of(key)), request.headers.get("If-Match")
    deadlines.bound(CHANGE_BUDGET)
    state = keys().forget(target, reach(), by=name_of_actor(), why=None, expected=expected)
    return _tagged(state, KeyAnswer.of(state))


def _tagged(state: KeyState, answer: dict[str, object]) -> Response:
    response = jsonify(answer)
    response.headers["ETag"] = tag_of(state.version)
    return response
