from __future__ import annotations

import pytest
from kombu import Connection

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
