"""HTTP: translates requests into calls of the domain, and its answers into JSON. Nothing more."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flask import Flask, Response, g, request
from uuid_utils.compat import uuid7

from webapp.api import (
    access,
    audit,
    batch,
    batch_following,
    batches,
    bodies,
    callers,
    control,
    dlq,
    docs,
    errors,
    figures,
    flow,
    following,
    guard,
    health,
    job_logs,
    jobs,
    metrics,
    openapi,
    outcomes,
    queue_keys,
    reads,
    schedules,
    searching,
    system,
    traces,
    usage,
    workflows,
)
from webapp.api.extensions import LIMITER_SCHEME, limiter
from webapp.infra.broker import redis_keys
from webapp.infra.postgres import deadlines
from webapp.infra.telemetry import logs

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from webapp.settings import Settings

#: A request id from outside is kept when it looks like one.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
#: How long the limiter waits for Redis before it counts in memory, seconds.
LIMITER_TIMEOUT = 0.1
#: How long a request that stores something waits for PostgreSQL in all, seconds; then it is refused.
WRITE_BUDGET = 0.8
#: How long a request that reads waits, seconds: a slow query is ended by the server before that.
READ_BUDGET = 3.0
#: Longest a request's statement may run, milliseconds.
STATEMENT_TIMEOUT_MS = 2_500
#: Longest it waits for a lock, milliseconds.
LOCK_TIMEOUT_MS = 500


def init_app(app: Flask, settings: Settings, engine: Engine) -> None:
    """Registers views, errors, limiter, request ids and HTTP metrics."""
    app.config.update(
        RATELIMIT_ENABLED=bool(settings.rate_limit),
        RATELIMIT_STORAGE_URI=LIMITER_SCHEME + settings.redis_url,
        RATELIMIT_STORAGE_OPTIONS={
            "key_prefix": redis_keys.key(redis_keys.LIMITS),
            "socket_timeout": LIMITER_TIMEOUT,
            "socket_connect_timeout": LIMITER_TIMEOUT,
        },
        RATELIMIT_IN_MEMORY_FALLBACK_ENABLED=True,
        # When two threads find Redis gone at once, the extension hands the second one its error.
        RATELIMIT_SWALLOW_ERRORS=True,
        RATELIMIT_KEY_PREFIX="djps",
    )
    app.extensions["largest_body"] = bodies.largest_of(settings)
    # `/jobs//x` is no path of ours; it is not found, and not sent elsewhere.
    app.url_map.merge_slashes = False
    # The place comes before a request's time begins to run: it may have to wait for it.
    app.before_request(_open_request)
    guard.init_app(app, settings)
    # Before a slot is taken: a request that is refused holds none.
    callers.init_app(app, settings, engine)
    usage.init_app(app, settings, engine)
    listen_url = settings.database_listen_url or settings.database_url
    following.init_app(app, listen_url, waiters=settings.max_waiters)
    app.before_request(_begin_time)
    app.after_request(_name_request)
    app.teardown_request(_close_request)
    for view in (
        jobs.bp,
        batch.bp,
        following.bp,
        control.bp,
        batches.bp,
        batch_following.bp,
        job_logs.bp,
        dlq.bp,
        flow.bp,
        queue_keys.bp,
        schedules.bp,
        workflows.bp,
        access.bp,
        audit.bp,
        system.bp,
        figures.bp,
        health.bp,
        metrics.bp,
        docs.index_bp,
        docs.bp,
    ):
        app.register_blueprint(view)
    searching.init_app(app)
    reads.init_app(app, settings, engine)
    openapi.init_app(app)
    callers.check_views(app)
    errors.init_app(app)
    limiter.init_app(app)
    health.init_app(app, settings, engine)
    system.init_app(app, settings, engine)
    metrics.init_app(app, settings, engine)
    outcomes.init_app(app)


def _open_request() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid7())
    g.log_scope = logs.bound(request_id=g.request_id, **traces.open_request(g.request_id))
    g.log_scope.__enter__()


def _begin_time() -> None:
    deadlines.bound(READ_BUDGET if request.method in {"GET", "HEAD"} else WRITE_BUDGET)


def _name_request(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.get("request_id", "")
    response.headers["X-Content-Type-Options"] = "nosniff"
    traces.note_answer(response)
    return response


def _close_request(error: BaseException | None) -> None:
    deadlines.unbound()
    traces.close_request(error)
    scope = g.pop("log_scope", None)
    if scope is not None:
        scope.__exit__(None, None, None)
