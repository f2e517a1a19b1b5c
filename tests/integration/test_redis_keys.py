"""What is in Redis is a hint: whatever a key holds, jobs are taken and sent, and what is told of it makes sense."""

from __future__ import annotations

import math
import runpy
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from factories import queued, row_of, waiting
from redis import Redis

from tasks.sweeps import dispatch
from webapp import settings as settings_module
from webapp.flow.reach import EVERYTHING
from webapp.infra.broker import heartbeats, pace_table, redis_keys
from webapp.infra.broker.publish import Broker
from webapp.infra.broker.redis_keys import EPOCH, PACE
from webapp.infra.broker.room import LENGTH_TTL
from webapp.infra.broker.transport import lists_of
from webapp.jobs.submission import Submission
from webapp.queues.dispatch import Dispatcher

LAST = lists_of("default")[-1]
#: Commands that someone else may send.
POISON = [
    ["SET", PACE, "x"],
    ["LPUSH", PACE, "x"],
    ["SET", EPOCH, b"\xff\xfe"],
    ["HSET", EPOCH, "a", "b"],
    ["SET", EPOCH, "x" * 1_000_000],
    ["SET", "default", "x"],
    ["HSET", "default", "a", "b"],
    ["SET", LAST, "x"],
    ["SET", "unacked", "x"],
    *(
        ["HSET", PACE, "noop", text]
        for text in (
            "nan",
            "inf",
            "-inf",
            "-1",
            "1e999",
            "",
            "x",
            b"\xff",
            "0x10",
            "9" * 100,
            "x" * 5_000_000,
        )
    ),
    ["HSET", PACE, b"\xff", b"\xff"],
]


@pytest.fixture
def hearing(parts, broker, dispatcher):
    """A worker's parts, with a broker that has heard nothing yet."""
    return replace(parts, broker=broker, dispatcher=dispatcher)


@pytest.mark.parametrize("command", POISON, ids=lambda command: repr(command)[:60])
def test_jobs_are_taken_and_sent_whatever_a_key_holds(another_app, hearing, clock, redis, command):
    engine = hearing.engine
    redis.execute_command(*command)
    answer = another_app().test_client().post("/jobs", json={"payload": {"task": "noop"}})
    assert answer.status_code == 201
    rows = [queued(engine) for _ in range(3)]
    redis.execute_command("DEL", command[1])
    redis.execute_command(*command)
    began = time.monotonic()
    while not all(row_of(engine, row.id).dispatched_at for row in rows) and time.monotonic() - began < 3:
        clock.now += LENGTH_TTL + pace_table.TTL  # What was read before is not believed any more.
        dispatch.run_dispatch(hearing)
    assert len(waiting(redis)) >= 3
    assert hearing.broker.client.available()


def test_a_hash_of_a_million_paces_is_not_read(settings, redis):
    broker = Broker(settings.redis_url, buffer=10)
    redis.hset(PACE, mapping={f"task-{number}": 1 for number in range(100_000)} | {"noop": 0.01})
    began = time.monotonic()
    assert broker.paces.chunk_size("noop") == 10
    took = time.monotonic() - began
    began = time.monotonic()
    assert len(redis.hgetall(PACE)) > 100_000
    assert took < (time.monotonic() - began) / 2


def test_a_pace_that_makes_no_sense_is_removed_and_can_be_told_again(broker, clock, redis):
    redis.hset(PACE, mapping={"noop": "nan", "other": 0.01})
    assert (broker.paces.chunk_size("noop"), broker.paces.chunk_size("other")) == (1, 10)
    assert redis.hgetall(PACE) == {"other": "0.01"}
    redis.delete(PACE)
    redis.set(PACE, "x")
    broker.paces.tell("noop", 0.02)
    clock.now += pace_table.TTL + 0.01
    assert broker.paces.chunk_size("noop") == 5
    assert redis.ttl(PACE) > 0


def test_a_pace_that_cannot_be_read_costs_nothing_but_itself(settings, closed_port):
    broker = Broker(f"redis://127.0.0.1:{closed_port}/0", buffer=10)
    assert broker.paces.chunk_size("noop") == 1
    assert not broker.paces.is_known("noop")
    assert broker.client.available(), "what sends must find out for itself"


def test_an_epoch_of_a_wrong_type_is_one_that_is_over(settings, redis):
    broker = Broker(settings.redis_url, buffer=10)
    redis.hset(EPOCH, "a", "b")
    assert broker.epoch.is_over()
    broker.epoch.begin()
    assert not broker.epoch.is_over()


@pytest.mark.parametrize(
    ("described", "role"),
    [
        ("7", "w"), ("[]", "w"), ("null", "w"), ('"x"', "w"), ("{", "w"), ("[" * 5_000, "w"), (b"\xff", "w"),
        ('{"role": 5, "queues": 7, "children": "x", "busy": null, "idle": {}}', "w"),
        ('{"role": "me", "queues": [1, null], "children": 1e999, "running": -5, "busy": NaN, "idle": true}', "me"),
    ],
)  # fmt: skip
def test_a_heartbeat_that_makes_no_sense_is_a_worker_that_says_nothing(
    client, redis, settings, described, role
):
    redis.set(heartbeats.key_of("w:1:x"), described, ex=30)
    redis.hset(heartbeats.key_of("hash:1:x"), "a", "b")
    redis.set(heartbeats.key_of("for-ever:1:x"), '{"queues": ["default"]}')
    redis.set(heartbeats.key_of("too-long:1:x"), '{"queues": ["default"]}', ex=1_000_000)
    redis.set(heartbeats.key_of("").encode() + b"\xff:1", "{}", ex=30)
    mine = heartbeats.connect(settings.redis_url, 1.0)
    (worker,) = heartbeats.workers(mine)
    assert (worker.role, worker.children, worker.running, worker.busy) == (role, 0, 0, 0)
    assert math.isfinite(worker.idle)
    assert heartbeats.listening_to(mine, "default") == 0
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert "redis_up 1.0" in answer.text


def test_no_more_heartbeats_are_looked_at_than_there_can_be_workers(redis, settings, monkeypatch):
    monkeypatch.setattr(heartbeats, "MOST_WORKERS", 50)
    for number in range(200):
        heartbeats.beat(redis, str(number), 30, "{}")
    assert len(heartbeats.workers(heartbeats.connect(settings.redis_url, 1.0))) == 50


@pytest.mark.parametrize("left", [None, 10**12])
def test_a_tick_of_beat_that_cannot_be_is_none(redis, settings, left):
    redis.set(redis_keys.key(redis_keys.BEAT), "x", px=left)
    assert heartbeats.tick_age(redis) == heartbeats.BEAT_KEPT


@pytest.mark.parametrize(
    "command",
    [["SET", "{}", "x"], ["HSET", "{}", "a", "b"], ["SET", "{}", "-1000000"], ["SET", "{}", "99999999"],
     ["SET", "{}", "99999999", "EX", "999999999"], ["SET", "{}", str(2**63 - 1)], ["SET", "{}", b"\xff"]],
)  # fmt: skip
def test_a_counter_of_the_limiter_that_makes_no_sense_begins_anew(another_app, redis, command):
    client = another_app(rate_limit="2 per minute").test_client()
    assert client.post("/jobs", json={"payload": {"task": "noop"}}).status_code == 201
    (key,) = redis.scan_iter("LIMITS*")
    redis.delete(key)
    redis.execute_command(*[word.format(key) if isinstance(word, str) else word for word in command])
    answers = [client.post("/jobs", json={"payload": {"task": "noop"}}).status_code for _ in range(3)]
    assert answers == [201, 201, 429]
    assert 0 < redis.ttl(key) <= 60


def test_with_a_prefix_no_other_key_is_touched(another_app, engine, redis, monkeypatch, settings):
    """Two installations share a Redis: each key of ours begins with the prefix, and kombu's are told to."""
    mine = settings.model_copy(update={"redis_prefix": "shop:"})
    monkeypatch.setattr(redis_keys, "current", lambda: mine)
    client = another_app(rate_limit="5 per minute").test_client()
    before = dict.fromkeys([PACE, EPOCH, redis_keys.WORKER + "other", "default", "LIMITS:x"], "theirs")
    redis.mset(before)
    service = client.application.extensions["jobs"]
    broker = service._hints._broker
    assert client.post("/jobs", json={"payload": {"task": "noop"}}).status_code == 201
    service.submit_many([Submission({"task": "noop"})] * 3, EVERYTHING)
    broker.paces.tell("noop", 0.01)
    Dispatcher(engine, broker).refill()
    heartbeats.beat(redis, "w", 30, "{}")
    heartbeats.tick(redis)
    assert service.flush()
    assert heartbeats.live_workers(redis) == ["w"]
    assert broker.room.length("default") == len(waiting(redis)) >= 1
    assert client.get("/metrics").status_code == 200
    assert dict(zip(before, redis.mget(before), strict=True)) == before
    assert {key.partition(":")[0] for key in redis.scan_iter() if key not in before} == {"shop"}


def test_celery_is_told_the_prefix(monkeypatch):
    monkeypatch.setattr(
        settings_module,
        "current",
        lambda: SimpleNamespace(**vars(settings_module.Settings(REDIS_PREFIX="shop:"))),
    )
    options = runpy.run_path("celeryconfig.py")["broker_transport_options"]
    assert options["global_keyprefix"] == "shop:"


def test_nothing_is_removed_that_is_what_it_should_be(redis, settings):
    client = Redis.from_url(settings.redis_url)
    redis.rpush("a", 1)
    redis.hset("b", "x", 1)
    redis.sadd("c", 1)
    redis.zadd("d", {"x": 1})
    expected = {"a": "list", "b": "hash", "c": "set", "d": "zset", "none": "list"}
    assert redis_keys.remove_wrong(client, expected) == []
    assert sorted(redis.scan_iter()) == ["a", "b", "c", "d"]
    assert redis_keys.remove_wrong(client, {"a": "hash", "b": "zset", "c": "list", "d": "set"}) == [
        "a",
        "b",
        "c",
        "d",
    ]
