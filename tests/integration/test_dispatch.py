from __future__ import annotations

import json
import threading

import pytest
from factories import age, preparing, queued, row_of, waiting
from sqlalchemy import text

from tasks.sweeps.dispatch import run_dispatch
from webapp.flow.reach import EVERYTHING
from webapp.infra.broker.pace_table import TTL
from webapp.infra.broker.publish import Broker
from webapp.infra.broker.transport import list_of, lists_of
from webapp.jobs.submission import Submission
from webapp.queues.dispatch import Dispatcher
from webapp.queues.plan import FIRST_MESSAGES

REDISPATCH = 60.0


def sent(redis, queue="default"):
    """The ids in a broker queue, in the order in which workers take them."""
    return [json.loads(message)["headers"]["id"] for message in waiting(redis, queue)]


def dispatch(dispatcher, name="default", buffer=100):
    return dispatcher.dispatch(name, buffer=buffer, redispatch_after=REDISPATCH)


def prefer(engine, row, priority):
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET priority = :priority WHERE id = :id"), {"id": row.id, "priority": priority}
        )


def test_due_jobs_are_sent_by_priority_and_then_by_time(dispatcher, engine, redis):
    first, urgent, last, early = (queued(engine) for _ in range(4))
    prefer(engine, urgent, 9)
    prefer(engine, last, 1)
    age(engine, "run_at", 10, early.id)
    assert dispatch(dispatcher) == {"due": 4}
    assert sent(redis) == [str(row.id) for row in (urgent, early, first, last)]


def test_a_dispatched_job_is_not_sent_again(dispatcher, engine, redis):
    row = queued(engine)
    assert dispatch(dispatcher) == {"due": 1}
    assert dispatch(dispatcher) == {}
    assert sent(redis) == [str(row.id)]
    assert row_of(engine, row.id).dispatched_at is not None


def test_no_job_is_sent_before_it_is_due(dispatcher, engine, redis):
    row = queued(engine)
    age(engine, "run_at", -30, row.id)
    assert dispatch(dispatcher) == {}
    age(engine, "run_at", 30, row.id)
    assert dispatch(dispatcher) == {"due": 1}
    assert sent(redis) == [str(row.id)]


def test_redis_holds_no_more_than_the_buffer_and_the_rest_waits(dispatcher, engine, redis):
    rows = [queued(engine) for _ in range(5)]
    assert dispatch(dispatcher, buffer=3) == {"due": 3}
    assert dispatch(dispatcher, buffer=3) == {}
    assert sent(redis) == [str(row.id) for row in rows[:3]]
    redis.rpop(list_of("default", 5))
    assert dispatch(dispatcher, buffer=3) == {"due": 1}
    assert sent(redis) == [str(row.id) for row in rows[1:4]]
    assert row_of(engine, rows[4].id).dispatched_at is None


def test_a_buffer_that_was_made_smaller_is_drained_first(dispatcher, engine, redis):
    queued(engine)
    redis.rpush("default", *["x"] * 5)
    assert dispatch(dispatcher, buffer=3) == {}
    assert redis.llen("default") == 5


def test_queues_do_not_mix(dispatcher, engine, redis):
    here = queued(engine)
    queued(engine, queue="maintenance")
    assert dispatch(dispatcher) == {"due": 1}
    assert sent(redis) == [str(here.id)]
    assert waiting(redis, "maintenance") == []


def test_after_redis_was_flushed_jobs_are_sent_again_in_five_seconds(dispatcher, engine, redis):
    row = queued(engine)
    dispatch(dispatcher)
    redis.flushdb()
    age(engine, "dispatched_at", 4.5)
    assert dispatch(dispatcher) == {}
    age(engine, "dispatched_at", 1)
    assert dispatch(dispatcher) == {"unclaimed": 1}
    assert sent(redis) == [str(row.id)]
    assert dispatch(dispatcher) == {}


def test_while_messages_wait_a_silent_job_is_sent_again_after_its_time_only(dispatcher, engine, redis):
    queued(engine, dispatched=True)
    redis.rpush("default", "another message")
    age(engine, "dispatched_at", 50)
    assert dispatch(dispatcher) == {}
    age(engine, "dispatched_at", 11)
    assert dispatch(dispatcher) == {"unclaimed": 1}


def test_due_jobs_come_before_silent_ones_when_there_is_little_room(dispatcher, engine, redis):
    silent, due = queued(engine, dispatched=True), queued(engine)
    age(engine, "dispatched_at", 100, silent.id)
    assert dispatch(dispatcher, buffer=1) == {"due": 1}
    assert sent(redis) == [str(due.id)]


@pytest.mark.parametrize("port", ["closed_port", "silent_port"])
def test_with_redis_away_nothing_is_marked_as_sent(engine, request, port):
    row = queued(engine)
    url = f"redis://127.0.0.1:{request.getfixturevalue(port)}/0"
    assert dispatch(Dispatcher(engine, Broker(url, buffer=10))) == {}
    assert row_of(engine, row.id).dispatched_at is None


def test_jobs_whose_messages_failed_are_handed_back(engine, closed_port, monkeypatch):
    rows = [queued(engine) for _ in range(3)]
    broker = Broker(f"redis://127.0.0.1:{closed_port}/0", buffer=10)
    # Redis answered when it was asked for the length, and then went away.
    monkeypatch.setattr(broker.room, "length", lambda queue: 0)
    assert dispatch(Dispatcher(engine, broker)) == {}
    assert [row_of(engine, row.id).dispatched_at for row in rows] == [None] * 3


def test_two_dispatchers_at_once_send_every_job_once(dispatcher, broker, engine, redis):
    rows = [queued(engine) for _ in range(60)]
    broker.paces.tell("noop", 3.0)
    barrier = threading.Barrier(4)

    def work():
        barrier.wait(10)
        for _ in range(5):
            dispatch(dispatcher, buffer=1_000)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(sent(redis)) == sorted(str(row.id) for row in rows)


def test_a_thousand_jobs_fit_through_one_pipeline(dispatcher, broker, clock, engine, redis):
    with preparing(engine) as connection:
        connection.execute(
            text(
                "INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint)"
                " SELECT gen_random_uuid(), 'noop', '{}', 'default', 3, 300, 'f' FROM generate_series(1, 1200)"
            )
        )
    # Of a task no one knows, a few are sent first: they tell how many a message should carry.
    assert dispatch(dispatcher, buffer=1_000) == {"due": FIRST_MESSAGES}
    broker.paces.tell("noop", 3.0)
    clock.now += TTL + 0.1
    redis.delete(*lists_of("default"))
    assert dispatch(dispatcher, buffer=1_000) == {"due": 1_000}
    assert len(sent(redis)) == len(set(sent(redis))) == 1_000


def test_the_beat_task_serves_every_queue_that_handlers_name(parts, engine, redis):
    row = queued(engine)
    queued(engine, queue="nobody-consumes-this")
    assert run_dispatch(parts) == 1
    assert sent(redis) == [str(row.id)]
    assert run_dispatch(parts) == 0


def test_a_pass_sends_what_becomes_due_while_it_goes_on(parts, engine, redis):
    row = queued(engine)
    age(engine, "run_at", -0.3)
    assert run_dispatch(parts, window=0.8) == 1
    assert sent(redis) == [str(row.id)]


def test_a_pass_waits_calmly_when_a_queue_is_full(parts, engine, redis):
    queued(engine)
    redis.rpush("default", *["x"] * parts.settings.broker_buffer)
    assert run_dispatch(parts, window=0.2) == 0


def test_jobs_whose_messages_were_flushed_are_sent_again_at_once(service, parts, redis, eventually):
    accepted = [service.submit(Submission({"task": "noop", "n": n}), EVERYTHING).job for n in range(5)]
    # The outbox's thread may still have some of them, and would send them after the flush.
    eventually(lambda: len(sent(redis)) == 5)
    assert parts.dispatcher.refill() == 5  # The first look at a Redis knows nothing of its past.
    run_dispatch(parts)
    assert parts.dispatcher.refill() == 0
    redis.flushdb()
    assert run_dispatch(parts) == 5
    assert len(sent(redis)) == 5
    rows = [service.get(one.id, EVERYTHING) for one in accepted]
    assert {row.dispatched_at is not None for row in rows} == {True}


def test_another_redis_under_the_same_name_is_filled_anew(service, parts, redis):
    service.submit(Submission({"task": "noop"}), EVERYTHING)
    run_dispatch(parts)
    redis.set("djps:epoch", "the id of a run before")
    assert run_dispatch(parts) == 1


def test_without_redis_nothing_is_taken_back(service, engine, closed_port):
    away = Broker(f"redis://127.0.0.1:{closed_port}", buffer=10)
    service.submit(Submission({"task": "noop"}), EVERYTHING)
    assert Dispatcher(engine, away).refill() == 0
    away.epoch.begin()
