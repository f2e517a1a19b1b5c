"""`/overview` and `/series`: how the installation does now, and how it did."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, cast

from flask import Blueprint, Response, current_app, jsonify

from webapp.access.model import Scope
from webapp.api import figures_examples
from webapp.api.figures_schemas import OverviewAnswer, SeriesAnswer, SeriesQuery
from webapp.api.flow import flow
from webapp.api.jobs import query_values
from webapp.api.openapi import documented
from webapp.flow.model import Kind
from webapp.flow.reach import EVERYTHING
from webapp.infra.postgres.engine import in_transaction
from webapp.system import overview as system_overview
from webapp.system import samples
from webapp.system.figures import HISTOGRAMS

if TYPE_CHECKING:
    from redis import Redis
    from sqlalchemy import Engine

bp = Blueprint("figures", __name__)


def _servers() -> tuple[Engine, Redis]:
    return cast("tuple[Engine, Redis]", current_app.extensions["system"])


@bp.get("/overview")
@documented({200: OverviewAnswer}, 503, need=Scope.SYSTEM_READ, examples=figures_examples.OVERVIEW)
def overview() -> Response:
    """How the installation does: what comes in and goes out, what waits, who works, what failed, and what needs attention.

    Rates are of the last whole minute, distributions of the last quarter of an hour. What Redis knows is null while it is not answering.
    """
    engine, redis = _servers()
    states = flow().states
    found = system_overview.look(
        engine,
        redis,
        partial(states, Kind.QUEUE, EVERYTHING),
        partial(states, Kind.TASK, EVERYTHING),
    )
    return jsonify(OverviewAnswer.of(found))


@bp.get("/series")
@documented(
    {200: SeriesAnswer},
    422,
    503,
    need=Scope.SYSTEM_READ,
    query=SeriesQuery,
    examples=figures_examples.SERIES,
)
def series() -> Response:
    """How often something happened in each step of a range of time, from samples that every host writes each ten seconds.

    `runs` and `waits` have how their seconds were spread, too: between which two each share ends, as a histogram knows no more. A step that
    nothing happened in is left out.
    """
    query = SeriesQuery.model_validate(query_values())
    since, until, step = query.within(datetime.now(UTC))
    engine, _ = _servers()
    if query.name in HISTOGRAMS:
        spreads = in_transaction(
            engine,
            lambda connection: samples.buckets(
                connection, query.name, since, until, step, task=query.task, queue=query.queue
            ),
        )
        return jsonify(SeriesAnswer.of_spreads(query.name, step, spreads))
    counts = in_transaction(
        engine, lambda connection: samples.counts(connection, query.name, since, until, step)
    )
    return jsonify(SeriesAnswer.of_counts(query.name, step, counts))
