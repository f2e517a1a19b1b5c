"""How the slots of a limit are kept busy: enough children are told at once, and one goes on while no other work waits for it."""

from __future__ import annotations

import json

import pytest
from factories import ended, row_of, waiting

from tasks import chunk
from tasks.attempt import claims
from tasks.chunk import execute_due
from tasks.runtime import runtime
from webapp.flow.limits import Limits, QueueLimits
from webapp.infra.broker.hints import Ticket
from webapp.infra.broker.pace import WORK_IN_A_MESSAGE, WORK_IN_A_SLOT, chunk_size
from webapp.infra.broker.transport import list_at
from webapp.queues.plan import MOST_TICKETS

LONGEST = 300.0


@pytest.mark.parametrize(("jobs", "tickets"), [(3, 3), (40, MOST_TICKETS)])
def test_a_batch_calls_as_many_children_as_have_work(client, limit, redis, jobs, tickets):
    limit(QueueLimits(Limits(concurrency=4)))
    client.post("/jobs/batch", json={"jobs": [{"payload": {"task": "noop"}}] * jobs})
    assert [json.loads(one)["headers"]["task"] for one in waiting(redis)] == ["tasks.execute_due"] * tickets


@pytest.fixture
def four(client, limit, redis, monkeypatch):
    """Four jobs of which one may run, no message about them, and tickets whose window is over at once."""
    monkeypatch.setattr(chunk, "TICKET_WINDOW", 0.0)
    limit(QueueLimits(Limits(concurrency=1)))
    monkeypatch.setattr(runtime().broker.paces, "chunk_size", lambda task, work=0.0: 1)
    ids = [client.post("/jobs", json={"payload": {"task": "noop"}}).json["id"] for _ in range(4)]
    redis.flushdb()
    return ids


@pytest.mark.parametrize("waits", [False, True], ids=["alone", "another waits"])
def test_a_child_keeps_its_slot_while_no_message_waits(four, engine, redis, waits):
    if waits:
        redis.lpush(list_at("default", 9), "a message")
    ended(execute_due, "default", "noop", LONGEST)
    done = [row_of(engine, one).status == "completed" for one in four]
    assert done == ([True, False, False, False] if waits else [True] * 4)
    # Others had to wait, so the slot goes on with a ticket.
    assert len(waiting(redis)) == (2 if waits else 0)


def test_a_child_does_not_keep_its_slot_for_ever(four, engine, redis, monkeypatch):
    monkeypatch.setattr(chunk, "LONGEST_TICKET", 0.0)
    ended(execute_due, "default", "noop", LONGEST)
    assert [row_of(engine, one).status for one in four] == ["completed", "queued", "queued", "queued"]
    assert len(waiting(redis)) == 1


def test_with_a_slot_of_a_limit_more_is_claimed_at_once(parts):
    parts.broker.paces.tell("noop", 0.1)
    ticket = Ticket("default", "noop", LONGEST)
    assert claims.terms_of(parts, ticket).limit == 1
    assert claims.terms_of(parts, ticket, WORK_IN_A_SLOT).limit == chunk_size(0.1, work=WORK_IN_A_SLOT) == 2


def test_a_slot_goes_on_with_more_jobs_than_a_message_carries(limit, parts, client, monkeypatch):
    limit(QueueLimits(Limits(concurrency=1)))
    sizes = {WORK_IN_A_MESSAGE: 1, WORK_IN_A_SLOT: 2}
    monkeypatch.setattr(parts.broker.paces, "chunk_size", lambda task, work: sizes[work])
    for _ in range(4):
        client.post("/jobs", json={"payload": {"task": "noop"}})
    ticket = Ticket("default", "noop", LONGEST)
    first = claims.claim_due(parts, ticket)
    following = chunk.Chunk(parts, first, ticket=ticket).run()
    assert (len(first), len(following)) == (1, 2)
