"""What `GET /jobs/{id}/explain` says of a job that a limit holds, from the rows that the claim reads."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ending import complete, end_again
from factories import ERROR, age, queued
from sqlalchemy import text

from webapp.flow import store as flow_store
from webapp.flow.limits import KeyOrder, Limits, QueueLimits, Rate
from webapp.flow.model import Kind, Target, lane_of
from webapp.infra.broker import heartbeats
from webapp.infra.broker.hints import Ticket
from webapp.jobs.options import PLAIN
from webapp.jobs.states import AttemptOutcome
from webapp.queues import tickets
from webapp.queues.tickets import ClaimTerms

QUEUE, TASK = Target(Kind.QUEUE, "default"), Target(Kind.TASK, "noop")


@pytest.fixture(autouse=True)
def _worker(redis):
    """A worker that listens: else that there is none is what holds every job."""
    described = {"role": "w", "queues": ["default"], "children": 2, "knows": ["limits"]}
    heartbeats.beat(redis, "w:1:x", 60, json.dumps(described))


@pytest.fixture
def limit(engine):
    def give(target=QUEUE, own=None, keys=None):
        with engine.begin() as connection:
            flow_store.lock(connection, target)
            flow_store.set_limits(
                connection, target, QueueLimits(own or Limits(), keys or Limits(), fair=True)
            )

    return give


def in_lane(engine, key=None, **terms):
    return queued(engine, lane=lane_of("default", key), terms=replace(PLAIN, key=key, **terms))


def take(engine, worker="w/1"):
    with engine.begin() as connection:
        terms = ClaimTerms(1, worker, 60.0)
        return tickets.claim_due(connection, Ticket("default", "noop", 300.0), terms, in_lanes=True)


def said(client, row):
    answer = client.get(f"/jobs/{row.id}/explain")
    assert answer.status_code == 200, answer.text
    return answer.json


@pytest.mark.parametrize("target", [QUEUE, TASK], ids=str)
def test_a_reached_limit_is_named_with_who_holds_its_slots(client, engine, limit, target):
    limit(target, Limits(concurrency=2))
    rows = [in_lane(engine) for _ in range(3)]
    holders = [(worker, str(take(engine, worker)[0].id)) for worker in ("w/1", "w/2")]
    (waits,) = [row for row in rows if str(row.id) not in dict(holders).values()]
    found = said(client, waits)
    assert found["state"] == ("queue_limit" if target is QUEUE else "task_limit")
    assert f"2 of 2 slots of {target.words} are taken" in found["sentence"]
    assert found["facts"] == {
        "limit": 2, "used": 2, "held_by": [{"worker_id": worker, "job_id": job} for worker, job in holders],
    }  # fmt: skip


def test_a_keys_limit_rate_and_pause_are_named(client, engine, limit):
    limit(keys=Limits(concurrency=1))
    first, second = in_lane(engine, "a"), in_lane(engine, "a")
    assert [claim.id for claim in take(engine)] == [first.id]
    other = in_lane(engine, "b")
    found = said(client, second)
    assert (found["state"], found["facts"]["held_by"]) == (
        "key_limit",
        [{"worker_id": "w/1", "job_id": str(first.id)}],
    )
    assert said(client, other)["state"] in {"due", "turn_of_others"}
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO key_limits (queue, key, paused_at, paused_by, paused_why) VALUES ('default', 'a', now(), 'ada', 'loops')"
            )
        )
    found = said(client, second)
    assert (found["state"], found["facts"]["paused_by"], found["facts"]["paused_why"]) == (
        "key_paused",
        "ada",
        "loops",
    )


def test_a_rate_says_when_the_next_one_may_start(client, engine, limit):
    limit(own=Limits(rate=Rate(1, 3_600.0, 1)))
    first, second = in_lane(engine), in_lane(engine)
    assert [claim.id for claim in take(engine)] == [first.id]
    found = said(client, second)
    assert (found["state"], found["facts"]["limit"], found["facts"]["per"]) == ("queue_rate", 1, 3600.0)
    with engine.connect() as connection:
        due_in = connection.execute(
            text("SELECT extract(epoch FROM CAST(:at AS timestamptz) - now())"),
            {"at": found["facts"]["next_start_at"]},
        ).scalar_one()
    assert 3_500 < due_in <= 3_600


def test_a_keys_own_rate_is_the_one_that_is_named(client, engine, limit):
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO key_limits (queue, key, rate_limit, rate_per, rate_burst) VALUES ('default', 'a', 2, 3600, 1)"
            )
        )
    limit(keys=Limits(rate=Rate(9, 60.0, 9)))
    first, second = in_lane(engine, "a"), in_lane(engine, "a")
    assert [claim.id for claim in take(engine)] == [first.id]
    found = said(client, second)
    assert (found["state"], found["facts"]["limit"], found["facts"]["per"]) == ("key_rate", 2, 3600.0)
    assert "key 'a' of queue 'default' 2 jobs may start in 3600 s" in found["sentence"]


def test_jobs_of_the_same_key_and_keys_whose_turn_is_before_are_counted(client, engine, limit):
    limit()
    rows = {key: [in_lane(engine, key) for _ in range(3)] for key in "ab"}
    (taken,) = take(engine)
    (behind, before) = ("a", "b") if taken.id in {row.id for row in rows["a"]} else ("b", "a")
    found = said(client, rows[behind][-1])
    assert (found["state"], found["facts"]) == ("turn_of_others", {"lanes_before": 1, "jobs_before": 1})
    found = said(client, rows[before][-1])
    assert (found["state"], found["facts"]["ahead"]) == ("behind_others", 2)
    assert said(client, rows[before][0])["state"] == "due"


@pytest.fixture
def queue_limits(engine):
    def give(limits):
        with engine.begin() as connection:
            flow_store.lock(connection, QUEUE)
            flow_store.set_limits(connection, QUEUE, limits)

    return give


@pytest.mark.parametrize("concurrency", [None, 1])
def test_a_job_of_a_key_in_order_says_which_one_it_waits_for(client, engine, queue_limits, concurrency):
    queue_limits(QueueLimits(keys=Limits(concurrency), key_order=KeyOrder.FIFO))
    first, second, third = in_lane(engine, "a"), in_lane(engine, "a"), in_lane(engine, "a", priority=9)
    assert said(client, first)["state"] == "due"
    named = {"key": "a", "job_id": str(first.id)}
    for waits in (second, third):
        found = said(client, waits)
        assert (found["state"], found["facts"]) == ("in_order_behind", named | {"status": "queued"})
    (claim,) = take(engine)
    assert said(client, second)["facts"] == named | {"status": "processing"}
    with engine.begin() as connection:
        assert end_again(connection, claim, AttemptOutcome.FAILED, ERROR, delay=60.0)
    found = said(client, second)
    assert (found["facts"]["status"], "until" in found["sentence"]) == ("queued", True)
    assert found["facts"]["run_at"] == said(client, first)["facts"]["run_at"]
    age(engine, "run_at", 61, first.id)
    with engine.begin() as connection:
        connection.execute(text("UPDATE lanes SET ready_at = now() WHERE state = 'timed'"))
    (claim,) = take(engine)
    with engine.begin() as connection:
        assert complete(connection, claim, None)
    assert said(client, second)["state"] == "due"
    assert said(client, third)["facts"]["job_id"] == str(second.id)


def test_jobs_that_have_aged_past_one_count_as_before_it(client, engine, queue_limits):
    queue_limits(QueueLimits(Limits(concurrency=9), ageing=60.0))
    urgent, old, young = in_lane(engine, priority=9), in_lane(engine, priority=5), in_lane(engine, priority=5)
    age(engine, "run_at", 241, old.id)
    in_lane(engine, priority=9, delay=60.0)
    take(engine, "w/9")
    # The old one was taken.
    assert said(client, urgent)["state"] == "due"
    assert said(client, young)["facts"]["ahead"] == 1
    age(engine, "run_at", 241, young.id)
    assert said(client, urgent)["facts"]["ahead"] == 1
    assert said(client, young)["state"] == "due"


def test_what_waited_before_a_limit_came_is_being_filed(client, engine, limit):
    row = queued(engine)
    limit(own=Limits(concurrency=1))
    assert said(client, row)["state"] == "filing"


def test_without_limits_no_limit_is_named(client, engine):
    assert said(client, queued(engine))["state"] == "due"
