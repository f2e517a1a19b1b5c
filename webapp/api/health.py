"""`/health`: is this process alive, and can it take jobs?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Flask, Response, current_app, jsonify
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from sqlalchemy.exc import SQLAlchemyError

from webapp.access.model import Openness
from webapp.api import system_examples as examples
from webapp.api.answers import HealthAnswer, ReadyAnswer
from webapp.api.openapi import documented
from webapp.infra.broker import heartbeats, redis_keys
from webapp.infra.postgres import deadlines
from webapp.infra.postgres.engine import takes_writes

if TYPE_CHECKING:
    from redis import Redis
    from sqlalchemy import Engine

    from webapp.settings import Settings

bp = Blueprint("health", __name__)

#: How long Redis may take to answer, seconds.
PROBE_TIMEOUT = 0.25
#: How long PostgreSQL may take, seconds.
DATABASE_TIMEOUT = 0.6
#: How long what the probe writes to Redis is kept, seconds.
PROBE_KEPT = 60
#: What is said where a server answers and its certificate is refused: waiting does not help, a setting is wrong.
NOT_TRUSTED = "certificate not trusted, see {}"
#: How OpenSSL, libpq and Python say so; all the text there is, for libpq's errors have no class of their own.
_UNTRUSTED = ("certificate verify failed", "does not match host name")


def init_app(app: Flask, settings: Settings, engine: Engine) -> None:
    """Gives the probes their connections."""
    app.extensions["health"] = (engine, heartbeats.connect(settings.redis_url, PROBE_TIMEOUT))


@bp.get("/health")
@documented({200: HealthAnswer}, need=Openness.PUBLIC, examples=examples.HEALTH)
def alive() -> Response:
    """This process answers; nothing else is asked."""
    return jsonify(HealthAnswer().model_dump())


@bp.get("/health/ready")
@documented({200: ReadyAnswer, 503: ReadyAnswer}, need=Openness.PUBLIC, examples=examples.READY)
def ready() -> tuple[Response, int]:
    """Whether jobs are taken: `degraded` without Redis (they wait in PostgreSQL), 503 where PostgreSQL takes no writes."""
    engine, redis = current_app.extensions["health"]
    found = {"postgresql": _postgresql(engine), "redis": _redis(redis)}
    if found["postgresql"] != "ok":
        return jsonify(ReadyAnswer(status="unavailable", dependencies=found).model_dump()), 503
    status = "ok" if found["redis"] == "ok" else "degraded"
    return jsonify(ReadyAnswer(status=status, dependencies=found).model_dump()), 200


def _postgresql(engine: Engine) -> str:
    """`ok` if it takes writes, else what is the matter."""
    try:
        with deadlines.within(DATABASE_TIMEOUT):
            if not takes_writes(engine):
                return "read-only"
    except SQLAlchemyError as error:
        if is_untrusted(error):
            return NOT_TRUSTED.format("DATABASE_URL")
        return f"not answering ({type(error).__name__})"
    return "ok"


def _redis(redis: Redis) -> str:
    """`ok` if it takes writes, else what is the matter: a replica answers a ping as well."""
    try:
        redis.set(redis_keys.key(redis_keys.PROBE), "", ex=PROBE_KEPT)
    except ReadOnlyError:
        return "read-only"
    except ResponseError as error:
        return f"takes no writes ({type(error).__name__})"
    except RedisError as error:
        if is_untrusted(error):
            return NOT_TRUSTED.format("REDIS_URL")
        return f"not answering ({type(error).__name__})"
    return "ok"


def is_untrusted(error: Exception) -> bool:
    """True if a connection failed because the server's certificate was refused here."""
    return any(text in str(error) for text in _UNTRUSTED)
