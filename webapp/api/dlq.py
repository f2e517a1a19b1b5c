"""`/dlq`: the jobs that exhausted their retries or were discarded; look, group, requeue, discard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlencode

from flask import Blueprint, Response, current_app, jsonify, request

from webapp.access.model import Scope
from webapp.api import dlq_examples, reads
from webapp.api.actors import name_of_actor
from webapp.api.answers import Groups, Jobs, LetterPage, Resolving
from webapp.api.bodies import json_body, json_body_if_any
from webapp.api.callers import reach
from webapp.api.dlq_schemas import (
    DeadLetterQuery,
    DiscardRequest,
    GroupAnswer,
    GroupsQuery,
    HistoryAnswer,
    HistoryQuery,
    HourAnswer,
    LetterAnswer,
    LettersQuery,
    ReportAnswer,
    RequeueRequest,
    ResolveOne,
)
from webapp.api.jobs import job_id_of, job_service, query_values
from webapp.api.openapi import documented
from webapp.api.page_schemas import large_of, listed
from webapp.api.redaction import all_shown, shown
from webapp.api.schemas import MAX_OFFSET, JobAnswer
from webapp.dead_letters.model import DeadLetterFilter, Report, ResolveRequest
from webapp.dead_letters.service import DeadLetters
from webapp.flow.reach import Reach
from webapp.infra.postgres import deadlines
from webapp.jobs.errors import JobBusy, NoOpenLetter

bp = Blueprint("dlq", __name__)

#: How long a request that deals with many letters may wait for PostgreSQL, seconds.
RESOLVE_BUDGET = 15.0


def dead_letters() -> DeadLetters:
    """The front door of this application's dead letter queue."""
    return cast("DeadLetters", current_app.extensions["dead_letters"])


@bp.get("/dlq")
@documented(
    {200: Jobs},
    422,
    503,
    need=Scope.DLQ_READ,
    query=DeadLetterQuery,
    answer_headers=reads.STALENESS,
    examples=dlq_examples.JOBS,
    names_job="/0/id",
)
def index() -> Response:
    """The dead letter queue as an array of jobs, the newest first.

    It is at most two MiB large; where there may be more, the header `Link` has the next page (`rel="next"`).
    """
    query = DeadLetterQuery.model_validate(query_values())
    jobs, goes_on = dead_letters().jobs(
        query.filter(),
        reach(),
        limit=query.limit,
        offset=query.offset,
        large=large_of(query.fields),
        read=reads.reader(goes_on=query.offset > 0),
    )
    answer = jsonify(all_shown(listed(job, query.fields) for job in jobs))
    if goes_on and query.offset + len(jobs) <= MAX_OFFSET:
        following = request.args.to_dict() | {"offset": query.offset + len(jobs)}
        answer.headers["Link"] = f'<{request.path}?{urlencode(following)}>; rel="next"'
    return answer


@bp.get("/dlq/letters")
@documented(
    {200: LetterPage},
    422,
    503,
    need=Scope.DLQ_READ,
    query=LettersQuery,
    answer_headers=reads.STALENESS,
    examples=dlq_examples.LETTERS,
)
def letters() -> Response:
    """A page of dead letters, the newest first, with who dealt with them and why."""
    query = LettersQuery.model_validate(query_values())
    read = reads.reader(goes_on=query.cursor is not None)
    rows, total = dead_letters().page(
        query.wanted, reach(), limit=query.limit, before=query.cursor, read=read
    )
    return jsonify(
        {
            "items": all_shown(LetterAnswer.of(row) for row in rows),
            "total": total,
            "next_cursor": rows[-1].id if len(rows) == query.limit else None,
        }
    )


@bp.get("/dlq/groups")
@documented(
    {200: Groups},
    422,
    503,
    need=Scope.DLQ_READ,
    query=GroupsQuery,
    answer_headers=reads.STALENESS,
    examples=dlq_examples.GROUPS,
)
def groups() -> Response:
    """Open letters by what they died of, the largest group first, each with a sample."""
    query = GroupsQuery.model_validate(query_values())
    found = dead_letters().groups(query.filter(), reach(), limit=query.limit, read=reads.reader())
    return jsonify({"items": all_shown(GroupAnswer.of(group) for group in found)})


@bp.get("/dlq/history")
@documented(
    {200: HistoryAnswer},
    422,
    503,
    need=Scope.DLQ_READ,
    query=HistoryQuery,
    answer_headers=reads.STALENESS,
    examples=dlq_examples.HISTORY,
)
def history() -> Response:
    """How many letters are open, and how many came and went by the hour: of a group, or of all."""
    query = HistoryQuery.model_validate(query_values())
    count, hours = dead_letters().history(query.filter(), reach(), read=reads.reader())
    shown_hours = [HourAnswer.model_validate(one).model_dump(mode="json") for one in hours]
    return jsonify({"open": count, "hours": shown_hours})


@bp.post("/dlq/requeue")
@documented(
    {200: Resolving},
    413,
    415,
    422,
    503,
    need=Scope.DLQ_MANAGE,
    body=RequeueRequest,
    examples=dlq_examples.REQUEUE,
)
def requeue_many() -> Response:
    """Queues the jobs of a selection, of what matches, or of all dead letters again, at a rate where one is given."""
    wanted = RequeueRequest.model_validate(json_body())
    deadlines.bound(RESOLVE_BUDGET)
    return jsonify(
        ReportAnswer.of(
            dead_letters().requeue(wanted.request(name_of_actor()), reach()), dry_run=wanted.dry_run
        )
    )


@bp.post("/dlq/discard")
@documented(
    {200: Resolving},
    413,
    415,
    422,
    503,
    need=Scope.DLQ_MANAGE,
    body=DiscardRequest,
    examples=dlq_examples.DISCARD,
)
def discard_many() -> Response:
    """Puts a selection, what matches, or all letters aside; their jobs stay failed."""
    wanted = DiscardRequest.model_validate(json_body())
    deadlines.bound(RESOLVE_BUDGET)
    return jsonify(
        ReportAnswer.of(
            dead_letters().discard(wanted.request(name_of_actor()), reach()), dry_run=wanted.dry_run
        )
    )


@bp.post("/dlq/<job_id>/requeue")
@documented(
    {200: JobAnswer},
    404,
    409,
    410,
    413,
    415,
    422,
    503,
    need=Scope.DLQ_MANAGE,
    body=ResolveOne,
    body_optional=True,
    examples=dlq_examples.REQUEUE_ONE,
)
def requeue_one(job_id: str) -> Response:
    """Queues one job again; 409 when it has no open dead letter."""
    return jsonify(_one(job_id, dead_letters().requeue))


@bp.post("/dlq/<job_id>/discard")
@documented(
    {200: JobAnswer},
    404,
    409,
    410,
    413,
    415,
    422,
    503,
    need=Scope.DLQ_MANAGE,
    body=ResolveOne,
    body_optional=True,
    examples=dlq_examples.DISCARD_ONE,
)
def discard_one(job_id: str) -> Response:
    """Puts one letter aside; 409 when there is none that is open."""
    return jsonify(_one(job_id, dead_letters().discard))


def _one(given: str, resolve: Callable[[ResolveRequest, Reach], Report]) -> dict[str, Any]:
    """Deals with one dead letter, and gives its job.

    Raises:
        NoOpenLetter: someone has dealt with it before, or there never was one.
        JobBusy: someone else holds it right now.
    """
    job_id = job_id_of(given)
    body = ResolveOne.model_validate(json_body_if_any())
    by = body.by or name_of_actor()
    report = resolve(ResolveRequest(DeadLetterFilter(ids=(job_id,)), by=by, why=body.why), reach())
    job = job_service().get(job_id, reach())
    if not report.changed:
        # What another session has locked is left out.
        raise JobBusy(job_id) if report.matched else NoOpenLetter(job_id, job.status)
    return shown(JobAnswer.of(job))
