"""What is true right now, read from PostgreSQL and Redis at each scrape."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from webapp import heartbeats
from webapp.broker import waiting_in
from webapp.jobs import census
from webapp.jobs.handlers import registry

logger = logging.getLogger(__name__)

#: Values of a gauge by its labels.
Values = Mapping[tuple[str, ...], float]
#: What stands for a task that no handler here has: anybody may have named it, and labels must be few.
OTHER = "other"


class LiveGauges(Collector):
    """Gauges of queues, workers and servers; one whose source is away is left out, not zero."""

    def __init__(self, engine: Engine, redis: Redis) -> None:
        self._engine = engine
        self._redis = redis

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Reads all of them."""
        yield from self._database()
        yield from self._broker()

    def _database(self) -> Iterator[GaugeMetricFamily]:
        try:
            with self._engine.connect() as connection:
                depths, due = census.depths(connection), census.due(connection)
                dead = census.open_letters(connection)
        except SQLAlchemyError:
            logger.warning("queue gauges could not be read from the database")
            yield _one("database_up", "Whether PostgreSQL answered this scrape.", 0)
            return
        yield _one("database_up", "Whether PostgreSQL answered this scrape.", 1)
        queues = sorted({*registry.queues(), *(queue for queue, _ in depths)})
        states = [(queue, status) for queue in queues for status in ("queued", "processing")]
        yield _by(
            "job_queue_depth",
            "Unfinished jobs.",
            ("queue", "status"),
            {key: depths.get(key, 0) for key in states},
        )
        ages: Values = {(queue,): max(0.0, due.get(queue, (0, 0.0))[1]) for queue in queues}
        yield _by("job_oldest_due_age_seconds", "Age of the oldest due job.", ("queue",), ages)
        counts: Values = {(queue,): due.get(queue, (0, 0.0))[0] for queue in queues}
        yield _by("job_due", "Jobs that are due and not started.", ("queue",), counts)
        letters: Counter[tuple[str, ...]] = Counter()
        for task, count in dead.items():
            letters[task if registry.get(task) else OTHER,] += count
        yield _by("dead_letters_open", "Dead letters nobody has dealt with.", ("task",), letters)

    def _broker(self) -> Iterator[GaugeMetricFamily]:
        try:
            workers = heartbeats.workers(self._redis)
            memory = self._redis.info("memory")
            waiting: Values = {(queue,): waiting_in(self._redis, [queue]) for queue in registry.queues()}
        except RedisError:
            logger.warning("worker gauges could not be read from Redis")
            yield _one("redis_up", "Whether Redis answered this scrape.", 0)
            return
        yield _one("redis_up", "Whether Redis answered this scrape.", 1)
        yield _one("active_workers", "Workers whose heartbeat has not run out.", len(workers))
        yield from _of_workers(workers)
        yield _by("broker_messages", "Messages that wait in Redis.", ("queue",), waiting)
        yield _one("redis_memory_used_bytes", "Memory that Redis uses.", float(memory["used_memory"]))
        if limit := float(memory.get("maxmemory", 0)):
            yield _one("redis_memory_limit_bytes", "Redis's maxmemory; left out without one.", limit)


def _of_workers(workers: Iterable[heartbeats.Worker]) -> Iterator[GaugeMetricFamily]:
    """Workers by what they call themselves, which a restart does not change."""
    listening: Counter[tuple[str, ...]] = Counter({(queue,): 0 for queue in registry.queues()})
    alive: Counter[tuple[str, ...]] = Counter()
    children: Counter[tuple[str, ...]] = Counter()
    running: Counter[tuple[str, ...]] = Counter()
    known: Mapping[str, bool] = defaultdict(bool, dict.fromkeys(registry.queues(), True))
    for worker in workers:
        for queue in worker.queues:
            if known[queue]:
                listening[queue,] += 1
        alive[worker.role,] += 1
        children[worker.role,] += worker.children
        running[worker.role,] += worker.running
    yield _by("queue_workers", "Live workers that listen to the queue.", ("queue",), listening)
    yield _by("worker_up", "Live workers of this name.", ("worker",), alive)
    yield _by("worker_children", "Processes that run its jobs.", ("worker",), children)
    yield _by("worker_running", "Jobs and tickets its processes have accepted.", ("worker",), running)


def _one(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, words, value=value)


def _by(name: str, words: str, labels: tuple[str, ...], values: Values) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, words, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(list(key), value)
    return family
