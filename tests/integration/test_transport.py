from __future__ import annotations

import pytest
from kombu import Connection
from redis.exceptions import TimeoutError as RedisTimeout

from ops.chaos.proxy import Proxy
from webapp import transport

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
