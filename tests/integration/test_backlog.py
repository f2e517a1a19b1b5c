"""Gauges of what waits: exact where there is little, bounded where there are millions, and never gone for a slow count."""

from __future__ import annotations

import time

import psycopg2
import pytest
from factories import age, claimed, completed, dead_lettered, queued
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from sqlalchemy.engine import make_url

from webapp.flow.reach import EVERYTHING
from webapp.queues import backlog
from webapp.queues.backlog import Depth

#: Rows of the test of millions.
MANY = 1_200_000
#: Longest a scrape may take, seconds; a twentieth of it where nothing else runs.
SCRAPE_WITHIN = 5.0


def look(engine):
    with engine.begin() as connection:
        backlog.bound(connection)
        return backlog.depths(connection, EVERYTHING), backlog.open_dead_letters(connection)


@pytest.fixture
def scrape(client):
    def once():
        families = text_string_to_metric_families(client.get("/metrics").text)
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
        }

    return once


def test_little_is_counted_exactly(engine):
    completed(engine)
    claimed(engine)
    claimed(engine, queue="other")
    first = queued(engine)
    queued(engine)
    queued(engine, dispatched=True)
    later = queued(engine)
    queued(engine, queue="third", dispatched=True)
    age(engine, "run_at", 50, first.id)
    age(engine, "run_at", -500, later.id)
    dead_lettered(engine)
    dead_lettered(engine)
    dead_lettered(engine, task="another")
    with engine.begin() as connection:
        connection.execute(text("UPDATE dead_letters SET task = NULL WHERE task = 'another'"))
    depths, letters = look(engine)
    assert {name: (one.queued, one.due) for name, one in depths.queues.items()} == {
        "default": (4, 3),
        "third": (1, 1),
    }
    assert 50 <= depths.queues["default"].oldest < 60
    assert 0 <= depths.queues["third"].oldest < 10
    assert depths.processing == {"default": 1, "other": 1}
    assert letters.of == {"noop": 2, "": 1}
    assert not depths.estimated
    assert not letters.estimated


def test_nothing_is_nothing(engine):
    depths, letters = look(engine)
    assert (depths.queues, depths.processing, depths.estimated) == ({}, {}, False)
    assert letters.of == {"": 0}


def test_what_is_due_later_has_no_age(engine):
    age(engine, "run_at", -500, queued(engine).id)
    assert look(engine)[0].queues == {"default": Depth(1, 0, 0.0)}


@pytest.fixture
def millions(engine):
    """A million jobs that have just come, of which the planner knows nothing, and one of another queue among them."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(
            text("""
                INSERT INTO jobs (id, task, payload, queue, priority, max_retries, timeout, fingerprint)
                SELECT uuidv7(), 'noop', '{}', 'default', n % 10, 3, 300, '' FROM generate_series(1, :many) AS n"""),
            {"many": MANY},
        )
    queued(engine, queue="rare")
    return MANY


def test_millions_cost_no_more_than_a_bound(engine, scrape, millions, monkeypatch):
    bound = backlog.counted_up_to(2)
    began = time.monotonic()
    found = scrape()
    assert time.monotonic() - began < SCRAPE_WITHIN
    assert found["database_up",] == 1
    assert found["database_gauges_kept",] == 0
    assert found["job_counts_estimated",] == 1
    assert found["job_queue_depth", "default", "queued"] >= bound
    assert found["job_due", "default"] >= bound
    assert found["job_oldest_due_age_seconds", "default"] > 0
    assert found["job_queue_depth", "other", "queued"] == 1
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # Autovacuum may be at work on so many rows.
        connection.execute(text("SET statement_timeout = 0; SET lock_timeout = 0"))
        connection.execute(text("ANALYZE jobs"))
        connection.invalidate()
    assert scrape()["job_queue_depth", "default", "queued"] == pytest.approx(millions, rel=0.1)
    # A question that is too slow costs its gauges their freshness, and nothing else anything.
    monkeypatch.setattr(backlog, "_DEPTHS", text("SELECT pg_sleep(5)"))
    began = time.monotonic()
    slow = scrape()
    assert time.monotonic() - began < SCRAPE_WITHIN
    assert {name for name, *_ in found} <= {name for name, *_ in slow}
    assert (slow["database_up",], slow["database_gauges_kept",]) == (1, 1)
    assert slow["job_queue_depth", "default", "queued"] == pytest.approx(millions, rel=0.1)


def test_a_locked_table_costs_no_gauge(scrape, engine, settings):
    queued(engine)
    before = scrape()
    url = make_url(settings.database_url).set(drivername="postgresql")
    connection = psycopg2.connect(url.render_as_string(hide_password=False))
    try:
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
            during = scrape()
        connection.rollback()
    finally:
        connection.close()
    # Which processes are connected, and how, is not for this test to say.
    assert {name for name, *_ in before} <= {name for name, *_ in during}
    assert (during["database_up",], during["database_gauges_kept",]) == (1, 1)
    assert during["job_queue_depth", "default", "queued"] == 1
    assert scrape()["database_gauges_kept",] == 0
