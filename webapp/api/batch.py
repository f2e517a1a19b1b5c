"""`POST /jobs/batch`: many jobs in one request and one transaction."""

from __future__ import annotations

from collections import Counter
from typing import Any

from flask import Blueprint, Response, jsonify, request
from pydantic import ValidationError
from werkzeug.exceptions import BadRequest

from webapp.access.model import Scope
from webapp.api import examples, outcomes, usage
from webapp.api.answers import BatchAnswer
from webapp.api.bodies import json_body, largest_batch
from webapp.api.breaches import Breach, breaches_of
from webapp.api.callers import reach
from webapp.api.errors import broken_option
from webapp.api.jobs import job_service, limited
from webapp.api.keys import HEADER
from webapp.api.openapi import documented
from webapp.api.schemas import BatchRequest
from webapp.infra.jsontext import size_of
from webapp.infra.postgres import deadlines
from webapp.jobs.errors import (
    JobError,
    KeyElsewhere,
    KeyTaken,
    OptionRefused,
    OutOfReach,
    PayloadRefused,
    SubmissionRefused,
)
from webapp.jobs.request import SubmitRequest
from webapp.jobs.submission import Placed, Submission

bp = Blueprint("batch", __name__)

#: Broken rules of items that are named in one answer; beyond, the first of each item.
MOST_BREACHES = 1_000
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
    answers: list[dict[str, Any]] = [{}] * len(given)
    valid: dict[int, Submission] = {}
    named = 0
    for number, item in enumerate(given):
        try:
            wanted = SubmitRequest.model_validate(item)
        except ValidationError as error:
            answers[number] = _invalid_by(breaches_of(error), named)
            named += len(answers[number]["errors"])
        else:
            if (size := size_of(item)) > largest:
                answers[number] = _invalid([_too_large(size, largest)])
                continue
            valid[number] = wanted.submission(wanted.idempotency_key)
    for number, placed in zip(valid, job_service().submit_many(list(valid.values()), reach()), strict=True):
        answers[number] = _answer(placed, named)
        named += len(answers[number].get("errors", ()))
    counts = dict.fromkeys(("created", "existing", "invalid"), 0)
    for answer in answers:
        counts[answer["outcome"]] += 1
    outcomes.count_items(counts, Counter(answer["reason"] for answer in answers if "reason" in answer))
    return jsonify({**counts, "items": answers})


def _answer(placed: Placed | JobError, named: int) -> dict[str, Any]:
    match placed:
        case Placed(id=job_id, created=created):
            answer = {"outcome": "created" if created else "existing", "id": str(job_id)}
            said = {"held": placed.held, "replaced": placed.replaced}
            return answer | {name: True for name, is_so in said.items() if is_so}
        case KeyTaken() | OutOfReach() | KeyElsewhere():
            return _invalid([{"field": placed.field, "rule": str(placed), "given": placed.given}])
        case SubmissionRefused():
            breach = {"field": "queue", "rule": str(placed), "given": placed.queue}
            return _invalid([breach]) | {"reason": placed.code, "retry_after": placed.retry_after}
        case PayloadRefused(error=error, secret=secret):
            return _invalid_by(breaches_of(error, "payload", secret=secret), named)
        case OptionRefused():
            return _invalid([broken_option(placed).model_dump()])
        case _:
            return _invalid([{"field": "body", "rule": str(placed), "given": "this item"}])


def _too_large(size: int, largest: int) -> dict[str, Any]:
    """An item of a batch may have the size of a body of its own."""
    return {"field": "body", "rule": f"must be at most {largest} bytes as JSON", "given": f"{size} bytes"}


def _invalid_by(breaches: list[Breach], named: int) -> dict[str, Any]:
    """An item that broke rules.

    Args:
        named: broken rules that this batch's answer names already.
    """
    told = breaches if named < MOST_BREACHES else breaches[:1]
    return _invalid([breach.model_dump() for breach in told])


def _invalid(errors: list[dict[str, Any]]) -> dict[str, Any]:
    return {"outcome": "invalid", "errors": errors}
