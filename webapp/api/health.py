"""`/health`: is this process alive, and can it take jobs?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Flask, Response, current_app, jsonify
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from webapp import heartbeats, waits
from webapp.api import examples
from webapp.api.openapi import documented
from webapp.api.schemas import HealthAnswer, ReadyAnswer

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from webapp.settings import Settings

bp = Blueprint("health", __name__)

#: How long Redis may take to answer, seconds.
PROBE_TIMEOUT = 0.25
#: How long PostgreSQL may take, seconds.
DATABASE_TIMEOUT = 0.6


def init_app(app: Flask, settings: Settings, engine: Engine) -> None:
    """Gives the probes their connections."""
    app.extensions["health"] = (engine, heartbeats.connect(settings.redis_url, PROBE_TIMEOUT))


@bp.get("/health")
@documented({200: HealthAnswer}, examples=examples.HEALTH)
def alive() -> Response:
    """This process answers; nothing else is asked."""
    return jsonify(HealthAnswer().model_dump())


@bp.get("/health/ready")
@documented({200: ReadyAnswer, 503: ReadyAnswer}, examples=examples.READY)
def ready() -> tuple[Response, int]:
    """Whether jobs are taken: `degraded` without Redis (they wait in PostgreSQL), 503 without PostgreSQL."""
    engine, redis = current_app.extensions["health"]
    found = {"postgresql": "ok", "redis": "ok"}
    try:
        with waits.within(DATABASE_TIMEOUT), engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        found["postgresql"] = f"not answering ({type(error).__name__})"
    try:
        redis.ping()
    except RedisError as error:
        found["redis"] = f"not answering ({type(error).__name__})"
    if found["postgresql"] != "ok":
        return jsonify(ReadyAnswer(status="unavailable", dependencies=found).model_dump()), 503
    status = "ok" if found["redis"] == "ok" else "degraded"
    return jsonify(ReadyAnswer(status=status, dependencies=found).model_dump()), 200
