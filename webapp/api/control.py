"""`/jobs/{id}/...`: cancel a job, run a final one again, look at its attempts, ask why it does not run."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, jsonify

from webapp.access.model import Scope
from webapp.api import examples
from webapp.api.answers import AttemptPage, Cancelling, Explained
from webapp.api.attempt_schemas import AttemptAnswer, AttemptsQuery
from webapp.api.bodies import json_body_if_any
from webapp.api.callers import reach
from webapp.api.jobs import job_id_of, job_service, query_values
from webapp.api.openapi import documented
from webapp.api.redaction import all_shown, explanation, shown
from webapp.api.schemas import CancelRequest, JobAnswer, RetryRequest
from webapp.infra.broker import heartbeats
from webapp.jobs.model import CancelAnswer

bp = Blueprint("control", __name__)


@bp.post("/jobs/<job_id>/cancel")
@documented(
    {200: Cancelling, 202: Cancelling},
    *(404, 409, 410, 413, 415, 422, 503),
    need=Scope.JOBS_CONTROL,
    body=CancelRequest,
    body_optional=True,
    examples=examples.CANCEL,
)
def cancel(job_id: str) -> tuple[Response, int]:
    """Cancels a job: 200 when it is cancelled, 202 when it runs and was asked to stop, 409 when it ended otherwise."""
    wanted = CancelRequest.model_validate(json_body_if_any())
    job, answer = job_service().cancel(job_id_of(job_id), reach(), wanted.reason)
    status = 202 if answer is CancelAnswer.ASKED else 200
    return jsonify({**shown(JobAnswer.of(job)), "cancel": answer.value}), status


@bp.post("/jobs/<job_id>/retry")
@documented(
    {200: JobAnswer},
    *(404, 409, 410, 413, 415, 422, 503),
    need=Scope.JOBS_CONTROL,
    body=RetryRequest,
    body_optional=True,
    examples=examples.RETRY,
)
def retry(job_id: str) -> Response:
    """Queues a failed or cancelled job again, with a fresh budget of retries; 409 when it is neither."""
    wanted = RetryRequest.model_validate(json_body_if_any())
    return jsonify(shown(JobAnswer.of(job_service().requeue(job_id_of(job_id), reach(), wanted.reason))))


@bp.get("/jobs/<job_id>/attempts")
@documented(
    {200: AttemptPage},
    404,
    410,
    422,
    503,
    need=Scope.JOBS_READ,
    query=AttemptsQuery,
    examples=examples.ATTEMPTS,
)
def attempts(job_id: str) -> Response:
    """A job's attempts from the newest on, with errors and tracebacks; the one that runs has no outcome yet."""
    query = AttemptsQuery.model_validate(query_values())
    rows, goes_on = job_service().attempts(job_id_of(job_id), reach(), before=query.before, limit=query.limit)
    return jsonify(
        {
            "items": all_shown(AttemptAnswer.of(row) for row in rows),
            "next_before": rows[-1].attempt if goes_on else None,
        }
    )


@bp.get("/jobs/<job_id>/explain")
@documented({200: Explained}, 404, 410, 503, need=Scope.JOBS_READ, examples=examples.EXPLAIN)
def explain(job_id: str) -> Response:
    """Why a job is not running now: `state` for machines, one sentence for people, and the facts behind it."""
    _, redis = current_app.extensions["health"]
    found = job_service().explain(
        job_id_of(job_id), lambda queue: heartbeats.listening_to(redis, queue), reach()
    )
    return jsonify(explanation({"state": found.state, "sentence": found.sentence, "facts": found.facts}))
