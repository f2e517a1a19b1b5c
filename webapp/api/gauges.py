"""What is true right now, read from PostgreSQL and Redis at each scrape.

A gauge whose source is away is left out, not zero; that it is away is a gauge of its own (`database_up`,
`redis_up`). A scrape takes at most a few seconds whatever is broken.
"""

from __future__ import annotations

import logging
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from webapp import VERSION, heartbeats
from webapp.broker import waiting_in
from webapp.jobs import census
from webapp.jobs.handlers import MAINTENANCE_QUEUE, registry
from webapp.metrics import queue_label, task_label

if TYPE_CHECKING:
    from redis import Redis
    from sqlalchemy import Engine

logger = logging.getLogger(__name__)

#: How long Redis may take to answer one question of a scrape, seconds.
SCRAPE_TIMEOUT = 0.5

#: Every gauge: what it tells, and its labels.
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "job_queue_depth": ("Unfinished jobs.", ("queue", "status")),
    "job_oldest_due_age_seconds": ("Age of the oldest due job.", ("queue",)),
    "job_due": ("Jobs that are due and not started.", ("queue",)),
    "dead_letters_open": ("Dead letters that nobody has dealt with.", ("task",)),
    "database_up": ("1 when PostgreSQL answered this scrape.", ()),
    "database_connections": ("Connections of our processes to PostgreSQL.", ("role", "state")),
    "database_connections_max": ("Connections that PostgreSQL takes in all.", ()),
    "redis_up": ("1 when Redis answered this scrape.", ()),
    "redis_memory_used_bytes": ("Memory that Redis uses.", ()),
    "redis_memory_max_bytes": ("Memory that Redis may use; its host's where no limit is set.", ()),
    "broker_messages": ("Messages that wait in Redis.", ("queue",)),
    "active_workers": ("Workers whose heartbeat has not run out.", ()),
    "queue_workers": ("Live workers that take messages of the queue.", ("queue",)),
    "worker_up": ("Live workers of this name.", ("worker",)),
    "worker_children": ("Its processes that run jobs.", ("worker",)),
    "worker_busy_children": ("Those of them that are running one.", ("worker",)),
    "worker_last_claim_age_seconds": ("Since it last took a message.", ("worker",)),
    "beat_last_tick_age_seconds": ("Since beat last ticked; an hour when that is not known.", ()),
    "djps_build_info": ("1, with what runs as labels.", ("version", "python")),
}


def _gauge(name: str) -> GaugeMetricFamily:
    words, labels = GAUGES[name]
    return GaugeMetricFamily(name, words, labels=list(labels))


def _single(name: str, value: float) -> GaugeMetricFamily:
    family = _gauge(name)
    family.add_metric([], value)
    return family


class LiveGauges(Collector):
    """Reads depths, ages, connections, memory and heartbeats.

    Args:
        engine: the database.
        redis: a client that gives up after `SCRAPE_TIMEOUT`.
    """

    def __init__(self, engine: Engine, redis: Redis) -> None:
        self._engine = engine
        self._redis = redis

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Everything that can be read now."""
        build = _gauge("djps_build_info")
        build.add_metric([VERSION, platform.python_version()], 1)
        yield build
        yield from self._read("database_up", self._database, SQLAlchemyError)
        yield from self._read("redis_up", self._broker, RedisError)

    def _read(
        self, up: str, read: Callable[[], Iterable[GaugeMetricFamily]], error_type: type[Exception]
    ) -> list[GaugeMetricFamily]:
        try:
            return [_single(up, 1), *read()]
        except error_type as error:
            logger.warning(
                "gauges could not be read", extra={"source": up, "error_type": type(error).__name__}
            )
            return [_single(up, 0)]

    def _database(self) -> Iterator[GaugeMetricFamily]:
        with self._engine.connect() as connection:
            depths = census.depths(connection)
            due = census.due(connection)
            dead = census.open_letters(connection)
            open_connections = census.connections(connection)
            most_connections = census.most_connections(connection)
        queues = {*map(queue_label, registry.queues()), *(queue_label(queue) for queue, _ in depths)}
        depth = Counter({(queue, status): 0 for queue in queues for status in ("queued", "processing")})
        waiting, oldest = Counter({(queue,): 0 for queue in queues}), {(queue,): 0.0 for queue in queues}
        for (queue, status), number in depths.items():
            depth[queue_label(queue), status] += number
        for queue, (number, seconds) in due.items():
            waiting[queue_label(queue),] += number
            oldest[queue_label(queue),] = max(seconds, oldest[queue_label(queue),])
        yield _each("job_queue_depth", depth)
        yield _each("job_due", waiting)
        yield _each("job_oldest_due_age_seconds", oldest)
        letters = Counter({(task_label(task),): 0 for task in registry.names()})
        for task, number in dead.items():
            letters[task_label(task),] += number
        yield _each("dead_letters_open", letters)
        yield _each("database_connections", open_connections)
        yield _single("database_connections_max", most_connections)

    def _broker(self) -> Iterator[GaugeMetricFamily]:
        memory = self._redis.info("memory")
        yield _single("redis_memory_used_bytes", memory["used_memory"])
        yield _single("redis_memory_max_bytes", memory["maxmemory"] or memory.get("total_system_memory", 0))
        # The first of them have series of their own, as everywhere.
        queues = [name for name in registry.queues() if queue_label(name) == name] + [MAINTENANCE_QUEUE]
        yield _each("broker_messages", {(name,): waiting_in(self._redis, [name]) for name in queues})
        workers = heartbeats.workers(self._redis)
        yield _single("active_workers", len(workers))
        yield _each("queue_workers", {(name,): sum(name in one.queues for one in workers) for name in queues})
        yield from _of_workers(workers)
        yield _single("beat_last_tick_age_seconds", heartbeats.tick_age(self._redis))


def _of_workers(workers: Iterable[heartbeats.Worker]) -> Iterator[GaugeMetricFamily]:
    """Workers by what they call themselves, which a restart does not change; two of one name are added up."""
    alive, children, busy = Counter[tuple[str]](), Counter[tuple[str]](), Counter[tuple[str]]()
    idle: dict[tuple[str], float] = {}
    for worker in workers:
        name = (worker.role,)
        if name not in alive and len(alive) == heartbeats.MOST_SHOWN:
            continue
        alive[name] += 1
        children[name] += worker.children
        busy[name] += worker.busy
        idle[name] = min(worker.idle, idle.get(name, worker.idle))
    yield _each("worker_up", alive)
    yield _each("worker_children", children)
    yield _each("worker_busy_children", busy)
    yield _each("worker_last_claim_age_seconds", idle)


def _each(name: str, values: Mapping[Any, float]) -> GaugeMetricFamily:
    family = _gauge(name)
    for labels, value in sorted(values.items()):
        family.add_metric(list(labels), value)
    return family
