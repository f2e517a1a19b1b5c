"""`/metrics`: the counters of all processes of this host, HTTP by route, and gauges read at scrape time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Flask, Request, Response, current_app, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_flask_exporter import PrometheusMetrics

from webapp.access.model import Scope
from webapp.api import callers
from webapp.api import system_examples as examples
from webapp.api.gauges import SCRAPE_TIMEOUT, LiveGauges
from webapp.api.openapi import documented
from webapp.infra.broker import heartbeats
from webapp.infra.telemetry import metrics

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from webapp.settings import Settings

bp = Blueprint("metrics", __name__)

#: Methods that are counted; a client may make up others, and each would be a series.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def init_app(app: Flask, settings: Settings, engine: Engine) -> None:
    """Gives the gauges their connections, and counts requests from here on."""
    app.extensions["gauges"] = LiveGauges(
        engine,
        heartbeats.connect(settings.redis_url, SCRAPE_TIMEOUT),
        app.extensions["replica"],
        is_open=callers.is_open_to_all(settings),
    )
    app.before_request(_leave_out)
    # A registry for each application: values go through shared files, and two applications in one process
    # would otherwise declare the same names twice.
    PrometheusMetrics.for_app_factory(
        path=None, group_by=route, buckets=metrics.HTTP_BUCKETS, registry=CollectorRegistry()
    ).init_app(app)


def route(given: Request) -> str:
    """The template of the path, such as `/jobs/<job_id>`: never the path itself."""
    return given.url_rule.rule if given.url_rule is not None else "none"


def _leave_out() -> None:
    if request.method not in METHODS:
        # The mark that the exporter looks for.
        request.prom_do_not_track = True  # type: ignore[attr-defined]


@bp.get("/metrics")
@documented({200: "text/plain"}, need=Scope.METRICS_READ, examples=examples.METRICS)
def exposition() -> Response:
    """Everything in Prometheus' text format."""
    stored = metrics.stored()
    stored.register(current_app.extensions["gauges"])
    return Response(generate_latest(stored), content_type=CONTENT_TYPE_LATEST)
