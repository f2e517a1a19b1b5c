"""`/metrics`: the counters of all processes, and gauges read from PostgreSQL and Redis at scrape time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flask import Blueprint, Flask, Response, current_app
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from webapp import heartbeats, metrics
from webapp.api.openapi import documented
from webapp.jobs import census
from webapp.jobs.handlers import registry

if TYPE_CHECKING:
    from redis import Redis
    from sqlalchemy import Engine

    from webapp.settings import Settings

logger = logging.getLogger(__name__)
bp = Blueprint("metrics", __name__)

#: How long Redis may take to answer a scrape, seconds.
SCRAPE_TIMEOUT = 0.5


class LiveGauges(Collector):
    """What is true right now; a gauge whose source is away is left out, not zero."""

    def __init__(self, engine: Engine, redis: Redis) -> None:
        self._engine = engine
        self._redis = redis

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Reads depths, ages and heartbeats."""
        try:
            yield from self._jobs()
        except SQLAlchemyError:
            logger.warning("queue gauges could not be read from the database")
        try:
            workers = GaugeMetricFamily("active_workers", "Workers whose heartbeat has not run out.")
            workers.add_metric([], len(heartbeats.live_workers(self._redis)))
            yield workers
        except RedisError:
            logger.warning("worker gauge could not be read from Redis")

    def _jobs(self) -> Iterator[GaugeMetricFamily]:
        with self._engine.connect() as connection:
            depths = census.depths(connection)
            ages = census.oldest_due(connection)
        queues = sorted({*registry.queues(), *(queue for queue, _ in depths)})
        depth = GaugeMetricFamily("job_queue_depth", "Unfinished jobs.", labels=["queue", "status"])
        age = GaugeMetricFamily("job_oldest_due_age_seconds", "Age of the oldest due job.", labels=["queue"])
        for queue in queues:
            for status in ("queued", "processing"):
                depth.add_metric([queue, status], depths.get((queue, status), 0))
            age.add_metric([queue], max(0.0, ages.get(queue, 0.0)))
        yield depth
        yield age


def init_app(app: Flask, settings: Settings, engine: Engine) -> None:
    """Gives the gauges their connections."""
    app.extensions["gauges"] = LiveGauges(engine, heartbeats.connect(settings.redis_url, SCRAPE_TIMEOUT))


@bp.get("/metrics")
@documented({200: "text/plain"})
def exposition() -> Response:
    """Everything in Prometheus' text format."""
    stored = metrics.stored()
    stored.register(current_app.extensions["gauges"])
    return Response(generate_latest(stored), content_type=CONTENT_TYPE_LATEST)
