"""Heartbeat keys: a worker that has one in Redis is alive, or was less than its time to live ago."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from webapp.infra.broker import redis_keys

#: Keys looked at in one step of a scan.
_SCAN_STEP = 1_000
#: Most heartbeats that are looked at.
MOST_WORKERS = 2_000
#: Longest that a heartbeat lives, seconds: the most that WORKER_HEARTBEAT_TTL may be.
LONGEST_TTL = 3_600
#: Most workers that metrics name one by one.
MOST_SHOWN = 200
#: Longest name that is believed, characters, and most queues of a worker.
LONGEST_NAME, MOST_QUEUES = 200, 1_000
#: Largest number that is believed.
LARGEST = 1e9
#: What workers of this release know, and those of an earlier one may not.
LIMITS = "limits"
TENANTS = "tenants"
KNOWN = (LIMITS, TENANTS)
#: How long beat's key is kept, seconds; its time to live tells how long ago beat ticked.
BEAT_KEPT = 3_600


def connect(url: str, timeout: float) -> Redis:
    """A client whose every exchange takes at most `timeout` seconds; what is no UTF-8 is read all the same."""
    return Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        decode_responses=True,
        encoding_errors="replace",
    )


def key_of(worker: str) -> str:
    """The key of a worker's heartbeat."""
    return redis_keys.key(redis_keys.WORKER + worker)


def beat(redis: Redis, worker: str, ttl: int, state: str) -> None:
    """Says that a worker is alive, for `ttl` seconds."""
    redis.set(key_of(worker), state, ex=ttl)


def leave(redis: Redis, worker: str) -> None:
    """Says that a worker is gone."""
    redis.delete(key_of(worker))


def live_workers(redis: Redis) -> list[str]:
    """The names of the workers whose heartbeat has not run out, sorted; at most `MOST_WORKERS`."""
    beginning = key_of("")
    found = islice(redis.scan_iter(f"{beginning}*", count=_SCAN_STEP), MOST_WORKERS)
    return sorted({str(key).removeprefix(beginning) for key in found})


@dataclass(frozen=True, slots=True)
class Worker:
    """A live worker, as it describes itself.

    Args:
        name: host, pid and boot; a restart changes it.
        role: its node name, such as `worker@host`, which a restart does not change.
        queues: those it takes messages from.
        children: its processes that run jobs.
        running: jobs and tickets they have accepted.
        busy: how many of them are running one.
        idle: seconds since the worker last took a message.
        knows: what it knows that an earlier release does not, such as `LIMITS`.
    """

    name: str
    role: str
    queues: tuple[str, ...]
    children: int
    running: int
    busy: int
    idle: float
    knows: tuple[str, ...] = ()


def workers(redis: Redis) -> list[Worker]:
    """The live workers, sorted by name; one whose description cannot be read listens to nothing.

    A key that would stay for ever, or is no text, is no heartbeat.

    Raises:
        RedisError: Redis is not answering.
    """
    names = live_workers(redis)
    pipe = redis.pipeline(transaction=False)
    for name in names:
        pipe.get(key_of(name))
        pipe.pttl(key_of(name))
    answers = pipe.execute(raise_on_error=False)
    found = []
    for name, described, left in zip(names, answers[::2], answers[1::2], strict=True):
        for answer in (described, left):
            if isinstance(answer, Exception) and not redis_keys.is_wrong_type(answer):
                raise answer
        if isinstance(described, str) and 0 <= left <= LONGEST_TTL * 1_000:
            found.append(_worker(name, described))
    return found


def _worker(name: str, described: str) -> Worker:
    try:
        given = json.loads(described)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        given = {}
    role, queues, knows = given.get("role"), given.get("queues"), given.get("knows")
    return Worker(
        name[:LONGEST_NAME],
        (role if isinstance(role, str) and role else name.partition(":")[0])[:LONGEST_NAME],
        tuple(str(queue)[:LONGEST_NAME] for queue in queues[:MOST_QUEUES])
        if isinstance(queues, list)
        else (),
        int(_number(given, "children")),
        int(_number(given, "running")),
        int(_number(given, "busy")),
        _number(given, "idle"),
        tuple(one for one in KNOWN if one in knows) if isinstance(knows, list) else (),
    )


def _number(given: dict[str, Any], name: str) -> float:
    """A number of a description, 0 when it is none: the key may hold anything."""
    value = given.get(name)
    return float(value) if isinstance(value, int | float) and 0 <= value <= LARGEST else 0.0


def listening_to(redis: Redis, queue: str) -> int | None:
    """How many live workers listen to a queue; None while Redis does not say."""
    try:
        return sum(queue in worker.queues for worker in workers(redis))
    except RedisError:
        return None


def running_without(redis: Redis, known: str) -> list[str] | None:
    """The live workers that run jobs and do not know this; None while Redis does not say."""
    try:
        return [worker.name for worker in workers(redis) if worker.children and known not in worker.knows]
    except RedisError:
        return None


def tick(redis: Redis) -> None:
    """Says that beat ticks."""
    redis.set(redis_keys.key(redis_keys.BEAT), "", ex=BEAT_KEPT)


def tick_age(redis: Redis) -> float:
    """Seconds since beat last ticked, by Redis's clock alone; `BEAT_KEPT` when that is longer ago, or not known."""
    left = redis.pttl(redis_keys.key(redis_keys.BEAT)) / 1_000
    return BEAT_KEPT - left if 0 <= left <= BEAT_KEPT else float(BEAT_KEPT)
