"""What a child claims when a rate lets the next job start in a moment, and when the database does not say."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from factories import queued
from sqlalchemy import create_engine

from tasks.attempt import claims
from webapp.flow import lanes
from webapp.flow.book import FlowBook
from webapp.flow.limits import Limits, QueueLimits, Rate
from webapp.flow.model import lane_of
from webapp.infra.broker.hints import Ticket
from webapp.jobs.options import PLAIN

TICKET = Ticket("default", "noop", 300.0)


@pytest.fixture
def rated(limit):
    """One start at once, and the next one a fiftieth of a second later."""
    limit(QueueLimits(Limits(rate=Rate(50, 1.0, 1))))


@pytest.fixture
def away(parts, closed_port):
    """The parts of a child whose database is not there."""
    engine = create_engine(f"postgresql+psycopg2://x@127.0.0.1:{closed_port}/x")
    yield replace(parts, engine=engine, book=FlowBook(engine))
    engine.dispose()


def in_lane(engine, count):
    return [queued(engine, lane=lane_of("default", None), terms=PLAIN) for _ in range(count)]


def test_the_next_start_is_waited_for_where_it_is_near(parts, engine, rated, monkeypatch):
    in_lane(engine, 2)
    waited, wait = [], time.sleep
    monkeypatch.setattr(claims.time, "sleep", lambda seconds: (waited.append(seconds), wait(seconds)))
    (first,) = claims.claim_due(parts, TICKET)
    (second,) = claims.claim_soon(parts, TICKET)
    assert first.id != second.id
    assert 0 <= waited[0] <= 0.02


def test_where_nothing_waits_for_a_rate_nothing_is_waited_for(parts, engine, rated, monkeypatch):
    monkeypatch.setattr(claims.time, "sleep", lambda _: pytest.fail("it waited"))
    assert claims.claim_soon(parts, TICKET) == []
    with engine.connect() as connection:
        assert lanes.seconds_to_next_start(connection, [TICKET.queue], within=60.0) is None


def test_without_limits_nothing_is_asked(parts, engine, monkeypatch):
    parts.book.forget()
    monkeypatch.setattr(claims, "in_one_trip", lambda *_: pytest.fail("it asked"))
    assert claims.claim_soon(parts, TICKET) == []


def test_a_database_that_does_not_say_is_not_waited_for(parts, engine, rated, away):
    assert not claims.is_in_lanes(away, TICKET)
    assert claims.claim_soon(away, TICKET) == []
    # The rules are known here, and the database goes away after that.
    assert claims.is_in_lanes(parts, TICKET)
    assert claims.claim_soon(replace(parts, engine=away.engine), TICKET) == []
