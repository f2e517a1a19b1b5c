"""`/schedules`: make, change, delete, pause and run schedules, and see what they fire."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from flask import Blueprint, Response, current_app, jsonify, request

from webapp.access.model import Scope
from webapp.api import schedule_examples as examples
from webapp.api.actors import name_of_actor
from webapp.api.bodies import json_body, json_body_if_any
from webapp.api.callers import caller, reach
from webapp.api.flow import CHANGE_BUDGET, ETAG, IF_MATCH
from webapp.api.jobs import query_values
from webapp.api.openapi import documented
from webapp.api.schedule_answers import (
    FilledAnswer,
    FiringAnswer,
    FiringPage,
    ScheduleAnswer,
    ScheduleExplanation,
    ScheduleItem,
    SchedulePage,
    Times,
    VersionAnswer,
    Versions,
    cursor_of,
    read_cursor,
)
from webapp.api.schedule_schemas import (
    BackfillRequest,
    FiringsQuery,
    NextQuery,
    PreviewRequest,
    RunRequest,
    ScheduleRequest,
    SchedulesQuery,
    SteerRequest,
    part_of_path,
)
from webapp.flow.service import tag_of
from webapp.infra.broker import heartbeats
from webapp.infra.postgres import deadlines
from webapp.jobs.errors import OptionRefused
from webapp.jobs.handlers import MAINTENANCE_QUEUE
from webapp.jobs.request import printable
from webapp.schedules.errors import FieldRefused
from webapp.schedules.model import LONGEST_NAME, Outcome, Overlap, State
from webapp.schedules.runs import Runs
from webapp.schedules.service import Schedules, Shown
from webapp.schedules.timetable import upcoming

bp = Blueprint("schedules", __name__)

#: If-None-Match that says that there must be none.
NONE = "*"
IF_NONE_MATCH = {
    "If-None-Match": "`*`: where there is a schedule of this name, nothing is done, and the answer is 412."
}
_reading = partial(documented, need=Scope.SCHEDULES_READ)
_controlling = partial(
    documented,
    *({200: ScheduleAnswer}, 404, 412, 413, 415, 422, 503),
    need=Scope.SCHEDULES_MANAGE,
    body=SteerRequest,
    body_optional=True,
    headers=IF_MATCH,
    answer_headers=ETAG,
)


def schedules() -> Schedules:
    """The front door of this application's schedules."""
    return cast("Schedules", current_app.extensions["schedules"])


def _runs() -> Runs:
    return cast("Runs", current_app.extensions["schedule_runs"])


@bp.get("/schedules")
@_reading({200: SchedulePage}, 422, 503, query=SchedulesQuery, examples=examples.PAGE)
def index() -> Response:
    """Schedules by name: how each stands, and when it is due."""
    query = SchedulesQuery.model_validate(query_values())
    state = State(query.state) if query.state is not None else None
    found = schedules().page(reach(), state=state, after=query.cursor or "", limit=query.limit)
    items = [ScheduleItem.of(one.schedule) for one in found]
    last = items[-1]["name"] if len(items) == query.limit else None
    return jsonify({"items": items, "next_cursor": last})


@bp.get("/schedules/<schedule>")
@_reading({200: ScheduleAnswer}, 404, 503, answer_headers=ETAG, examples=examples.ONE)
def one(schedule: str) -> Response:
    """One schedule, with its next five times and its last five firings."""
    return _tagged(schedules().get(schedule, reach()))


@bp.put("/schedules/<schedule>")
@documented(
    {200: ScheduleAnswer, 201: ScheduleAnswer},
    *(409, 412, 413, 415, 422, 503),
    need=Scope.SCHEDULES_MANAGE,
    body=ScheduleRequest,
    headers=IF_MATCH | IF_NONE_MATCH,
    answer_headers=ETAG,
    examples=examples.PUT,
)
def put(schedule: str) -> Response:
    """Makes a schedule, or has it be what is sent; the same again changes nothing, so it may be sent at every deploy."""
    wanted = ScheduleRequest.model_validate(json_body())
    _check_name(schedule)
    deadlines.bound(CHANGE_BUDGET)
    try:
        done = schedules().put(
            schedule,
            wanted.spec(),
            reach(),
            by=wanted.by or name_of_actor(),
            why=wanted.why,
            expected=request.headers.get("If-Match"),
            only_new=request.headers.get("If-None-Match", "").strip() == NONE,
        )
    except OptionRefused as refused:
        raise FieldRefused(f"job.{refused.field}", refused.rule, refused.given) from None
    return _tagged(done.shown, 201 if done.is_new else 200)


@bp.delete("/schedules/<schedule>")
@documented(
    {204: None}, 404, 412, 503, need=Scope.SCHEDULES_MANAGE, headers=IF_MATCH, examples=examples.DELETE
)
def delete(schedule: str) -> Response:
    """Deletes a schedule with its history; jobs that it has made stay."""
    deadlines.bound(CHANGE_BUDGET)
    expected = request.headers.get("If-Match")
    schedules().delete(schedule, reach(), by=name_of_actor(), expected=expected)
    return Response(status=204)


@bp.post("/schedules/<schedule>/pause")
@_controlling(examples=examples.PAUSE)
def pause(schedule: str) -> Response:
    """Pauses a schedule: nothing of it fires until it is resumed; jobs that it has made go on."""
    wanted = SteerRequest.model_validate(json_body_if_any())
    return _steered(schedule, wanted, pauses=True)


@bp.post("/schedules/<schedule>/resume")
@_controlling(examples=examples.RESUME)
def resume(schedule: str) -> Response:
    """Lets a schedule go on from now; what came meanwhile is one line of its history."""
    wanted = SteerRequest.model_validate(json_body_if_any())
    return _steered(schedule, wanted, pauses=False)


@bp.post("/schedules/<schedule>/run")
@documented(
    {200: FiringAnswer},
    *(404, 413, 415, 422, 503),
    need=Scope.SCHEDULES_MANAGE,
    body=RunRequest,
    body_optional=True,
    examples=examples.RUN,
)
def run(schedule: str) -> Response:
    """Has a schedule fire now, paused or not; its times stay as they are."""
    wanted = RunRequest.model_validate(json_body_if_any())
    deadlines.bound(CHANGE_BUDGET)
    overlap = Overlap(wanted.overlap) if wanted.overlap is not None else None
    by = wanted.by or name_of_actor()
    row = _runs().run(schedule, reach(), overlap=overlap, by=by, why=wanted.why)
    return jsonify(FiringAnswer.of(row))


@bp.post("/schedules/<schedule>/backfill")
@documented(
    {200: FilledAnswer},
    *(404, 413, 415, 422, 503),
    need=Scope.SCHEDULES_MANAGE,
    body=BackfillRequest,
    examples=examples.BACKFILL,
)
def backfill(schedule: str) -> Response:
    """Fires times that have passed, each once, however often it is asked."""
    wanted = BackfillRequest.model_validate(json_body())
    deadlines.bound(CHANGE_BUDGET)
    return jsonify(FilledAnswer.of(_runs().backfill(schedule, wanted.wanted(name_of_actor()), reach())))


@bp.get("/schedules/<schedule>/firings")
@_reading({200: FiringPage}, 404, 422, 503, query=FiringsQuery, examples=examples.FIRINGS)
def firings(schedule: str) -> Response:
    """What became of the times of a schedule, the newest first."""
    query = FiringsQuery.model_validate(query_values())
    try:
        before = read_cursor(query.before)
    except (ValueError, OverflowError):
        raise FieldRefused("before", "must be the next_cursor of a page", query.before) from None
    outcome = Outcome(query.outcome) if query.outcome is not None else None
    rows = schedules().firings(schedule, reach(), outcome=outcome, before=before, limit=query.limit)
    last = cursor_of(rows[-1]) if len(rows) == query.limit else None
    return jsonify({"items": [FiringAnswer.of(row) for row in rows], "next_cursor": last})


@bp.get("/schedules/<schedule>/versions")
@_reading({200: Versions}, 404, 503, examples=examples.VERSIONS)
def versions(schedule: str) -> Response:
    """What a schedule was: each version that is kept, the newest first."""
    found = schedules().versions(schedule, reach())
    return jsonify({"items": [VersionAnswer.of(each, with_content=caller().sees_content) for each in found]})


@bp.get("/schedules/<schedule>/next")
@_reading({200: Times}, 404, 422, 503, query=NextQuery, examples=examples.NEXT)
def next_times(schedule: str) -> Response:
    """The next times of a schedule."""
    query = NextQuery.model_validate(query_values())
    timing, times = schedules().next_times(schedule, reach(), query.count)
    return jsonify(Times.of(timing, times))


@bp.get("/schedules/<schedule>/explain")
@_reading({200: ScheduleExplanation}, 404, 503, examples=examples.EXPLAIN)
def explain(schedule: str) -> Response:
    """Why a schedule does not fire now."""
    return jsonify(ScheduleExplanation.of(schedules().explain(schedule, reach(), maintenance_workers)))


@bp.post("/schedules/preview")
@_reading({200: Times}, 413, 415, 422, 503, body=PreviewRequest, examples=examples.PREVIEW)
def preview() -> Response:
    """The times that cron or every would have; nothing is kept."""
    wanted = PreviewRequest.model_validate(json_body())
    after = wanted.after or schedules().moment()
    return jsonify(Times.of(wanted.timing(), upcoming(wanted.timing(), after, wanted.count)))


def maintenance_workers() -> int | None:
    """How many live workers do what beat asks for; None when Redis does not say."""
    return heartbeats.listening_to(current_app.extensions["health"][1], MAINTENANCE_QUEUE)


def _check_name(name: str) -> None:
    try:
        part_of_path(printable(name))
    except ValueError as broken:
        raise FieldRefused("name", str(broken), name[:LONGEST_NAME]) from None


def _steered(name: str, wanted: SteerRequest, *, pauses: bool) -> Response:
    deadlines.bound(CHANGE_BUDGET)
    given: dict[str, Any] = {"by": wanted.by or name_of_actor(), "note": wanted.note}
    given["expected"] = request.headers.get("If-Match")
    steer = schedules().pause if pauses else schedules().resume
    return _tagged(steer(name, reach(), **given))


def _tagged(shown: Shown, status: int = 200) -> Response:
    response = jsonify(ScheduleAnswer.of_shown(shown, with_content=caller().sees_content))
    response.status_code = status
    response.headers["ETag"] = tag_of(shown.schedule.version)
    return response
