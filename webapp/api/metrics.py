"""`/metrics`: the counters of all processes of this host, and gauges read from PostgreSQL and Redis at scrape time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Flask, Response, current_app
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from webapp import heartbeats, metrics
from webapp.api import examples
from webapp.api.gauges import LiveGauges
from webapp.api.openapi import documented

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from webapp.settings import Settings

bp = Blueprint("metrics", __name__)

#: How long Redis may take to answer a scrape, seconds.
SCRAPE_TIMEOUT = 0.5


def init_app(app: Flask, settings: Settings, engine: Engine) -> None:
    """Gives the gauges their connections."""
    app.extensions["gauges"] = LiveGauges(engine, heartbeats.connect(settings.redis_url, SCRAPE_TIMEOUT))


@bp.get("/metrics")
@documented({200: "text/plain"}, examples=examples.METRICS)
def exposition() -> Response:
    """Everything in Prometheus' text format."""
    stored = metrics.stored()
    stored.register(current_app.extensions["gauges"])
    return Response(generate_latest(stored), content_type=CONTENT_TYPE_LATEST)
