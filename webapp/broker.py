"""Sends messages to Redis within a bounded time. A message is a hint: losing one costs a delay, never a job.

A message carries ids only, and goes straight to its queue's list (`queue=`, never an exchange: after
FLUSHALL kombu drops what is sent through an exchange without an error).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any, Protocol
from uuid import UUID

from celery import Celery
from kombu import pools
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from webapp import transport

logger = logging.getLogger(__name__)

#: The Celery application of every process; its data is in `celeryconfig.py`.
celery = Celery("djps")

#: How long one exchange with Redis may take when it is sent from a request, seconds.
PUBLISH_TIMEOUT = 0.1
#: How long nothing is sent after a failure, seconds; the dispatcher sends what was left out.
PAUSE_AFTER_FAILURE = 1.0
#: How long a queue's measured length is believed, seconds.
LENGTH_TTL = 0.1
#: Seconds a handler gets after its soft time limit before its process is killed.
HARD_LIMIT_GRACE = 5.0
#: Most messages put into one pipeline.
PIPELINE_SIZE = 500
#: Connections of one process to Redis for sending.
CONNECTIONS = 8

EXECUTE_JOB = "tasks.execute_job"
BURY_JOB = "tasks.bury_job"

#: What sending may raise: Redis away, slow, full or read-only, or no free connection in time.
SEND_ERRORS = (RedisError, KombuError, OSError)


def bind_celery(queues: Iterable[str]) -> None:
    """Configures the Celery application and names every queue there is; others are refused, not made up."""
    transport.mend()
    celery.config_from_object("celeryconfig")
    celery.conf.task_queues = [Queue(name) for name in queues]


class JobHint(Protocol):
    """What a message about a job is made from."""

    @property
    def id(self) -> UUID:
        """The job."""

    @property
    def queue(self) -> str:
        """Where it waits."""

    @property
    def timeout(self) -> float:
        """Seconds an attempt may take."""


class Broker:
    """The sending side of the broker, for threads and forked children alike.

    Args:
        url: where Redis is.
        buffer: most messages of one queue kept in Redis.
        timeout: seconds one exchange may take.
    """

    def __init__(self, url: str, *, buffer: int, timeout: float = PUBLISH_TIMEOUT) -> None:
        self._buffer = buffer
        self._timeout = timeout
        self._paused_until = 0.0
        self._lengths: dict[str, tuple[float, int]] = {}
        options = {
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "socket_keepalive": True,
            "retry_on_timeout": False,
            "max_retries": 0,
            "health_check_interval": 0,
        }
        self._producers = pools.producers[Connection(url, transport_options=options, connect_timeout=timeout)]
        self._producers.limit = CONNECTIONS

    def available(self) -> bool:
        """False for a moment after a failure, so that a dead Redis costs one request its timeout and not all."""
        return time.monotonic() >= self._paused_until

    def has_room(self, queue: str) -> bool:
        """Tells whether a message for `queue` should be sent now; the answer may be `LENGTH_TTL` old."""
        if not self.available():
            return False
        measured_at, length = self._lengths.get(queue, (0.0, 0))
        if time.monotonic() - measured_at > LENGTH_TTL:
            measured = self.length(queue)
            if measured is None:
                return False
            length = measured
        return length < self._buffer

    def length(self, queue: str) -> int | None:
        """Messages waiting in a queue; None when Redis cannot be asked."""
        try:
            with self._producers.acquire(block=True, timeout=self._timeout) as producer:
                length = int(producer.channel.client.llen(queue))
        except SEND_ERRORS as error:
            self._failed(error)
            return None
        self._lengths[queue] = (time.monotonic(), length)
        return length

    def send_hints(self, hints: Sequence[JobHint]) -> bool:
        """Sends one message for each job in one pipeline; False when some may not have arrived."""
        messages = [
            (
                EXECUTE_JOB,
                [str(hint.id)],
                {
                    "queue": hint.queue,
                    "task_id": str(hint.id),
                    "soft_time_limit": hint.timeout,
                    "time_limit": hint.timeout + HARD_LIMIT_GRACE,
                },
            )
            for hint in hints
        ]
        return self._send(messages)

    def send_burial(self, job_id: UUID, attempt: int, queue: str) -> bool:
        """Asks the dead letter task to move a job; False when the message may not have arrived."""
        return self._send([(BURY_JOB, [str(job_id), attempt], {"queue": queue})])

    def _send(self, messages: Sequence[tuple[str, list[Any], dict[str, Any]]]) -> bool:
        if not self.available():
            return False
        try:
            with self._producers.acquire(block=True, timeout=self._timeout) as producer:
                if len(messages) == 1:
                    self._publish(producer, *messages[0])
                else:
                    with producer.batch(PIPELINE_SIZE):
                        for message in messages:
                            self._publish(producer, *message)
        except SEND_ERRORS as error:
            self._failed(error)
            return False
        return True

    def _publish(self, producer: Any, name: str, args: list[Any], options: dict[str, Any]) -> None:
        celery.send_task(name, args=args, producer=producer, retry=False, ignore_result=True, **options)

    def _failed(self, error: BaseException) -> None:
        self._paused_until = time.monotonic() + PAUSE_AFTER_FAILURE
        self._lengths.clear()
        logger.warning("broker is not answering", extra={"error_type": type(error).__name__})
