"""Heartbeat keys: a worker that has one in Redis is alive, or was less than its time to live ago."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
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
#: Largest size that is believed, bytes.
LARGEST_MEMORY = 1e15
#: Child, job, attempt and seconds.
_IN_A_RUN = 4
#: How long it is kept what a worker said last, seconds; its time to live tells how long ago that was.
SEEN_KEPT = 3_600
#: Most runs that are believed of one worker.
MOST_RUNS = 256
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


def seen_key_of(worker: str) -> str:
    """The key of what a worker said last."""
    return redis_keys.key(redis_keys.SEEN + worker)


def beat(redis: Redis, worker: str, ttl: int, state: str) -> None:
    """Says that a worker is alive, for `ttl` seconds, and leaves word of it for an hour."""
    pipe = redis.pipeline(transaction=False)
    pipe.set(key_of(worker), state, ex=ttl)
    pipe.set(seen_key_of(worker), state, ex=SEEN_KEPT)
    pipe.execute()


def leave(redis: Redis, worker: str) -> None:
    """Says that a worker is gone."""
    redis.delete(key_of(worker))


def live_workers(redis: Redis) -> list[str]:
    """The names of the workers whose heartbeat has not run out, sorted; at most `MOST_WORKERS`."""
    return _names_after(redis, key_of(""))


def _names_after(redis: Redis, beginning: str) -> list[str]:
    found = islice(redis.scan_iter(f"{beginning}*", count=_SCAN_STEP), MOST_WORKERS)
    return sorted({str(key).removeprefix(beginning) for key in found})


@dataclass(frozen=True, slots=True)
class Run:
    """What a child runs, as its worker said.

    Args:
        child: its process.
        job: the id of the job, as text.
        attempt: which attempt of it.
        seconds: for how long it had run when the worker said so.
    """

    child: int
    job: str
    attempt: int
    seconds: float


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
        pid: its process; 0 where it does not say.
        version: its release; empty where it does not say.
        up: for how long it had been up when it said so, seconds; None where it does not say.
        memory: what it and its processes take, bytes; None where it does not say.
        runs: what its children run, the longest first.
        seen: how long ago it said all this, seconds; None where that is not known.
    """

    name: str
    role: str
    queues: tuple[str, ...]
    children: int
    running: int
    busy: int
    idle: float
    knows: tuple[str, ...] = ()
    pid: int = 0
    version: str = ""
    up: float | None = None
    memory: int | None = None
    runs: tuple[Run, ...] = ()
    seen: float | None = None


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


def seen_workers(redis: Redis) -> list[Worker]:
    """The workers that said something within the last hour, sorted by name: those that live, and those that are gone.

    Raises:
        RedisError: Redis is not answering.
    """
    names = _names_after(redis, seen_key_of(""))
    pipe = redis.pipeline(transaction=False)
    for name in names:
        pipe.get(seen_key_of(name))
        pipe.pttl(seen_key_of(name))
    answers = pipe.execute(raise_on_error=False)
    found = []
    for name, described, left in zip(names, answers[::2], answers[1::2], strict=True):
        for answer in (described, left):
            if isinstance(answer, Exception) and not redis_keys.is_wrong_type(answer):
                raise answer
        if isinstance(described, str) and 0 <= left <= SEEN_KEPT * 1_000:
            found.append(replace(_worker(name, described), seen=SEEN_KEPT - left / 1_000))
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
        int(_number(given, "pid")),
        str(given.get("version", ""))[:LONGEST_NAME],
        _number(given, "up") if "up" in given else None,
        int(_number(given, "memory", LARGEST_MEMORY)) if "memory" in given else None,
        _runs(given.get("runs")),
    )


def _runs(given: object) -> tuple[Run, ...]:
    """What children run; what is no list of four values each is left out."""
    listed = given[:MOST_RUNS] if isinstance(given, list) else []
    return tuple(
        Run(int(child), str(job)[:LONGEST_NAME], int(attempt), float(seconds))
        for child, job, attempt, seconds in (
            one for one in listed if isinstance(one, list) and len(one) == _IN_A_RUN
        )
        if all(
            isinstance(value, int | float) and 0 <= value <= LARGEST for value in (child, attempt, seconds)
        )
    )


def _number(given: dict[str, Any], name: str, largest: float = LARGEST) -> float:
    """A number of a description, 0 when it is none: the key may hold anything."""
    value = given.get(name)
    return float(value) if isinstance(value, int | float) and 0 <= value <= largest else 0.0


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
