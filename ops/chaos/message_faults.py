"""Faults of messages: duplicated, shuffled, dropped, and what was never a message."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from ops.chaos.stage import Stage
from ops.chaos.system import QUEUE
from webapp.infra.broker.transport import lists_of

#: How long the worker is held so that messages wait, seconds.
HELD = 1.2
#: Messages of a list that are copied at once. Copies of copies of a whole backlog are twenty-seven times its messages: after
#: them a soak waited a quarter of a minute until they were thrown away, which says how long a backlog takes and nothing else.
MOST_COPIED = 200


@contextmanager
def worker_held(stage: Stage, seconds: float = HELD) -> Iterator[None]:
    """Stops the worker for a moment, so that messages wait in the queue."""
    pids = [stage.system.pid("worker"), *stage.system.children("worker")]
    with stage.stopped(*pids):
        stage.hold(seconds)
        yield


def duplicate_messages(stage: Stage) -> None:
    """The messages that are next are there three times."""
    for _ in range(3):
        with worker_held(stage), stage.system.redis() as client, stage.fault("messages duplicated"):
            for name in lists_of(QUEUE):
                messages = client.lrange(name, -MOST_COPIED, -1)
                if messages:
                    client.rpush(name, *messages, *messages)
        stage.hold(1.5)


def shuffle_messages(stage: Stage) -> None:
    """The messages that wait are put in another order."""
    for _ in range(3):
        with worker_held(stage), stage.system.redis() as client, stage.fault("messages shuffled"):
            for name in lists_of(QUEUE):
                messages = client.lrange(name, 0, -1)
                stage.rng.shuffle(messages)
                if messages:
                    client.ltrim(name, len(messages), -1)
                    client.rpush(name, *messages)
        stage.hold(1.5)


def drop_messages(stage: Stage) -> None:
    """Half of the messages that wait are thrown away."""
    for _ in range(2):
        with worker_held(stage), stage.system.redis() as client, stage.fault("messages dropped"):
            for name in lists_of(QUEUE):
                for _ in range(client.llen(name) // 2):
                    client.rpop(name)
        stage.hold(1.5)


def message(task: str, args: list[Any], **changes: Any) -> bytes:
    """A message as kombu writes it."""
    body = changes.pop("body", json.dumps([args, {}, {}]).encode())
    tag = str(uuid4())
    envelope = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": task,
            "id": tag,
            "root_id": tag,
            "parent_id": None,
            "argsrepr": "",
            "kwargsrepr": "",
        },
        "properties": {
            "correlation_id": tag,
            "reply_to": str(uuid4()),
            "delivery_mode": 2,
            "priority": 0,
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "body_encoding": "base64",
            "delivery_tag": tag,
        },
    } | changes
    return json.dumps(envelope).encode()


class _Boom:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit(99)",))


def garbage(stage: Stage) -> None:
    """What must never be in a queue."""
    finished = stage.system.rows("SELECT id::text FROM jobs WHERE status = 'completed' LIMIT 5")
    forged = [
        b"\x00\xff noise " + stage.rng.randbytes(200),
        b"{not json",
        b"[]",
        b"{}",
        b'{"body": 5}',
        message(
            "tasks.execute_job",
            [],
            body=pickle.dumps(_Boom()),
            **{"content-type": "application/x-python-serialize"},
        ),
        message("no.such.task", ["x"]),
        message("tasks.execute_job", ["not-a-uuid"]),
        message("tasks.execute_job", []),
        message("tasks.execute_job", [str(uuid4())]),
        message("tasks.execute_job", [17, {"a": 1}]),
        message("tasks.execute_job", [], body=b"\xff\xfe"),
        message("tasks.bury_job", [str(uuid4()), 1]),
        message("tasks.execute_job", ["x"], headers=None),
        *(message("tasks.execute_job", [row[0]]) for row in finished),
        *(message("tasks.bury_job", [row[0], 1]) for row in finished),
    ]
    for _ in range(2):
        stage.rng.shuffle(forged)
        with stage.fault(f"{len(forged)} kinds of garbage"), stage.system.redis() as client:
            for one in forged:
                for queue in (QUEUE, "maintenance"):
                    client.lpush(queue, one)
                stage.hold(0.15)
