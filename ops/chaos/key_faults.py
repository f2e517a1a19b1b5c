"""Faults of what is in Redis: keys of another type, values that make no sense, broadcasts that are none."""

from __future__ import annotations

from collections.abc import Iterator

from redis.exceptions import ResponseError

from ops.chaos.stage import Stage
from ops.chaos.system import QUEUE
from webapp.infra.broker import redis_keys
from webapp.infra.broker.heartbeats import key_of
from webapp.infra.broker.transport import lists_of

#: Seconds between two commands: shorter than anything here takes to notice one.
PAUSE = 0.08
#: Exchanges of kombu's that workers bind queues to.
EXCHANGES = ("default", "maintenance", "celery.pidbox", "reply.celery.pidbox", "celeryev")
#: What a number may be, and is none that can be gone by.
NONSENSE = (b"nan", b"inf", b"-1", b"1e999", b"", b"\xff\xfe", b"x" * 100_000, b"9" * 400)


def poison_keys(stage: Stage) -> None:
    """Every key there is gets another type and every value nonsense, one command after the other; none is put right."""
    commands = list(_commands())
    stage.rng.shuffle(commands)
    with stage.system.redis() as client, stage.fault(f"{len(commands)} poisoned keys"):
        for command in commands:
            try:
                client.execute_command(*command)
            except ResponseError:
                # A key that has another type takes this only in one transaction: the product makes it anew at any moment.
                with client.pipeline() as pipe:
                    pipe.delete(command[1])
                    pipe.execute_command(*command)
                    pipe.execute()
            stage.hold(PAUSE)


def _commands() -> Iterator[tuple[bytes | str, ...]]:
    """What is sent to Redis; the key is the second word."""
    pace, epoch, beat = (
        redis_keys.key(name) for name in (redis_keys.PACE, redis_keys.EPOCH, redis_keys.BEAT)
    )
    for text in NONSENSE:
        yield "HSET", pace, "chaos.effect", text
        yield "SET", epoch, text
        yield "SET", key_of("forged:1:x"), text, "EX", "3"
    yield "SET", beat, "x"
    for name in (pace, epoch, beat, *lists_of(QUEUE), *lists_of("maintenance")):
        yield "SADD", name, "x"
    for exchange in EXCHANGES:
        yield "SET", redis_keys.key(f"_kombu.binding.{exchange}"), "x"
        yield "SADD", redis_keys.key(f"_kombu.binding.{exchange}"), b"\xff"
        yield "HSET", redis_keys.key(f"_kombu.binding_permanent.{exchange}"), "a", "b"
    for name in (redis_keys.UNACKED, redis_keys.UNACKED_INDEX, redis_keys.UNACKED_MUTEX):
        yield "SET", redis_keys.key(name), "x"
        yield "LPUSH", redis_keys.key(name), "x"
    yield "HSET", redis_keys.key(redis_keys.UNACKED), "forged", b"\xff"
    yield "ZADD", redis_keys.key(redis_keys.UNACKED_INDEX), "1", "forged"
    for text in (b"\xff", b"[]", b"7", b"{}", b'{"properties": null}'):
        yield "PUBLISH", redis_keys.key("/0.celery.pidbox"), text
