"""One exchange with Redis within a bounded time, and a pause after one that failed."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from celery import Celery
from kombu import pools
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from webapp.infra.broker import transport
from webapp.settings.server_urls import redis_url_for_kombu

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: The Celery application of every process; its data is in `celeryconfig.py`.
celery = Celery("djps")

#: How long one exchange with Redis may take when it is sent from a request, seconds.
PUBLISH_TIMEOUT = 0.1
#: How long nothing is sent after a failure, seconds; the dispatcher sends what was left out.
PAUSE_AFTER_FAILURE = 1.0
#: Connections of one process to Redis for sending.
CONNECTIONS = 8

#: What sending may raise: Redis away, slow, full or read-only, or no free connection in time.
SEND_ERRORS = (RedisError, KombuError, OSError)


def bind_celery(queues: Iterable[str]) -> None:
    """Configures the Celery application and names every queue there is; others are refused, not made up."""
    transport.mend()
    celery.config_from_object("celeryconfig")
    celery.conf.task_queues = [Queue(name) for name in queues]


class Client:
    """Asks Redis, for threads and forked children alike.

    Args:
        url: where Redis is.
        timeout: seconds one exchange may take.
        clock: seconds that only grow.
    """

    def __init__(
        self, url: str, *, timeout: float = PUBLISH_TIMEOUT, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._timeout = timeout
        self._clock = clock
        self._paused_until = float("-inf")
        options = {
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "socket_keepalive": True,
            "retry_on_timeout": False,
            "max_retries": 0,
            "health_check_interval": 0,
            "priority_steps": list(transport.PRIORITY_STEPS),
        }
        self._producers = pools.producers[
            Connection(redis_url_for_kombu(url), transport_options=options, connect_timeout=timeout)
        ]
        self._producers.limit = CONNECTIONS

    def available(self) -> bool:
        """False for a moment after a failure, so that a dead Redis costs one request its timeout and not all."""
        return self._clock() >= self._paused_until

    def give_up(self) -> None:
        """Nothing is sent by this process any more: its sockets may be other files by now."""
        self._paused_until = math.inf

    def ask(self, work: Callable[[Any], T]) -> T | None:
        """One exchange with Redis; None when it cannot be had, and then for a moment nothing is sent."""
        try:
            return self._exchange(work)
        except SEND_ERRORS as error:
            self._paused_until = self._clock() + PAUSE_AFTER_FAILURE
            logger.warning("broker is not answering", extra={"error_type": type(error).__name__})
            return None

    def ask_aside(self, work: Callable[[Any], T]) -> T | None:
        """One exchange about something that may be missing: it fails alone, and sending goes on."""
        if not self.available():
            return None
        try:
            return self._exchange(work)
        except SEND_ERRORS as error:
            logger.warning("a hint could not be had from Redis", extra={"error_type": type(error).__name__})
            return None

    def _exchange(self, work: Callable[[Any], T]) -> T:
        with self._producers.acquire(block=True, timeout=self._timeout) as producer:
            return work(producer.channel.client)
