"""Ageing on real servers: how long a job has waited counts against its priority, from the moment that a rule says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ending import complete
from factories import age, queued, row_of
from sqlalchemy import text

from webapp.flow import store as flow_store
from webapp.flow.limits import Limits, QueueLimits
from webapp.flow.model import Kind, Target, lane_of
from webapp.infra.broker.hints import Ticket
from webapp.jobs.options import PLAIN
from webapp.queues import tickets
from webapp.queues.tickets import ClaimTerms

QUEUE = Target(Kind.QUEUE, "default")


@pytest.fixture
def ages(engine):
    """Gives the queue its ageing."""

    def give(ageing):
        with engine.begin() as connection:
            flow_store.lock(connection, QUEUE)
            flow_store.set_limits(connection, QUEUE, QueueLimits(Limits(concurrency=9), ageing=ageing))

    return give


def waits(engine, priority, seconds, key=None):
    """A job that has waited for so long."""
    terms = replace(PLAIN, key=key, priority=priority)
    row = queued(engine, lane=lane_of("default", key), terms=terms)
    age(engine, "run_at", seconds, row.id)
    return row.id


def take(engine, limit=1):
    with engine.begin() as connection:
        terms = ClaimTerms(limit, "w/1", 60.0)
        return tickets.claim_due(connection, Ticket("default", "noop", 300.0), terms, in_lanes=True)


def order(engine, count):
    """The order in which jobs are claimed one by one."""
    found = []
    for _ in range(count):
        (claim,) = take(engine)
        found.append(claim.id)
        with engine.begin() as connection:
            complete(connection, claim, None)
    return found


def test_a_step_of_priority_is_worth_so_many_seconds(engine, ages):
    ages(60.0)
    low, middle, high = waits(engine, 0, 400), waits(engine, 5, 110), waits(engine, 9, 0)
    # 400, 110 + 5 * 60 and 9 * 60 seconds.
    assert order(engine, 3) == [high, middle, low]


def test_one_that_has_waited_long_enough_passes_a_more_urgent_one(engine, ages):
    ages(60.0)
    high, low = waits(engine, 9, 0), waits(engine, 5, 241)
    assert order(engine, 2) == [low, high]


def test_a_change_of_the_rule_holds_at_once_and_changes_no_job(engine, ages):
    ages(1.0)
    jobs = [waits(engine, 9, 0), waits(engine, 5, 100), waits(engine, 9, 1), waits(engine, 5, 99)]
    assert order(engine, 1) == [jobs[1]]
    ages(None)
    assert order(engine, 1) == [jobs[2]]
    ages(60.0)
    assert order(engine, 1) == [jobs[0]]


def test_a_chunk_is_claimed_and_run_in_the_same_order(engine, ages):
    ages(10.0)
    jobs = [
        waits(engine, priority, seconds) for priority, seconds in ((9, 0), (0, 96), (0, 5), (4, 60), (9, 5))
    ]
    # 90, 96, 5, 100 and 95 seconds.
    expected = [jobs[3], jobs[1], jobs[4], jobs[0]]
    assert [claim.id for claim in take(engine, 4)] == expected
    assert [row_of(engine, job_id).attempt for job_id in jobs] == [1, 1, 0, 1, 1]


def test_what_is_due_later_or_locked_is_left_out(engine, ages):
    ages(60.0)
    locked, free = waits(engine, 9, 10), waits(engine, 1, 0)
    waits(engine, 9, -60)
    with engine.begin() as connection:
        connection.execute(text("SELECT FROM jobs_living WHERE id = :id FOR UPDATE"), {"id": locked})
        assert [claim.id for claim in take(engine, 3)] == [free]


def test_keys_take_turns_and_each_has_its_own_order(engine, ages):
    ages(60.0)
    old = {key: waits(engine, 0, 1_000, key) for key in "ab"}
    for key in "ab":
        waits(engine, 9, 0, key)
    assert {claim.id for claim in take(engine, 2)} == set(old.values())
