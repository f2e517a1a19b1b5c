"""What goes wrong, as problem documents (RFC 9457): one table from error to status code, never a stack trace."""

from __future__ import annotations

import logging
import time
from http import HTTPStatus

from flask import Flask, Response, g, request
from flask_limiter.errors import RateLimitExceeded
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException

from webapp.access.errors import (
    AccessError,
    CannotGive,
    HostNotServed,
    KeyEnded,
    KeysUnknown,
    NoGoodKey,
    NoKey,
    NotLetIn,
    OnCommandLine,
    QuotaExceeded,
    ScopeMissing,
    TooManyAttempts,
    TooManyKeys,
    UnknownKey,
    UnknownTenant,
)
from webapp.api import outcomes
from webapp.api.actors import note_refusal
from webapp.api.breaches import Breach, breaches_of
from webapp.api.extensions import limiter
from webapp.api.schemas import Problem
from webapp.api.searching import TooManySearches
from webapp.api.strictjson import BadBody
from webapp.batches.errors import (
    BatchConflict,
    BatchError,
    BatchFieldRefused,
    BatchGone,
    PartBusy,
    UnknownBatch,
)
from webapp.flow.errors import (
    FlowError,
    NotInOrder,
    OlderRelease,
    Shared,
    StaleVersion,
    TasksOutOfReach,
    UnknownTarget,
    WorkersUnknown,
)
from webapp.infra.postgres import database_errors
from webapp.infra.postgres.database_errors import Trouble
from webapp.infra.telemetry import metrics
from webapp.jobs.broken_rules import shown
from webapp.jobs.errors import (
    JobBusy,
    JobEnded,
    JobError,
    JobGone,
    JobNotFound,
    KeyElsewhere,
    KeyFull,
    KeyOfPruned,
    KeyRace,
    KeyReused,
    NoOpenLetter,
    NotForRetry,
    OptionRefused,
    OutOfReach,
    PayloadRefused,
    QueueFull,
    SubmissionRefused,
    UniqueHeld,
    UniqueOfPruned,
    UniqueRace,
    UnknownTask,
)
from webapp.jobs.watchers import TooManyWaiters
from webapp.schedules.errors import (
    FieldRefused,
    NameTaken,
    ScheduleChanged,
    ScheduleError,
    UnknownSchedule,
)
from webapp.system.errors import NotTold, RangeRefused, RedisAway
from webapp.workflows.errors import (
    NothingToRetry,
    StepPayloadRefused,
    UnknownStep,
    UnknownWorkflow,
    WorkflowEnded,
    WorkflowError,
    WorkflowGone,
    WorkflowRefused,
)

logger = logging.getLogger(__name__)

#: What helps a search that was ended: each of these is found with an index.
SEARCH_TOO_LONG = "the search took too long; narrow it with created_after, task, queue, tag or status"
DATABASE_AWAY = "the database is not answering; whether a job was stored is not known: send it again with its idempotency_key"
#: What a client is told of each trouble with the database that passes.
DATABASE_TROUBLES = {
    Trouble.AWAY: DATABASE_AWAY,
    Trouble.NO_CONNECTION: DATABASE_AWAY,
    Trouble.READ_ONLY: "the database takes no writes at the moment (it is read-only); send the request again",
    Trouble.BUSY: "the database is busy: another session holds a lock that this needs; send the request again",
    Trouble.SLOW: "the database took too long over this and it was given up; send the request again",
    Trouble.FULL: "the database has no room left (connections, disk or memory); send the request again",
    Trouble.REFUSED: "the database refuses DJPS; its operator has to look; send the request again later",
}

#: Seconds after which a client may try again when the database is away.
RETRY_AFTER_DATABASE = 1
#: Seconds after which a client may try again when Redis is away.
RETRY_AFTER_REDIS = 1
#: Seconds after which a client may try again when another one was quicker: at a key, or at a job.
RETRY_AFTER_RACE = 1
#: Seconds after which a client may try again when too many wait.
RETRY_AFTER_WAITERS = 2
#: Seconds after which a client may try again when too many search.
RETRY_AFTER_SEARCHES = 2
#: Seconds after which a client may try again when its window's end is not known.
LONGEST_WINDOW = 60
_STATUS_OF: dict[type[JobError], HTTPStatus] = {
    JobBusy: HTTPStatus.CONFLICT,
    JobEnded: HTTPStatus.CONFLICT,
    JobGone: HTTPStatus.GONE,
    JobNotFound: HTTPStatus.NOT_FOUND,
    KeyElsewhere: HTTPStatus.CONFLICT,
    KeyFull: HTTPStatus.TOO_MANY_REQUESTS,
    KeyOfPruned: HTTPStatus.GONE,
    KeyRace: HTTPStatus.CONFLICT,
    KeyReused: HTTPStatus.UNPROCESSABLE_ENTITY,
    NoOpenLetter: HTTPStatus.CONFLICT,
    NotForRetry: HTTPStatus.CONFLICT,
    OutOfReach: HTTPStatus.FORBIDDEN,
    QueueFull: HTTPStatus.SERVICE_UNAVAILABLE,
    UniqueHeld: HTTPStatus.CONFLICT,
    UniqueOfPruned: HTTPStatus.GONE,
    UniqueRace: HTTPStatus.CONFLICT,
}
_STATUS_OF_FLOW: dict[type[FlowError], HTTPStatus] = {
    NotInOrder: HTTPStatus.CONFLICT,
    OlderRelease: HTTPStatus.CONFLICT,
    Shared: HTTPStatus.FORBIDDEN,
    StaleVersion: HTTPStatus.PRECONDITION_FAILED,
    TasksOutOfReach: HTTPStatus.FORBIDDEN,
    UnknownTarget: HTTPStatus.NOT_FOUND,
    WorkersUnknown: HTTPStatus.SERVICE_UNAVAILABLE,
}
_STATUS_OF_ACCESS: dict[type[AccessError], HTTPStatus] = {
    CannotGive: HTTPStatus.FORBIDDEN,
    KeyEnded: HTTPStatus.CONFLICT,
    OnCommandLine: HTTPStatus.FORBIDDEN,
    TooManyKeys: HTTPStatus.CONFLICT,
    UnknownKey: HTTPStatus.NOT_FOUND,
    UnknownTenant: HTTPStatus.NOT_FOUND,
}
_STATUS_OF_SCHEDULES: dict[type[ScheduleError], HTTPStatus] = {
    NameTaken: HTTPStatus.CONFLICT,
    ScheduleChanged: HTTPStatus.PRECONDITION_FAILED,
    UnknownSchedule: HTTPStatus.NOT_FOUND,
}
_STATUS_OF_BATCHES: dict[type[BatchError], HTTPStatus] = {
    BatchConflict: HTTPStatus.CONFLICT,
    BatchGone: HTTPStatus.GONE,
    UnknownBatch: HTTPStatus.NOT_FOUND,
}
_STATUS_OF_WORKFLOWS: dict[type[WorkflowError], HTTPStatus] = {
    NothingToRetry: HTTPStatus.CONFLICT,
    UnknownStep: HTTPStatus.NOT_FOUND,
    UnknownWorkflow: HTTPStatus.NOT_FOUND,
    WorkflowEnded: HTTPStatus.CONFLICT,
    WorkflowGone: HTTPStatus.GONE,
}


def problem(
    status: int,
    detail: str,
    *,
    errors: list[Breach] | None = None,
    retry_after: int | None = None,
    kind: str = "about:blank",
    missing_scope: str | None = None,
    quota: QuotaExceeded | None = None,
) -> Response:
    """An answer with a problem document.

    Args:
        quota: what the caller's key has used up.
        missing_scope: what the caller's key lacks.
        kind: its type, where the status does not say all.
    """
    document = Problem(
        type=kind,
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        request_id=g.get("request_id"),
        errors=errors,
        missing_scope=missing_scope,
        **({} if quota is None else {"quota": quota.quota, "limit": quota.limit, "used": quota.used}),
    )
    response = Response(
        document.model_dump_json(exclude_none=True) + "\n", status, mimetype="application/problem+json"
    )
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response


def init_app(app: Flask) -> None:
    """Registers the handlers of every error a view can raise."""
    app.register_error_handler(ValidationError, _invalid)
    app.register_error_handler(BadBody, _bad_body)
    app.register_error_handler(PayloadRefused, _payload_refused)
    app.register_error_handler(OptionRefused, _option_refused)
    app.register_error_handler(JobError, _job_error)
    app.register_error_handler(SubmissionRefused, _submission_refused)
    app.register_error_handler(FlowError, _flow_error)
    app.register_error_handler(FieldRefused, _field_refused)
    app.register_error_handler(ScheduleError, _schedule_error)
    app.register_error_handler(BatchFieldRefused, _field_refused)
    app.register_error_handler(BatchError, _batch_error)
    app.register_error_handler(WorkflowRefused, _field_refused)
    app.register_error_handler(StepPayloadRefused, _step_payload_refused)
    app.register_error_handler(WorkflowError, _workflow_error)
    app.register_error_handler(NotLetIn, _not_let_in)
    app.register_error_handler(AccessError, _access_error)
    app.register_error_handler(QuotaExceeded, _quota_exceeded)
    app.register_error_handler(RateLimitExceeded, _too_many)
    app.register_error_handler(TooManyWaiters, _too_many_waiters)
    app.register_error_handler(TooManySearches, _too_many_searches)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(SQLAlchemyError, _database_error)
    app.register_error_handler(NotTold, _not_told)
    app.register_error_handler(Exception, _unexpected)


def _invalid(error: ValidationError) -> Response:
    return _broken(breaches_of(error))


def _payload_refused(error: PayloadRefused) -> Response:
    return _broken(breaches_of(error.error, "payload", secret=error.secret))


def _option_refused(error: OptionRefused) -> Response:
    if isinstance(error, UnknownTask):
        outcomes.name_refusal(error)
    return _broken([broken_option(error)])


def broken_option(error: OptionRefused) -> Breach:
    """The rule that an option broke."""
    return Breach(field=error.field, rule=error.rule, given=shown(error.given))


def _broken(breaches: list[Breach]) -> Response:
    first = breaches[0]
    return problem(422, f"{first.field}: {first.rule} (given: {first.given})", errors=breaches)


def _bad_body(error: BadBody) -> Response:
    return problem(422, str(error), errors=[Breach(field=error.field, rule=error.rule, given=error.given)])


def _job_error(error: JobError) -> Response:
    outcomes.name_refusal(error)
    status = next(_STATUS_OF[kind] for kind in type(error).__mro__ if kind in _STATUS_OF)
    passes = isinstance(error, (KeyRace, UniqueRace, JobBusy))
    return problem(status, str(error), retry_after=RETRY_AFTER_RACE if passes else None)


def _submission_refused(error: SubmissionRefused) -> Response:
    outcomes.name_refusal(error)
    status = _STATUS_OF[type(error)]
    return problem(status, str(error), retry_after=error.retry_after, kind=error.code)


def _flow_error(error: FlowError) -> Response:
    status = _STATUS_OF_FLOW[type(error)]
    return problem(
        status, str(error), retry_after=RETRY_AFTER_RACE if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    )


def _field_refused(error: FieldRefused | BatchFieldRefused | WorkflowRefused) -> Response:
    return _broken([Breach(field=error.field, rule=error.rule, given=shown(error.given))])


def _schedule_error(error: ScheduleError) -> Response:
    status = next(_STATUS_OF_SCHEDULES[kind] for kind in type(error).__mro__ if kind in _STATUS_OF_SCHEDULES)
    return problem(status, str(error))


def _batch_error(error: BatchError) -> Response:
    status = next(_STATUS_OF_BATCHES[kind] for kind in type(error).__mro__ if kind in _STATUS_OF_BATCHES)
    return problem(status, str(error), retry_after=RETRY_AFTER_RACE if isinstance(error, PartBusy) else None)


def _step_payload_refused(error: StepPayloadRefused) -> Response:
    return _broken(breaches_of(error.error, *error.under, secret=error.secret))


def _workflow_error(error: WorkflowError) -> Response:
    return problem(_STATUS_OF_WORKFLOWS[type(error)], str(error))


def _access_error(error: AccessError) -> Response:
    return problem(_STATUS_OF_ACCESS[type(error)], str(error))


def _quota_exceeded(error: QuotaExceeded) -> Response:
    outcomes.name_refusal(error)
    return problem(429, str(error), retry_after=error.retry_after, kind="quota", quota=error)


def _not_let_in(error: NotLetIn) -> Response:
    metrics.auth_refusals.labels(error.reason).inc()
    if isinstance(error, KeysUnknown):
        return problem(503, str(error), retry_after=RETRY_AFTER_DATABASE)
    missing = error.missing if isinstance(error, ScopeMissing) else None
    note_refusal(error.reason, missing)
    if isinstance(error, TooManyAttempts):
        outcomes.name_refusal(error)
        return problem(429, str(error), retry_after=error.retry_after)
    if isinstance(error, NoGoodKey):
        answer = problem(401, str(error))
        # RFC 6750: what is wrong is said only to those who have sent something.
        answer.headers["WWW-Authenticate"] = (
            "Bearer" if isinstance(error, NoKey) else 'Bearer error="invalid_token"'
        )
        return answer
    return problem(421 if isinstance(error, HostNotServed) else 403, str(error), missing_scope=missing)


def _too_many(error: RateLimitExceeded) -> Response:
    """The window's end is only looked up for those who are refused; it costs two exchanges with Redis."""
    current = limiter.current_limit
    wait = int(current.reset_at - time.time()) if current is not None else LONGEST_WINDOW
    return problem(429, error.description or "too many requests", retry_after=max(1, wait))


def _too_many_waiters(error: TooManyWaiters) -> Response:
    return problem(503, str(error), retry_after=RETRY_AFTER_WAITERS)


def _too_many_searches(error: TooManySearches) -> Response:
    return problem(503, str(error), retry_after=RETRY_AFTER_SEARCHES)


def _http_error(error: HTTPException) -> Response:
    answer = problem(error.code or 500, error.description or "no detail")
    for name, value in error.get_headers():
        if name.lower() in {"allow", "retry-after"}:
            answer.headers[name] = value
    return answer


def _database_error(error: SQLAlchemyError) -> Response:
    """503 for what passes, by the error's SQLSTATE; anything else is an error inside DJPS."""
    trouble = database_errors.trouble_of(error)
    if trouble is Trouble.DEFECT:
        return _unexpected(error)
    if trouble is Trouble.SLOW and request.method == "GET":
        return problem(503, SEARCH_TOO_LONG)
    metrics.database_refusals.labels(trouble.value).inc()
    logger.warning(
        "request was refused, the database is in trouble",
        extra={"trouble": trouble.value, **database_errors.fields_of(error)},
    )
    return problem(503, DATABASE_TROUBLES[trouble], retry_after=RETRY_AFTER_DATABASE)


def _not_told(error: NotTold) -> Response:
    if isinstance(error, RangeRefused):
        return _broken([Breach(field=error.field, rule=error.rule, given=error.given)])
    if not isinstance(error, RedisAway):
        return problem(404, str(error))
    logger.warning("request needs Redis, which is away", extra={"error_type": error.error_type})
    return problem(503, str(error), retry_after=RETRY_AFTER_REDIS)


def _unexpected(error: Exception) -> Response:
    about = database_errors.fields_of(error) if database_errors.is_of_database(error) else {}
    logger.error("request failed unexpectedly", exc_info=error, extra=about)
    return problem(500, "an error inside DJPS; the log names it by this request_id")
