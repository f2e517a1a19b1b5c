"""`GET /jobs/{id}` and its events: requests that may stay until something happens to a job."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast
from uuid import UUID

from flask import Blueprint, Flask, Response, current_app, jsonify, request
from sqlalchemy.exc import SQLAlchemyError

from webapp.access.model import Scope
from webapp.api import examples, usage
from webapp.api.callers import caller, reach
from webapp.api.job_logs import LogEvents, keeps
from webapp.api.jobs import job_id_of, job_service, query_values
from webapp.api.openapi import documented
from webapp.api.redaction import shown, without_content
from webapp.api.schemas import JobAnswer, ShowQuery
from webapp.api.work_slots import WorkSlots, work_slots
from webapp.flow.reach import Reach
from webapp.infra.postgres import database_errors, deadlines
from webapp.infra.postgres.database_errors import Trouble
from webapp.jobs.errors import JobError
from webapp.jobs.job_logs import NO_LOG, JobLog
from webapp.jobs.model import JobRow
from webapp.jobs.service import Jobs
from webapp.jobs.states import FINAL
from webapp.jobs.watchers import Watch, Watchers

bp = Blueprint("following", __name__)

#: How long one look at a job may take, seconds.
LOOK_BUDGET = 3.0
#: Longest a stream of events lasts, seconds; clients connect again by themselves.
EVENTS_LIMIT = 300.0
#: Seconds between two signs of life in a stream where nothing happens.
PING_EVERY = 15.0
#: How soon a client should connect again, milliseconds.
RECONNECT_MS = 1_000


def init_app(app: Flask, database_url: str, *, waiters: int) -> None:
    """Gives the application its waiting room, and has each request wait for its work slot."""
    work: WorkSlots = app.extensions["work_slots"]
    app.extensions["watchers"] = Watchers(database_url, waiters)
    app.before_request(work.take)
    app.teardown_request(lambda _error: work.leave())


@bp.get("/jobs/<job_id>")
@documented(
    {200: JobAnswer}, 404, 410, 422, 503, need=Scope.JOBS_READ, query=ShowQuery, examples=examples.SHOW
)
def show(job_id: str) -> Response:
    """One job; with `wait` as soon as it is final, or as it is after so many seconds; 410 when it was deleted for its age."""
    wait = ShowQuery.model_validate(query_values()).wait if request.args else 0.0
    wanted = job_id_of(job_id)
    job = until_final(wanted, wait) if wait else job_service().get(wanted, reach())
    return jsonify(shown(JobAnswer.of(job)))


def until_final(job_id: UUID, seconds: float) -> JobRow:
    """The job as soon as it is final, or as it is after so many seconds.

    Raises:
        JobNotFound, JobGone: there is no such job.
        TooManyWaiters: as many requests wait as may.
    """
    jobs = job_service()
    slots = work_slots()
    within = reach()
    job = jobs.get(job_id, within)
    if job.status in FINAL:
        return job
    end = time.monotonic() + seconds
    with closing_watch(job_id) as watch:
        job = _watched(jobs, job, within)
        slots.leave()
        while job.status not in FINAL and watch.wait(end - time.monotonic()):
            job = _look(jobs, slots, watch, job, within)
        if job.status not in FINAL and watch.is_open():
            # What is answered is true now, whatever became of those who should have woken us.
            job = _look(jobs, slots, watch, job, within)
    return job


def _watched(jobs: Jobs, job: JobRow, within: Reach) -> JobRow:
    """The job, which tells of its changes from now on; where it cannot be marked, `Watchers` looks at it every second."""
    try:
        return jobs.watch(job.id, within)
    except SQLAlchemyError as error:
        if database_errors.trouble_of(error) is Trouble.DEFECT:
            raise
        return job


def enter(job_id: UUID) -> Watch:
    """Begins to watch a job or a group for the caller of this request.

    Raises:
        TooManyWaiters, QuotaExceeded: as many wait as may.
    """
    left = usage.wait()
    try:
        return cast("Watchers", current_app.extensions["watchers"]).enter(
            job_id, client_of(request.environ), left
        )
    except BaseException:
        left()
        raise


@contextmanager
def closing_watch(job_id: UUID) -> Iterator[Watch]:
    """Watches a job for the length of a block."""
    watch = enter(job_id)
    try:
        yield watch
    finally:
        watch.leave()


def _look(jobs: Jobs, slots: WorkSlots, watch: Watch, before: JobRow, within: Reach) -> JobRow:
    """The job as it stands; while PostgreSQL is away, as it was: the client goes on waiting, and it is looked at again soon."""
    try:
        with slots.slot(), deadlines.within(LOOK_BUDGET):
            return jobs.get(before.id, within)
    except SQLAlchemyError:
        watch.miss()
        return before


def _log(jobs: Jobs, slots: WorkSlots, watch: Watch, job: JobRow, within: Reach) -> JobLog:
    """What the job's handler has logged; nothing while PostgreSQL is away: it is looked at again soon."""
    try:
        with slots.slot(), deadlines.within(LOOK_BUDGET):
            return jobs.log(job.id, within)[1]
    except SQLAlchemyError:
        watch.miss()
    except JobError:
        # It was pruned meanwhile, which the next look will find.
        pass
    return NO_LOG


def event_id(job: JobRow) -> str:
    """Names a job's state: the moment of its last change in microseconds; nothing else has to be kept for it."""
    return str(round(job.updated_at.timestamp() * 1_000_000))


def event_of(
    job: JobRow, before: JobRow | None, *, with_content: bool = True, event: str | None = None
) -> str:
    """What a stream says of a job: `final` once, `progress` where nothing else has changed, else `state`.

    Args:
        with_content: what the job carries is shown.
        event: its id; None: that of the job's state.
    """
    answer = JobAnswer.of(job) if with_content else without_content(JobAnswer.of(job))
    if job.status in FINAL:
        name, data = "final", answer
    else:
        same = before is not None and (before.status, before.attempt) == (job.status, job.attempt)
        name = "progress" if same and job.progress != (before and before.progress) else "state"
        data = {key: value for key, value in answer.items() if key not in {"payload", "result"}}
    return f"event: {name}\nid: {event or event_id(job)}\ndata: {json.dumps(data)}\n\n"


@bp.get("/jobs/<job_id>/events")
@documented(
    {200: "text/event-stream", 204: None},
    404,
    410,
    503,
    need=Scope.JOBS_READ,
    headers={"Last-Event-ID": "What the client has seen."},
    examples=examples.EVENTS,
)
def events(job_id: str) -> Response:
    """A job's changes as server-sent events until it is final; `Last-Event-ID` leaves out what the client knows.

    Where what its handler logs is kept, each line is an event `log`, for callers with `jobs:content`.

    Changes that follow each other closely may be told as one. 204 when the client has seen the last of them: a browser's
    `EventSource` connects no more then.
    """
    jobs = job_service()
    within = reach()
    job = jobs.get(job_id_of(job_id), within)
    known, _, seen = request.headers.get("Last-Event-ID", "").partition("/")
    if job.status in FINAL and known == event_id(job):
        return Response(status=204)
    watch = enter(job.id)
    slots = work_slots()
    try:
        job = _watched(jobs, job, within)
    except BaseException:
        watch.leave()
        raise
    sees_content = caller().sees_content
    lines = LogEvents(seen, are_told=sees_content and keeps(job.task))
    stream = _stream(jobs, slots, watch, job, known, within=within, with_content=sees_content, lines=lines)
    answer = Response(stream, mimetype="text/event-stream")
    answer.headers["Cache-Control"] = "no-cache"
    answer.headers["X-Accel-Buffering"] = "no"
    # A generator that was never begun does not run its `finally`, so the place is given back here.
    answer.call_on_close(watch.leave)
    return answer


def _stream(
    jobs: Jobs,
    slots: WorkSlots,
    watch: Watch,
    job: JobRow,
    known: str,
    *,
    within: Reach,
    with_content: bool,
    lines: LogEvents,
) -> Iterator[str]:
    end = time.monotonic() + EVENTS_LIMIT
    yield f"retry: {RECONNECT_MS}\n\n"
    told: JobRow | None = None
    if event_id(job) == known:
        told = job
    while True:
        state = event_id(job)
        if lines.are_told:
            # Before the state: of a job that is final they are the last ones.
            log = _log(jobs, slots, watch, job, within)
            yield from lines.new(log, known if told is None else event_id(told))
        if told is None or state != event_id(told):
            yield event_of(job, told, with_content=with_content, event=lines.id_of(state))
            told = job
        left = end - time.monotonic()
        if job.status in FINAL or left <= 0 or not watch.is_open():
            return
        woken = watch.wait(min(PING_EVERY, left))
        try:
            # Woken or not: what is told does not hang on those who should have woken us.
            job = _look(jobs, slots, watch, job, within)
        except JobError:
            # It was pruned meanwhile: a client that connects again is told so.
            return
        if not woken:
            yield ": ping\n\n"


def client_of(environ: dict[str, Any]) -> Callable[[], bool]:
    """A question to ask again and again: True while the client of a request is there.

    The kernel knows the end of a connection whether or not bytes are waiting before it, as a request that was sent ahead.
    Where the server shows no socket (the development server, tests) the client is always there.
    """
    socket = environ.get("gunicorn.socket")
    if socket is None:
        return lambda: True
    poller = select.poll()
    # POLLHUP and POLLERR are reported unasked.
    poller.register(socket.fileno(), select.POLLRDHUP)
    return lambda: not poller.poll(0)
