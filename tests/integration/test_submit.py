from __future__ import annotations

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from factories import age, row_of, service_over, tables, waiting
from prometheus_client import generate_latest
from sqlalchemy import create_engine, text

from webapp.flow.reach import EVERYTHING
from webapp.infra.broker.client import PAUSE_AFTER_FAILURE
from webapp.infra.broker.messages import CLAIM_AND_SETTLE
from webapp.infra.broker.publish import Broker
from webapp.infra.broker.room import LENGTH_TTL
from webapp.infra.postgres.engine import engine_options
from webapp.infra.telemetry import metrics
from webapp.infra.telemetry.logs import bound
from webapp.jobs import insert
from webapp.jobs.errors import KeyOfPruned, KeyRace, KeyReused, UnknownTask
from webapp.jobs.submission import Submission, fingerprint

#: Longest a submission may take while the broker is away, seconds.
BOUND = 0.25


def away(engine, port):
    """A front door whose broker is at a port where no Redis answers."""
    return service_over(engine, Broker(f"redis://127.0.0.1:{port}/0", buffer=1_000))


def messages(redis, queue="default"):
    return [json.loads(message) for message in waiting(redis, queue)]


def submitted(service, key=None, **payload):
    return service.submit(Submission({"task": "noop"} | payload, key), EVERYTHING)


def created_total():
    lines = generate_latest(metrics.stored()).decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("jobs_created_total "))


def test_a_job_is_stored_and_its_message_carries_ids_only(service, engine, redis):
    before = created_total()
    accepted = submitted(service, secret="sesame")
    assert accepted.created
    assert row_of(engine, accepted.job.id) == accepted.job
    assert accepted.job.dispatched_at is not None
    assert service.flush()
    (message,) = messages(redis)
    assert message["headers"]["task"] == "tasks.execute_job"
    assert message["headers"]["id"] == str(accepted.job.id)
    assert message["headers"]["timelimit"] == [305.0 + CLAIM_AND_SETTLE, None]
    assert "sesame" not in json.dumps(message)
    assert created_total() == before + 1


def test_a_used_key_sends_no_second_message(service, engine, redis):
    first = submitted(service, "k")
    again = submitted(service, "k")
    assert (first.created, again.created) == (True, False)
    assert again.job == first.job
    assert service.flush()
    assert len(tables(engine)) == len(messages(redis)) == 1


def test_a_used_key_with_another_payload_is_refused(service, engine):
    first = submitted(service, "k")
    with pytest.raises(KeyReused) as caught:
        submitted(service, "k", n=1)
    assert caught.value.job_id == first.job.id
    assert len(tables(engine)) == 1


def test_a_hundred_requests_at_once_with_one_key_make_one_job(service, engine, redis):
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: submitted(service, "k"), range(100)))
    assert Counter(answer.created for answer in answers) == {True: 1, False: 99}
    assert len({answer.job.id for answer in answers}) == 1
    assert service.flush()
    assert len(tables(engine)) == len(messages(redis)) == 1


def test_a_hundred_requests_at_once_with_two_payloads_for_one_key_make_one_job(service, engine):
    def submit(n):
        try:
            return submitted(service, "k", n=n % 2).created
        except KeyReused:
            return "reused"

    with ThreadPoolExecutor(20) as pool:
        answers = Counter(pool.map(submit, range(100)))
    assert answers[True] == 1
    assert answers["reused"] == 50
    assert len(tables(engine)) == 1


def test_a_key_outlives_its_job(service, engine):
    first = submitted(service, "k")
    with engine.begin() as pruning:
        pruning.execute(text("DELETE FROM jobs"))
    with pytest.raises(KeyOfPruned) as caught:
        submitted(service, "k")
    assert (caught.value.key, caught.value.job_id) == ("k", first.job.id)
    with pytest.raises(KeyReused):
        submitted(service, "k", n=1)


def test_a_key_that_ran_out_that_very_moment_is_asked_for_again(service, engine, monkeypatch):
    submitted(service, "k")
    find_by_key = insert.find_by_key

    def just_too_late(connection, key):
        with engine.begin() as pruning:
            pruning.execute(text("DELETE FROM idempotency_keys"))
        return find_by_key(connection, key)

    monkeypatch.setattr(insert, "find_by_key", just_too_late)
    with pytest.raises(KeyRace, match="'k'"):
        submitted(service, "k")
    assert submitted(service, "k").created


def test_a_handlers_own_limits_and_queue_are_the_jobs(service, handle, redis):
    name = handle(lambda payload, context: None, queue="mail", max_retries=0, timeout=1.5)
    job = submitted(service, task=name).job
    assert (job.task, job.queue, job.max_retries, job.timeout) == (name, "mail", 0, 1.5)
    assert service.flush()
    assert len(messages(redis, "mail")) == 1


def test_without_a_default_an_unknown_name_is_refused_before_anything_is_stored(engine):
    service = service_over(engine, Broker("redis://127.0.0.1:1/0", buffer=1), default_handler="")
    with pytest.raises(UnknownTask, match=r"given: 'nobody'"):
        service.submit(Submission({"task": "nobody"}), EVERYTHING)
    assert tables(engine) == []


def test_the_request_that_asked_is_remembered(service, engine):
    with bound(request_id="r-1"):
        submitted(service)
    assert tables(engine)[0]["request_id"] == "r-1"


@pytest.mark.parametrize("port", ["closed_port", "silent_port"])
def test_with_the_broker_away_a_job_is_accepted_in_time_and_left_to_the_dispatcher(engine, request, port):
    service = away(engine, request.getfixturevalue(port))
    submitted(away(engine, 1))  # The pool of the database is warm.
    for _ in range(3):
        started = time.monotonic()
        accepted = submitted(service)
        assert time.monotonic() - started < BOUND
        assert accepted.created
        assert row_of(engine, accepted.job.id).dispatched_at is None


def test_a_broker_that_goes_away_between_asking_and_sending_costs_no_job(engine, monkeypatch):
    # Room was found a moment ago; the message then fails.
    broken = away(engine, 1)
    monkeypatch.setattr(broken._hints, "wants", lambda queue, task: True)
    accepted = submitted(broken)
    assert accepted.job.dispatched_at is not None
    assert broken.flush()
    assert row_of(engine, accepted.job.id).dispatched_at is None


def test_a_job_that_cannot_even_be_handed_back_is_accepted_all_the_same(
    engine, dispatcher, monkeypatch, closed_port
):
    # Redis goes away after it was asked for room, and the database right after the commit.
    unreachable = create_engine(f"postgresql+psycopg2://djps:djps@127.0.0.1:{closed_port}/djps")
    leaving = Broker(f"redis://127.0.0.1:{closed_port}/0", buffer=10)
    broken = service_over(engine, leaving, handing_back=unreachable)
    monkeypatch.setattr(broken._hints, "wants", lambda queue, task: True)
    accepted = submitted(broken)
    # It looks sent; the dispatcher sends it again when no one claims it.
    assert row_of(engine, accepted.job.id).dispatched_at is not None
    age(engine, "dispatched_at", 6)
    assert dispatcher.dispatch("default", buffer=10, redispatch_after=60.0) == {"unclaimed": 1}


def test_a_hint_that_is_alone_is_sent_by_its_own_request_and_one_of_a_crowd_is_not(
    engine, broker, redis, monkeypatch
):
    """To the clock, the second one comes at the same moment."""
    service = service_over(engine, broker, clock=lambda: 0.0)
    outbox = service._hints
    alone = submitted(service)
    assert [one["headers"]["id"] for one in messages(redis)] == [str(alone.job.id)]

    sent = []
    send = outbox._send
    monkeypatch.setattr(outbox, "_send", lambda hints: (sent.append(threading.current_thread()), send(hints)))
    submitted(service)
    assert service.flush()
    assert {thread.name for thread in sent} == {"outbox"}
    assert len(messages(redis)) == 2


def test_a_queue_s_length_is_asked_for_by_one_thread_at_a_time(broker, clock, monkeypatch):
    asked = []

    def length(queue):
        asked.append(queue)
        assert broker.room.fits(queue)  # what another thread sees meanwhile
        return 3

    monkeypatch.setattr(broker.room, "length", length)
    assert broker.room.fits("default")
    assert asked == ["default"]
    clock.now += LENGTH_TTL + 0.01
    assert broker.room.fits("default")
    assert asked == ["default"] * 2


def test_after_a_failure_the_broker_is_left_alone_for_a_moment(closed_port, clock):
    broker = Broker(f"redis://127.0.0.1:{closed_port}/0", buffer=10, clock=clock)
    assert broker.client.available()
    assert broker.room.length("default") is None
    assert not broker.client.available()
    assert not broker.room.fits("default")
    clock.now += PAUSE_AFTER_FAILURE
    assert broker.client.available()


def test_a_full_buffer_leaves_the_job_to_the_dispatcher(engine, settings, redis):
    redis.rpush("default", "a", "b")
    service = service_over(engine, Broker(settings.redis_url, buffer=2))
    accepted = submitted(service)
    assert row_of(engine, accepted.job.id).dispatched_at is None
    assert service.flush()
    assert redis.llen("default") == 2


def test_a_broker_that_is_out_of_memory_costs_no_job(engine, broker, redis):
    service = service_over(engine, broker)
    before = redis.config_get("maxmemory")["maxmemory"]
    redis.config_set("maxmemory", 1)
    try:
        accepted = submitted(service)
        assert service.flush()
    finally:
        redis.config_set("maxmemory", before)
    assert accepted.created
    assert row_of(engine, accepted.job.id).dispatched_at is None


def test_a_broker_that_was_emptied_a_moment_ago_takes_the_next_message(service, redis):
    submitted(service)
    assert service.flush()
    redis.flushdb()
    submitted(service)
    assert service.flush()
    assert len(messages(redis)) == 1


def test_connections_that_the_database_closed_are_replaced(settings):
    engine = create_engine(settings.database_url, **engine_options("djps-cut", pool_size=2))
    service = service_over(engine, Broker(settings.redis_url, buffer=10))
    assert submitted(service).created
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'djps-cut' AND pid <> pg_backend_pid()"
            )
        )
    with ThreadPoolExecutor(2) as pool:
        assert all(answer.created for answer in pool.map(lambda _: submitted(service), range(4)))
    engine.dispose()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": {"x": 1, "y": [1, 2]}}, {"a": {"y": [1, 2], "x": 1}}, True),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": 1}, {"a": 1.0}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": "1"}, {"a": 1}, False),
        ({"a": None}, {}, False),
        ({"a": "ä"}, {"a": "a\u0308"}, False),
    ],
)
def test_a_fingerprint_is_that_of_the_value_and_not_of_its_spelling(one, other, same):
    assert (fingerprint(Submission(one)) == fingerprint(Submission(other, "key"))) is same
