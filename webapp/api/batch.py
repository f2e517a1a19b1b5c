"""`POST /jobs/batch`: many jobs in one request and one transaction."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import BadRequest

from webapp.access.model import Scope
from webapp.api import examples, usage
from webapp.api.answers import BatchAnswer
from webapp.api.bodies import json_body, largest_batch
from webapp.api.callers import reach
from webapp.api.items import ReadItems, count, summed
from webapp.api.jobs import job_service, limited
from webapp.api.keys import HEADER
from webapp.api.openapi import documented
from webapp.api.schemas import BatchRequest
from webapp.infra.postgres import deadlines

bp = Blueprint("batch", __name__)

#: How long a batch may wait for PostgreSQL, seconds: ten thousand rows on a busy machine.
BATCH_BUDGET = 20.0


@bp.post("/jobs/batch")
@limited
@documented(
    {200: BatchAnswer},
    *(400, 409, 413, 415, 422, 429, 503),
    need=Scope.JOBS_SUBMIT,
    body=BatchRequest,
    headers={"traceparent": "W3C Trace Context: the jobs' attempts belong to this trace."},
    examples=examples.BATCH,
    names_job="/items/0/id",
)
def submit_many() -> Response:
    """Stores up to 10,000 jobs; 200 with an answer for each, in their order: created, existing or invalid.

    An item above a bound of its queue or key is invalid, for the `reason` queue-full or key-full, and says in `retry_after` in how many
    seconds it would be taken.
    """
    if HEADER in request.headers:
        raise BadRequest(f"{HEADER} is for one job; in a batch each item has its own idempotency_key")
    largest = usage.largest_body()
    request.max_content_length = largest_batch(largest)
    given = BatchRequest.model_validate(json_body()).jobs
    usage.charge(len(given))
    deadlines.bound(BATCH_BUDGET)
    items = ReadItems(given, largest)
    answer = summed(items.answers(job_service().submit_many(items.submissions, reach())))
    count(answer)
    return jsonify(answer)
