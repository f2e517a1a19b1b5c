"""`/jobs`: submit a job, list them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar, cast
from uuid import UUID

from flask import Blueprint, Response, current_app, jsonify, request
from werkzeug.exceptions import NotFound

from webapp.access.model import Scope
from webapp.api import examples, reads, usage
from webapp.api.answers import JobPage
from webapp.api.bodies import json_body
from webapp.api.callers import reach, require
from webapp.api.extensions import limiter
from webapp.api.keys import ANSWER_HEADERS, HEADER, HELD, REPLACED, REPLAYED, one_key
from webapp.api.openapi import documented
from webapp.api.page_schemas import PageAnswer, PageQuery, large_of
from webapp.api.redaction import all_shown, shown
from webapp.api.schemas import JobAnswer
from webapp.api.searching import searching
from webapp.jobs.request import SubmitRequest
from webapp.jobs.service import Jobs

bp = Blueprint("jobs", __name__)

P = ParamSpec("P")
T = TypeVar("T")


def job_service() -> Jobs:
    """The domain's front door in this application."""
    return cast("Jobs", current_app.extensions["jobs"])


def rate_limit() -> str:
    """The limit on submissions of one key or address."""
    return cast("str", current_app.extensions["settings"].rate_limit)


def limited(view: Callable[P, T]) -> Callable[P, T]:
    """Limits a view's calls by one key or address to RATE_LIMIT; without one the limiter is not even asked."""
    counted: Callable[P, T] = limiter.limit(rate_limit)(view)

    @wraps(view)
    def as_set(*args: P.args, **kwargs: P.kwargs) -> T:
        return counted(*args, **kwargs) if rate_limit() else view(*args, **kwargs)

    return as_set


def query_values() -> dict[str, object]:
    """The query's values by name; one that is given more than once stays a list, which no rule takes."""
    return {name: given[0] if len(given) == 1 else given for name, given in request.args.lists()}


def job_id_of(given: str) -> UUID:
    """The id in a path.

    Raises:
        NotFound: it is no UUID, so no job has it.
    """
    try:
        return UUID(given)
    except ValueError:
        raise NotFound(f"no job has this id: a job's id is a UUID (given: {given[:100]!r})") from None


@bp.post("/jobs")
@limited
@documented(
    {200: JobAnswer, 201: JobAnswer},
    *(400, 409, 410, 413, 415, 422, 429, 503),
    need=Scope.JOBS_SUBMIT,
    body=SubmitRequest,
    headers={
        HEADER: "Makes sending the same request again safe for IDEMPOTENCY_TTL seconds.",
        "traceparent": "W3C Trace Context: the job's attempts belong to this trace.",
    },
    answer_headers=ANSWER_HEADERS,
    examples=examples.SUBMIT,
    names_job="/id",
)
def submit() -> tuple[Response, int]:
    """Stores a job: 201 when it is new, 200 with the job that its idempotency key was used for, or that holds its unique key.

    With `on_conflict` `replace` a job that holds the key and was never started becomes what is asked for here.

    A new one above a bound of its queue is refused with 503, above that of its key with 429; the problem's type is `queue-full` or
    `key-full`, and Retry-After says when it would be taken.
    """
    usage.charge(1)
    wanted = SubmitRequest.model_validate(json_body())
    key = one_key(request.headers.get(HEADER), wanted.idempotency_key)
    accepted = job_service().submit(wanted.submission(key), reach())
    if accepted.created:
        return jsonify(JobAnswer.of_new(accepted.job)), 201
    answer = jsonify(shown(JobAnswer.of(accepted.job)))
    header = HELD if accepted.held else REPLACED if accepted.replaced else REPLAYED
    answer.headers[header] = "true"
    return answer, 200


@bp.get("/jobs")
@documented(
    {200: JobPage},
    422,
    503,
    need=Scope.JOBS_READ,
    query=PageQuery,
    answer_headers=reads.STALENESS,
    examples=examples.PAGE,
    names_job="/items/0/id",
)
def index() -> Response:
    """A page of jobs, the newest first, with how many there are in all.

    A page is at most two MiB large, and searched for at most a second or so: one that has fewer jobs than `limit` says so in
    `ended_early`, and the next one goes on from its `next_cursor`.
    """
    query = PageQuery.model_validate(query_values())
    if query.payload is not None:
        require(Scope.JOBS_CONTENT)
    wanted = query.wanted.within(reach())
    with searching(wanted):
        page = job_service().page(
            wanted,
            reach(),
            limit=query.limit,
            offset=query.offset,
            before=query.cursor,
            large=large_of(query.fields),
            read=reads.reader(cursor=query.cursor, goes_on=query.offset > 0),
        )
    answer = PageAnswer.of(page, query)
    return jsonify(answer | {"items": all_shown(answer["items"])})
