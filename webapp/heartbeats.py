"""Heartbeat keys: a worker that has one in Redis is alive, or was less than its time to live ago."""

from __future__ import annotations

import json
from dataclasses import dataclass

from redis import Redis
from redis.exceptions import RedisError

#: What every heartbeat key begins with; the worker's name follows.
KEY_PREFIX = "djps:worker:"
#: Keys looked at in one step of a scan.
_SCAN_STEP = 1_000
#: Most workers that metrics name one by one.
MOST_SHOWN = 200
#: Beat's key; its time to live tells how long ago beat ticked.
BEAT_KEY = "djps:beat"
#: How long it is kept, seconds.
BEAT_KEPT = 3_600


def connect(url: str, timeout: float) -> Redis:
    """A client whose every exchange takes at most `timeout` seconds."""
    return Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout, decode_responses=True)


def beat(redis: Redis, worker: str, ttl: int, state: str) -> None:
    """Says that a worker is alive, for `ttl` seconds."""
    redis.set(KEY_PREFIX + worker, state, ex=ttl)


def leave(redis: Redis, worker: str) -> None:
    """Says that a worker is gone."""
    redis.delete(KEY_PREFIX + worker)


def live_workers(redis: Redis) -> list[str]:
    """The names of the workers whose heartbeat has not run out, sorted."""
    return sorted(key.removeprefix(KEY_PREFIX) for key in redis.scan_iter(KEY_PREFIX + "*", count=_SCAN_STEP))


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
    """

    name: str
    role: str
    queues: tuple[str, ...]
    children: int
    running: int
    busy: int
    idle: float


def workers(redis: Redis) -> list[Worker]:
    """The live workers, sorted by name; one whose description cannot be read listens to nothing.

    Raises:
        RedisError: Redis is not answering.
    """
    names = live_workers(redis)
    described = redis.mget([KEY_PREFIX + name for name in names]) if names else []
    return [_worker(name, given) for name, given in zip(names, described, strict=True) if given is not None]


def _worker(name: str, described: bytes | str) -> Worker:
    try:
        given = json.loads(described)
    except ValueError:
        given = {}
    return Worker(
        name,
        str(given.get("role") or name.partition(":")[0]),
        tuple(str(queue) for queue in given.get("queues", ())),
        int(given.get("children", 0)),
        int(given.get("running", 0)),
        int(given.get("busy", 0)),
        float(given.get("idle", 0)),
    )


def listening_to(redis: Redis, queue: str) -> int | None:
    """How many live workers listen to a queue; None while Redis does not say."""
    try:
        return sum(queue in worker.queues for worker in workers(redis))
    except RedisError:
        return None


def tick(redis: Redis) -> None:
    """Says that beat ticks."""
    redis.set(BEAT_KEY, "", ex=BEAT_KEPT)


def tick_age(redis: Redis) -> float:
    """Seconds since beat last ticked, by Redis's clock alone; `BEAT_KEPT` when that is longer ago, or not known."""
    left = redis.pttl(BEAT_KEY)
    return BEAT_KEPT - max(0, left) / 1_000
