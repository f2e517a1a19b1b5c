"""Heartbeat keys: a worker that has one in Redis is alive, or was less than its time to live ago."""

from __future__ import annotations

from redis import Redis

#: What every heartbeat key begins with; the worker's name follows.
KEY_PREFIX = "djps:worker:"
#: Keys looked at in one step of a scan.
_SCAN_STEP = 1_000


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
