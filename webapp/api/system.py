"""`/workers`, `/settings` and `/system`: what those see who run DJPS."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from flask import Blueprint, Flask, Response, current_app, jsonify

from webapp.access.model import Scope
from webapp.api import system_examples
from webapp.api.openapi import documented
from webapp.api.system_schemas import SettingsAnswer, SystemAnswer, WorkerAnswer, WorkersAnswer
from webapp.infra.broker import heartbeats
from webapp.system import configuration, servers, workers
from webapp.system.sampling import Sampler
from webapp.system.workers import Workers

if TYPE_CHECKING:
    from redis import Redis
    from sqlalchemy import Engine

    from webapp.settings import Settings

bp = Blueprint("system", __name__)

#: How long Redis may take to answer one question, seconds.
REDIS_TIMEOUT = 0.5


def init_app(app: Flask, settings: Settings, engine: Engine) -> None:
    """Gives the views their connections."""
    app.extensions["sampler"] = Sampler(engine)
    app.extensions["system"] = (engine, heartbeats.connect(settings.redis_url, REDIS_TIMEOUT))


def _servers() -> tuple[Engine, Redis]:
    return cast("tuple[Engine, Redis]", current_app.extensions["system"])


def _look() -> Workers:
    engine, redis = _servers()
    return workers.look(redis, engine)


@bp.get("/workers")
@documented({200: WorkersAnswer}, 503, need=Scope.SYSTEM_READ, examples=system_examples.WORKERS)
def index() -> Response:
    """The workers that are alive, with what each of their processes runs; and those that went within the last hour.

    What a worker says of itself is as old as its heartbeat, which `seen_seconds_ago` tells.
    """
    found = _look()
    return jsonify(
        {
            "items": [WorkerAnswer.of(one, found.jobs, is_alive=True) for one in found.alive],
            "gone": [WorkerAnswer.of(one, found.jobs, is_alive=False) for one in found.gone],
        }
    )


@bp.get("/workers/<worker>")
@documented({200: WorkerAnswer}, 404, 503, need=Scope.SYSTEM_READ, examples=system_examples.WORKER)
def one(worker: str) -> Response:
    """One worker, by its name (`host:pid:boot`)."""
    found = _look()
    wanted = found.one(worker)
    return jsonify(WorkerAnswer.of(wanted, found.jobs, is_alive=wanted in found.alive))


@bp.get("/settings")
@documented({200: SettingsAnswer}, need=Scope.SYSTEM_READ, examples=system_examples.SETTINGS)
def settings() -> Response:
    """The settings of the process that answers, each with its default and where its value comes from; secrets are not shown."""
    found = configuration.in_force(current_app.extensions["settings"])
    return jsonify({"items": [one._asdict() for one in found]})


@bp.get("/system")
@documented({200: SystemAnswer}, 503, need=Scope.SYSTEM_READ, examples=system_examples.SYSTEM)
def system() -> Response:
    """Versions, and how PostgreSQL, Redis, beat and maintenance do; what Redis knows is null while it is not answering."""
    engine, redis = _servers()
    return jsonify(SystemAnswer.of(servers.database(engine), servers.broker(redis)))
