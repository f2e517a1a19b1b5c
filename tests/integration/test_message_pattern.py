"""Messages that are copied from a pattern, beside what Celery itself would have sent."""

from __future__ import annotations

import json
from base64 import b64decode
from uuid import uuid4

import pytest
from factories import waiting
from kombu import Connection

from webapp.infra.broker.client import celery
from webapp.infra.broker.message_pattern import MessagePattern
from webapp.infra.broker.messages import EXECUTE_DUE, EXECUTE_JOB, EXECUTE_JOBS

#: What is new in every message, and who sent it.
CHANGING = ("id", "root_id", "origin", "argsrepr", "kwargsrepr", "correlation_id", "reply_to", "delivery_tag")


def opened(text):
    """A message with its body unpacked, without what changes."""
    message = json.loads(text)
    message["body"] = json.loads(b64decode(message["body"]))
    for part in (message["headers"], message["properties"]):
        for name in CHANGING:
            part.pop(name, None)
    return message


@pytest.mark.parametrize(
    ("task", "args", "limits"),
    [
        (EXECUTE_JOB, ["01a2"], {"time_limit": 305.0}),
        (EXECUTE_JOBS, [["01a2", "01a3"]], {"time_limit": 306.0}),
        (EXECUTE_DUE, ["default", 'a "quoted" \\ täsk', 1.5], {"time_limit": 7.0}),
    ],
)
def test_a_sealed_message_is_what_celery_would_have_sent(redis, settings, task, args, limits):
    name = str(uuid4())
    with Connection(settings.redis_url) as connection, connection.Producer() as producer:
        celery.send_task(
            task, args=args, producer=producer, queue="default", priority=0, task_id=name, ignore_result=True,
            shadow="noop", **limits
        )  # fmt: skip
    (theirs,) = waiting(redis)
    ours = MessagePattern(task, "default", 0, "noop", **limits).fill(celery, args, task_id=name, shown="x")
    assert opened(ours) == opened(theirs)
    for part, field in (("headers", "id"), ("headers", "root_id"), ("properties", "correlation_id")):
        assert json.loads(ours)[part][field] == json.loads(theirs)[part][field] == name


def test_each_message_has_its_own_tag_and_says_what_it_is_about():
    pattern = MessagePattern(EXECUTE_JOB, "default", 4)
    one, two = (
        json.loads(pattern.fill(celery, [name], task_id=name, shown=f'job "{name}"\n')) for name in ("a", "b")
    )
    assert one["properties"]["delivery_tag"] != two["properties"]["delivery_tag"]
    assert [found["headers"]["id"] for found in (one, two)] == ["a", "b"]
    assert two["headers"]["argsrepr"] == 'job "b"\n'
    assert json.loads(b64decode(one["body"]))[0] == ["a"]
