"""`/dlq`: the jobs that exhausted their retries or were discarded."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from webapp.api.jobs import query_values, the_queue
from webapp.api.schemas import DeadLetterQuery, JobAnswer

bp = Blueprint("dlq", __name__)


@bp.get("/dlq")
def index() -> Response:
    """The dead letter queue as an array of jobs, the newest first."""
    query = DeadLetterQuery.model_validate(query_values())
    return jsonify(
        [JobAnswer.of(row) for row in the_queue().dead_letters(limit=query.limit, offset=query.offset)]
    )
