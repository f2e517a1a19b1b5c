from __future__ import annotations

import json
import logging
import time
from contextlib import suppress
from pathlib import Path

import pytest
from kombu import Connection, Exchange, Queue
from kombu.asynchronous import Hub
from kombu.pidbox import Mailbox
from redis.exceptions import ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

from ops.chaos.proxy import Proxy
from webapp.infra.broker import transport
from webapp.infra.broker.transport import lists_of

QUEUE = "test-transport"


@pytest.fixture
def message(settings):
    """A message that was taken and not yet acknowledged, as while a job runs."""
    transport.mend()
    with Connection(settings.redis_url) as connection:
        box = connection.SimpleQueue(QUEUE)
        box.put({"a": 1})
        yield box.get(timeout=5)
        box.close()


def test_a_message_is_acknowledged_over_a_live_channel(message, redis):
    assert redis.hlen("unacked") == 1
    message.ack()
    assert redis.hlen("unacked") == 0
    assert redis.llen(QUEUE) == 0


def test_a_message_is_rejected_over_a_live_channel(message, redis):
    message.reject(requeue=True)
    assert redis.hlen("unacked") == 0
    assert redis.llen(QUEUE) == 1


@pytest.mark.parametrize("end", ["ack", "reject", "requeue"])
def test_a_message_that_outlives_its_channel_ends_without_an_error_and_is_not_sent_again(message, redis, end):
    message.channel.close()
    getattr(message, end)()
    assert redis.llen(QUEUE) == 0
    # Redis keeps its copy; the claim refuses it when it comes back.
    assert redis.hlen("unacked") == 1


@pytest.mark.parametrize("end", ["ack", "reject"])
def test_a_message_that_cannot_be_acknowledged_gives_its_place_back(settings, redis, end):
    transport.mend()
    proxy = Proxy(int(redis.connection_pool.connection_kwargs["port"]))
    options = {"socket_timeout": 0.2, "retry_on_timeout": False}
    try:
        with Connection(f"redis://127.0.0.1:{proxy.port}/0", transport_options=options) as connection:
            box = connection.SimpleQueue(QUEUE)
            box.channel.basic_qos(0, 1, False)
            box.put({"a": 1})
            message = box.get(timeout=5)
            assert not box.channel.qos.can_consume()
            proxy.blackhole()
            with pytest.raises(RedisTimeout):
                getattr(message, end)()
            assert box.channel.qos.can_consume()
            proxy.heal()
    finally:
        proxy.close()


@pytest.mark.parametrize(
    "noise",
    [b"\x00\xff noise", b"{not json", b"[]", b"{}", b'{"body": 5}', b'{"properties": null}', b'"text"', b"7"],
)
def test_what_is_no_message_is_dropped_and_the_next_one_is_taken(settings, redis, noise):
    transport.mend()
    with Connection(settings.redis_url) as connection:
        box = connection.SimpleQueue(QUEUE)
        box.channel.basic_qos(0, 1, False)
        redis.lpush(QUEUE, noise)
        box.put({"good": True})
        assert box.get(timeout=5).payload == {"good": True}
        assert redis.llen(QUEUE) == 0
        box.close()


def sockets() -> int:
    """Sockets that this process has open."""
    return sum(
        str(file.readlink()).startswith("socket:")
        for file in Path("/proc/self/fd").iterdir()
        if file.is_symlink()
    )


@pytest.fixture
def read_only(redis):
    """A Redis that is someone's replica, as after a failover."""
    redis.replicaof("127.0.0.1", 1)
    yield
    redis.replicaof("NO", "ONE")


def connect_as_a_worker(url: str) -> None:
    """What a Celery worker does each time it connects: the event loop, a broadcast queue, messages; and the end of it."""
    with Connection(url, transport_options={"socket_timeout": 2}) as connection:
        connection.ensure_connection(max_retries=1)
        connection.transport.register_with_event_loop(connection.connection, Hub())
        box = Mailbox("test", type="fanout", connection=connection).Node("one", channel=connection.channel())
        with suppress(ResponseError):
            box.listen(callback=print)
        channel = connection.channel()
        channel.basic_consume(QUEUE, False, print, "tag")
        connection.transport.cycle.on_poll_start()
        with suppress(ResponseError):
            channel._brpop_read()


def test_a_redis_that_may_not_be_written_to_costs_no_socket_however_often_one_connects(settings, read_only):
    transport.mend()
    connect_as_a_worker(settings.redis_url)
    before = sockets()
    for _ in range(10):
        connect_as_a_worker(settings.redis_url)
    assert sockets() <= before


def test_a_channel_that_cannot_be_closed_in_order_is_closed(settings, redis, caplog):
    transport.mend()
    with Connection(settings.redis_url) as connection:
        connection.ensure_connection()
        before = sockets()
        channel = connection.channel()
        with caplog.at_level(logging.WARNING, transport.logger.name):
            try:
                Queue("gone", Exchange("all", type="fanout"), auto_delete=True, channel=channel).declare()
                redis.replicaof("127.0.0.1", 1)
                channel.close()
            finally:
                redis.replicaof("NO", "ONE")
        assert [record.message for record in caplog.records] == ["channel could not be closed in order"]
        assert channel.closed
        assert sockets() <= before


#: What each of kombu's keys should be, and commands that make it something else.
WRONG = {
    "unacked": ["SET", "unacked", "x"],
    "unacked_index": ["HSET", "unacked_index", "a", "b"],
    QUEUE: ["SET", QUEUE, "x"],
    lists_of(QUEUE)[-1]: ["SADD", lists_of(QUEUE)[-1], "x"],
    "_kombu.binding.test": ["LPUSH", "_kombu.binding.test", "x"],
    "_kombu.binding_permanent.test": ["SET", "_kombu.binding_permanent.test", "x"],
}


@pytest.mark.parametrize(
    ("key", "when"),
    [*((key, "before") for key in WRONG), *((key, "after") for key in ("unacked", "unacked_index", QUEUE))],
)
def test_a_key_of_a_wrong_type_is_removed_and_messages_go_on(settings, redis, caplog, key, when):
    transport.mend()
    if when == "before":
        redis.execute_command(*WRONG[key])
    with Connection(settings.redis_url) as connection:
        box = connection.SimpleQueue(Queue(QUEUE, Exchange("test"), routing_key=QUEUE))
        box.put({"n": 0})
        assert box.get(timeout=5).payload == {"n": 0}
        if when == "after":
            redis.delete(key)
            redis.execute_command(*WRONG[key])
        for number in (1, 2):
            box.put({"n": number})
            message = box.get(timeout=5)
            assert message.payload == {"n": number}
            message.ack()
        box.put({"n": 3})
        box.get(timeout=5).reject(requeue=True)
        assert box.get(timeout=5).payload == {"n": 3}
        connection.transport.cycle.maybe_restore_messages()
        box.close()
    assert "keys of a wrong type were removed from Redis" in [record.message for record in caplog.records]


@pytest.mark.parametrize(
    "command",
    [
        ["SET", "unacked_mutex", "x"],
        ["HSET", "unacked_mutex", "a", "b"],
        ["SET", "unacked_mutex", "x", "EX", "999999999"],
        ["HSET", "unacked", "a", "b"],
        ["HSET", "unacked", "a", "[1, 2]"],
        ["HSET", "unacked", "a", "[7, 8, 9]"],
        ["HSET", "unacked", "a", b"\xff\xfe"],
        ["HSET", "unacked", "a", '[{}, "", "unacked"]'],
    ],
)
def test_what_was_taken_long_ago_is_put_back_whatever_else_is_there(settings, redis, command):
    transport.mend()
    with Connection(settings.redis_url) as connection:
        connection.SimpleQueue(QUEUE).put("taken")
    taken = json.loads(redis.rpop(QUEUE))
    redis.execute_command(*command)
    redis.hset("unacked", "good", json.dumps([taken, "", QUEUE]))
    redis.zadd("unacked_index", {"a": 1, "good": 2, "nothing": 3, b"\xff": 4})
    with Connection(settings.redis_url) as connection:
        channel = connection.channel()
        for _ in range(3):
            channel.qos.restore_visible(num=100)
        assert redis.llen(QUEUE) == 1
        assert redis.zcard("unacked_index") == 0
        box = connection.SimpleQueue(QUEUE)
        message = box.get(timeout=5)
        assert message.payload == "taken"
        message.ack()
        assert redis.hlen("unacked") == 0
        box.close()


def test_the_key_that_says_who_puts_back_is_left_alone_while_it_is_fresh(settings, redis):
    transport.mend()
    redis.set("unacked_mutex", "another worker", ex=200)
    redis.zadd("unacked_index", {"a": 1})
    with Connection(settings.redis_url) as connection:
        connection.channel().qos.restore_visible(num=100)
    assert redis.get("unacked_mutex") == "another worker"
    assert redis.zcard("unacked_index") == 1


@pytest.mark.parametrize("noise", [b"\xff", b"x", b"a\x06\x16b", b"a\x06\x16b\x06\x16c\x06\x16d"])
def test_what_is_no_binding_is_left_out(settings, redis, noise):
    transport.mend()
    with Connection(settings.redis_url) as connection:
        box = connection.SimpleQueue(Queue(QUEUE, Exchange("test"), routing_key=QUEUE))
        redis.sadd("_kombu.binding.test", noise)
        box.put(1)
        assert box.get(timeout=5).payload == 1
        box.close()


@pytest.mark.parametrize("noise", [b"\xff", b"[]", b"7", b'"x"', b"{}", b"not json", b'{"properties": null}'])
def test_a_broadcast_that_is_none_is_dropped(settings, redis, noise):
    transport.mend()
    with Connection(settings.redis_url) as connection:
        heard = []
        node = Mailbox("test", type="fanout", connection=connection).Node("one", channel=connection.channel())
        node.listen(callback=lambda body, _: heard.append(body["method"]))
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.3)
        redis.publish("/0.test.pidbox", noise)
        Mailbox("test", type="fanout", connection=Connection(settings.redis_url)).cast([], "ping", {})
        end = time.monotonic() + 10
        while not heard and time.monotonic() < end:
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.5)
        assert heard == ["ping"]


def test_with_a_prefix_kombu_touches_no_other_key(settings, redis):
    transport.mend()
    taken = {
        "body": "",
        "headers": {},
        "properties": {"delivery_info": {"exchange": "", "routing_key": QUEUE}},
    }
    with Connection(settings.redis_url, transport_options={"global_keyprefix": "shop:"}) as connection:
        box = connection.SimpleQueue(Queue(QUEUE, Exchange("test"), routing_key=QUEUE))
        redis.set("shop:unacked", "x")
        redis.set("shop:unacked_mutex", "x")
        redis.set(f"shop:{QUEUE}", "x")
        for number in (1, 2):
            box.put(number)
            message = box.get(timeout=5)
            assert message.payload == number
            assert redis.hlen("shop:unacked") == 1
            message.reject(requeue=number == 2)
        assert box.get(timeout=5).payload == 2
        redis.hset("shop:unacked", "old", json.dumps([taken, "", QUEUE]))
        redis.zadd("shop:unacked_index", {"old": 1})
        box.channel.qos.restore_visible(num=10)
        assert redis.llen(f"shop:{QUEUE}") == 1
        assert {key.partition(":")[0] for key in redis.scan_iter()} == {"shop"}
        box.close()


def test_a_read_only_redis_is_not_taken_for_a_poisoned_one(settings, redis, read_only):
    transport.mend()
    with Connection(settings.redis_url) as connection, pytest.raises(ReadOnlyError):
        connection.channel()._put(QUEUE, {"properties": {"delivery_info": {}}})
