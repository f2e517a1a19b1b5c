"""The application: its domain in `webapp.jobs`, its HTTP in `webapp.api`.

Nothing is imported here before `create_app` runs, so that `webapp.settings` can be read on its own.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

#: What `djps_build_info` says.
VERSION = "1.0.0"
#: Longest that Redis is asked which workers are alive before limits are set, seconds.
HEARTBEATS_TIMEOUT = 1.0

if TYPE_CHECKING:
    from flask import Flask
    from sqlalchemy import Engine

    from webapp.audit.service import AuditRecord
    from webapp.flow.book import FlowBook
    from webapp.jobs.submission import Rules
    from webapp.queues.outbox import Outbox
    from webapp.settings import Settings


def create_app(
    settings: Settings | None = None, *, role: str = "api", command_line: bool | None = None
) -> Flask:
    """Makes the Flask application and binds the extensions to it.

    Args:
        settings: those of the environment when None.
        role: what this process is, for logs and `pg_stat_activity`: api, worker, beat, ...
        command_line: whether its commands and migrations are wanted: Alembic and what it loads are 10 MiB in every
            process. None: where Flask's command line runs.

    Raises:
        SettingsError: a variable breaks its rule, or a module named in HANDLERS cannot be imported.
        ValueError: a handler is registered with a wrong name, queue or limit.
    """
    from functools import partial

    from flask import Flask
    from werkzeug.middleware.proxy_fix import ProxyFix

    from webapp import api
    from webapp.api.actors import current_actor
    from webapp.api.extensions import QuickJSON, db
    from webapp.api.work_slots import WorkSlots
    from webapp.audit.service import AuditRecord
    from webapp.flow.book import FlowBook
    from webapp.infra.broker.client import bind_celery
    from webapp.infra.broker.publish import Broker
    from webapp.infra.postgres import deadlines
    from webapp.infra.postgres.engine import engine_options, watch_idle
    from webapp.infra.telemetry import logs, metrics, traces
    from webapp.jobs import handlers
    from webapp.jobs.submission import Limits, Rules
    from webapp.queues.dispatch import hand_back
    from webapp.queues.outbox import Outbox
    from webapp.settings import current, local

    settings = settings or current()
    local.go_around_proxies()
    logs.configure(settings.log_level)
    handlers.load(settings.handler_modules, settings.default_handler, settings.queue_names)
    bind_celery((*handlers.registry.queues(), handlers.MAINTENANCE_QUEUE))
    metrics.know(handlers.registry.names(), handlers.registry.queues())

    class Application(Flask):
        """Flask's, without its question before each function of a request whether that is a coroutine: none is."""

        json_provider_class = QuickJSON

        def ensure_sync(self, func: Any) -> Any:
            return func

    traces.install(settings, role, VERSION)
    deadlines.install()
    app = Application(__name__, static_folder=None)
    app.config.update(
        SQLALCHEMY_DATABASE_URI=settings.database_url,
        SQLALCHEMY_ENGINE_OPTIONS=engine_options(
            f"djps-{role}",
            pool_size=settings.api_threads,
            statement_timeout=api.STATEMENT_TIMEOUT_MS,
            lock_timeout=api.LOCK_TIMEOUT_MS,
            url=settings.database_url,
        ),
        MAX_CONTENT_LENGTH=settings.max_payload_bytes,
    )
    app.extensions["settings"] = settings
    db.init_app(app)
    with app.app_context():
        engine = watch_idle(db.engine)
    broker = Broker(
        settings.redis_url,
        buffer=settings.broker_buffer,
        chunk_of=handlers.registry.chunk_of,
        most=settings.max_tasks_per_child,
    )
    rules = Rules(handlers.registry, Limits.of(settings))
    book = FlowBook(engine)
    audit = app.extensions["audit"] = AuditRecord(engine, current_actor)
    app.extensions["work_slots"] = WorkSlots(settings.api_threads)
    _bind_jobs(app, engine, rules, Outbox(broker, partial(hand_back, engine)), book)
    _bind_flow(app, engine, book, settings)
    _bind_records(app, engine, audit, settings)
    api.init_app(app, settings, engine)
    if command_line if command_line is not None else os.environ.get("FLASK_RUN_FROM_CLI") == "true":
        _bind_commands(app)
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies)  # type: ignore[method-assign]
    return app


def _bind_records(app: Flask, engine: Engine, audit: AuditRecord, settings: Settings) -> None:
    """Gives it the front doors of dead letters, of tenants and of keys."""
    from functools import partial

    from webapp.access.service import Access
    from webapp.access.tenants import Tenants
    from webapp.dead_letters.service import DeadLetters
    from webapp.infra.broker import heartbeats
    from webapp.jobs.handlers import registry

    redis = heartbeats.connect(settings.redis_url, HEARTBEATS_TIMEOUT)
    older = partial(heartbeats.running_without, redis, heartbeats.TENANTS)
    app.extensions["tenants"] = Tenants(engine, registry.queues, older, audit)
    app.extensions["dead_letters"] = DeadLetters(engine, audit=audit)
    app.extensions["access"] = Access(engine, audit)


def _bind_jobs(app: Flask, engine: Engine, rules: Rules, outbox: Outbox, book: FlowBook) -> None:
    """Gives it the front doors of jobs, and of what submits jobs by itself."""
    from webapp.batches.course import CallbackTerms
    from webapp.jobs.service import Jobs
    from webapp.schedules.making import JobMaker
    from webapp.schedules.runs import Runs
    from webapp.schedules.service import Schedules
    from webapp.workflows.means import Means
    from webapp.workflows.service import Workflows

    audit, slot = app.extensions["audit"], app.extensions["work_slots"].slot
    jobs = app.extensions["jobs"] = Jobs(engine, rules, outbox, book, slot=slot, audit=audit)
    maker = JobMaker(rules, book, jobs.admission)
    app.extensions["schedules"] = Schedules(engine, maker, audit)
    app.extensions["schedule_runs"] = Runs(engine, maker, audit)
    settings: Settings = app.extensions["settings"]
    means = Means(maker, outbox, settings.max_payload_bytes, CallbackTerms(settings.job_timeout))
    app.extensions["workflows"] = Workflows(engine, means, audit, retention_days=settings.retention_days)
    _bind_batches(app, engine, rules, book)


def _bind_batches(app: Flask, engine: Engine, rules: Rules, book: FlowBook) -> None:
    """Gives it the front doors of batches."""
    from webapp.batches.control import Control, Keeper
    from webapp.batches.course import CallbackTerms
    from webapp.batches.service import Batches

    audit = app.extensions["audit"]
    terms = CallbackTerms(app.extensions["settings"].job_timeout)
    batches = Batches(engine, app.extensions["jobs"], rules, book, callbacks=terms, audit=audit)
    app.extensions["batches"] = batches
    app.extensions["batch_control"] = Control(engine, batches, Keeper(engine, book, terms), audit)


def _bind_flow(app: Flask, engine: Engine, book: FlowBook, settings: Settings) -> None:
    """Gives it the front doors of flow control."""
    from functools import partial

    from webapp.flow.keys import Keys
    from webapp.flow.service import Flow
    from webapp.infra.broker import heartbeats
    from webapp.jobs.handlers import registry

    redis = heartbeats.connect(settings.redis_url, HEARTBEATS_TIMEOUT)
    older = partial(heartbeats.running_without, redis, heartbeats.LIMITS)
    flow = app.extensions["flow"] = Flow(engine, book, registry.known, older, app.extensions["audit"])
    app.extensions["queue_keys"] = Keys(engine, flow)


def _bind_commands(app: Flask) -> None:
    """Gives `flask --app wsgi` our commands, and `db` its migrations."""
    from pathlib import Path

    from flask_migrate import Migrate

    from webapp import cli
    from webapp.api.extensions import db

    folder = Path(__file__).resolve().parent.parent / "migrations"
    # It goes through configparser, to which a % in the path is the beginning of a reference.
    Migrate(app, db, directory=str(folder).replace("%", "%%"), compare_type=True, compare_server_default=True)
    cli.init_app(app)
