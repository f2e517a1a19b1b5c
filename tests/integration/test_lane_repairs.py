"""The sweep over lanes: what was forgotten runs, what is over is forgotten, and no other lane is touched."""

from __future__ import annotations

from dataclasses import replace

import pytest
from factories import books, queued
from sqlalchemy import event, text

from tasks.sweeps.repair_lanes import run_repair
from webapp.flow import store as flow_store
from webapp.flow.limits import Limits, QueueLimits, Rate
from webapp.flow.model import Kind, Target, lane_of
from webapp.infra.broker.hints import Ticket
from webapp.infra.telemetry import metrics
from webapp.jobs.options import PLAIN
from webapp.queues import tickets
from webapp.queues.tickets import ClaimTerms


@pytest.fixture
def limited(app, engine, parts):
    """The queue has limits, which every process knows."""
    with engine.begin() as connection:
        target = Target(Kind.QUEUE, "default")
        flow_store.lock(connection, target)
        keys = Limits(concurrency=1, rate=Rate(1_000, 1.0, 1_000))
        flow_store.set_limits(connection, target, QueueLimits(keys=keys))
    for book in (*books(app), parts.book):
        book.forget()


def in_lane(engine, key, **values):
    return queued(engine, lane=lane_of("default", key), terms=replace(PLAIN, key=key), **values)


def take(engine, limit=10):
    with engine.begin() as connection:
        terms = ClaimTerms(limit, "w/1", 60.0)
        return tickets.claim_due(connection, Ticket("default", "noop", 300.0), terms, in_lanes=True)


def change(engine, *statements):
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def count(engine, table):
    with engine.connect() as connection:
        return connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()  # noqa: S608 - a name of this file


def mended():
    (family,) = metrics.lane_repairs.collect()
    return next(sample.value for sample in family.samples if sample.name == "lane_repairs_total")


@pytest.mark.parametrize("lost", ["TRUNCATE lanes, lane_wakeups", "UPDATE lanes SET state = 'idle'"])
def test_jobs_whose_lanes_were_forgotten_run(engine, parts, limited, lost):
    made = [in_lane(engine, key) for key in ("a", "b", "b")]
    other = in_lane(engine, "c")
    assert len(take(engine, 1)) == 1
    change(engine, "DELETE FROM lane_wakeups", lost)
    assert take(engine) == []
    before = mended()
    assert run_repair(parts) == 3
    assert mended() == before + 3
    taken = {claim.id for claim in take(engine)}
    assert len(taken) == 3
    assert taken < {row.id for row in (*made, other)}
    assert run_repair(parts) == 0


def test_a_lane_that_waits_for_no_moment_is_ready(engine, parts, limited):
    in_lane(engine, "a")
    change(
        engine,
        "SELECT djps_wake_lanes('default', '', NULL, now())",
        "UPDATE lanes SET state = 'timed', ready_at = NULL",
    )
    assert take(engine) == []
    assert run_repair(parts) == 1
    assert len(take(engine)) == 1


def test_lanes_in_order_are_left_alone(engine, parts, limited):
    in_lane(engine, "running")
    assert len(take(engine)) == 1
    in_lane(engine, "running")
    in_lane(engine, "called")
    assert run_repair(parts) == 0
    assert count(engine, "lanes") == 1
    assert {claim.id for claim in take(engine)} != set()


def test_keys_without_jobs_are_forgotten_once_the_turns_have_passed_theirs(engine, parts, limited):
    in_lane(engine, "gone")
    assert len(take(engine)) == 1
    change(
        engine,
        "UPDATE jobs_living SET status = 'queued', worker_id = NULL, lease_expires_at = NULL, run_at = now() + interval '1 hour', lane = NULL",
    )
    assert take(engine) == []
    assert (count(engine, "lanes"), count(engine, "lane_rates")) == (1, 1)
    run_repair(parts)
    # Its turn is not over: it would come back to one in store.
    assert (count(engine, "lanes"), count(engine, "lane_rates")) == (1, 1)
    change(
        engine,
        "UPDATE lane_turns SET turn = turn + 10",
        "UPDATE lane_rates SET next_start = next_start - 90000",
    )
    run_repair(parts)
    assert (count(engine, "lanes"), count(engine, "lane_rates")) == (0, 0)


def test_it_does_as_much_as_a_batch(engine, parts, limited):
    for key in "abc":
        in_lane(engine, key)
    change(engine, "DELETE FROM lane_wakeups")
    assert [run_repair(parts, batch=2), run_repair(parts, batch=2), run_repair(parts, batch=2)] == [2, 1, 0]


def test_where_nothing_has_limits_nothing_is_asked(engine, parts):
    parts.book.forget()
    parts.book.rules()
    asked = []
    event.listen(parts.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    assert run_repair(parts) == 0
    assert asked == []


def test_the_gauges_say_what_is_taken_and_what_may_start(client, engine, limited):
    with engine.begin() as connection:
        target = Target(Kind.QUEUE, "default")
        flow_store.set_limits(connection, target, QueueLimits(Limits(concurrency=2)))
    for _ in range(5):
        in_lane(engine, "a")
    assert len(take(engine, 1)) == 1

    def shown():
        return [line for line in client.get("/metrics").text.splitlines() if line.startswith("queue_s")]

    assert shown() == [
        'queue_slots{kind="limit",queue="default"} 2.0',
        'queue_slots{kind="used",queue="default"} 1.0',
        'queue_startable{queue="default"} 4.0',
    ]
    with engine.begin() as connection:
        flow_store.set_limits(connection, target, QueueLimits(Limits(concurrency=1)))
    assert shown()[-1] == 'queue_startable{queue="default"} 0.0'
