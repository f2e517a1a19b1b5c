"""Sends messages to Redis within a bounded time. A message is a hint: losing one costs a delay, never a job.

A message carries ids only, and goes straight to its queue's list (`queue=`, never an exchange: after
FLUSHALL kombu drops what is sent through an exchange without an error).
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from celery import Celery
from kombu import pools
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.exceptions import KombuError
from redis.exceptions import RedisError, ResponseError

from webapp.infra.broker import pace, redis_keys, transport
from webapp.infra.broker.hints import Hint, Ticket
from webapp.infra.broker.messages import Message, burial_message, job_message, ticket_message
from webapp.infra.broker.pace_table import FIRST_TTL, Paces
from webapp.settings.server_urls import redis_url_for_kombu

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: The Celery application of every process; its data is in `celeryconfig.py`.
celery = Celery("djps")

#: How long one exchange with Redis may take when it is sent from a request, seconds.
PUBLISH_TIMEOUT = 0.1
#: How long nothing is sent after a failure, seconds; the dispatcher sends what was left out.
PAUSE_AFTER_FAILURE = 1.0
#: How long a queue's measured length is believed, seconds.
LENGTH_TTL = 0.1
#: Most messages put into a list with one command.
PUSHED_AT_ONCE = 500
#: Connections of one process to Redis for sending.
CONNECTIONS = 8

#: When a length was measured that never was, and what it is taken for.
_NEVER = (float("-inf"), 0)

#: What sending may raise: Redis away, slow, full or read-only, or no free connection in time.
SEND_ERRORS = (RedisError, KombuError, OSError)


def bind_celery(queues: Iterable[str]) -> None:
    """Configures the Celery application and names every queue there is; others are refused, not made up."""
    transport.mend()
    celery.config_from_object("celeryconfig")
    celery.conf.task_queues = [Queue(name) for name in queues]


def waiting_in(client: Any, queues: Iterable[str]) -> int:
    """Messages that wait in these queues, of every priority; one exchange with Redis.

    What is in a list's place and is none is removed: nothing could be sent to that queue any more.

    Raises:
        RedisError: Redis is not answering, or refuses to.
    """
    names = [name for queue in queues for name in transport.lists_of(queue)]
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.llen(name)
    lengths = pipe.execute(raise_on_error=False)
    for error in lengths:
        if isinstance(error, Exception):
            if not redis_keys.is_wrong_type(error):
                raise error
            redis_keys.remove_wrong(client, dict.fromkeys(names, "list"))
            break
    return sum(length for length in lengths if isinstance(length, int))


def _decoded(value: bytes | str | None) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _run_id(client: Any) -> str:
    return str(client.info("server").get("run_id", ""))


def _is_another_epoch(client: Any) -> bool:
    try:
        noted = _decoded(client.get(redis_keys.key(redis_keys.EPOCH)))
    except ResponseError as error:
        if not redis_keys.is_wrong_type(error):
            raise
        # Whatever is in the key's place is written over when the next epoch begins.
        return True
    return noted != _run_id(client)


def _push(client: Any, key: str, texts: Sequence[str]) -> int:
    """Adds messages to a list and returns its length; what is in the list's place and is none is removed."""
    try:
        return int(client.lpush(key, *texts))
    except ResponseError as error:
        if not redis_keys.is_wrong_type(error):
            raise
        redis_keys.remove_wrong(client, {key: "list"})
        return int(client.lpush(key, *texts))


def _parts(whole: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(whole), size):
        yield whole[start : start + size]


class Broker:
    """The sending side of the broker, for threads and forked children alike.

    Args:
        url: where Redis is.
        buffer: most messages of one queue kept in Redis.
        chunk_of: jobs in a message of a task, where its handler says so.
        most: jobs in a message of any task.
        timeout: seconds one exchange may take.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        url: str,
        *,
        buffer: int,
        chunk_of: Callable[[str], int | None] = lambda _: None,
        most: int = pace.LARGEST_CHUNK,
        timeout: float = PUBLISH_TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._buffer = buffer
        self._chunk_of = chunk_of
        self._most = most
        self._paces = Paces(self._ask_for_hint, clock)
        self._timeout = timeout
        self._paused_until = float("-inf")
        self._lengths: dict[str, tuple[float, int]] = {}
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

    def has_room(self, queue: str) -> bool:
        """Tells whether a message for `queue` should be sent now; the answer may be `LENGTH_TTL` old."""
        if not self.available():
            return False
        measured_at, length = self._lengths.get(queue, _NEVER)
        now = self._clock()
        if now - measured_at > LENGTH_TTL:
            # Threads that come while this one asks go by what was known.
            self._lengths[queue] = (now, length)
            measured = self.length(queue)
            if measured is None:
                return False
            length = measured
        return length < self._buffer

    def is_crowded(self, queue: str, messages: int) -> bool:
        """Tells whether `has_room` has lately seen as many messages as this in a queue."""
        return self._lengths.get(queue, _NEVER)[1] >= messages

    def has_room_for(self, jobs: Mapping[tuple[str, str], int]) -> bool:
        """True if messages for all of these should be sent now.

        Args:
            jobs: how many, by queue and task.
        """
        needed: dict[str, float] = {}
        for (queue, task), count in jobs.items():
            needed[queue] = needed.get(queue, 0.0) + count / self.chunk_size(task)
        return all(
            self.has_room(queue) and self._lengths[queue][1] + count <= self._buffer
            for queue, count in needed.items()
        )

    def length(self, queue: str) -> int | None:
        """Messages waiting in a queue; None when Redis cannot be asked."""
        length = self._ask(lambda client: waiting_in(client, [queue]))
        if length is not None:
            self._lengths[queue] = (self._clock(), length)
        return length

    def lost_messages(self) -> bool:
        """Tells whether Redis forgot what it was sent: it was flushed, restarted or replaced.

        A key holds the run id of the server that it was written to; a flush takes the key, and a restart
        changes the id (an append-only file may bring the key back, but not the last second's messages).
        """
        return bool(self._ask_for_hint(_is_another_epoch))

    def begin_epoch(self) -> None:
        """Notes that what Redis had lost is being sent again; failing to note it sends it once more."""
        self._ask(lambda client: client.set(redis_keys.key(redis_keys.EPOCH), _run_id(client)))

    def _ask(self, work: Callable[[Any], T]) -> T | None:
        """One exchange with Redis; None when it cannot be had."""
        try:
            with self._producers.acquire(block=True, timeout=self._timeout) as producer:
                return work(producer.channel.client)
        except SEND_ERRORS as error:
            self._failed(error)
            return None

    def _ask_for_hint(self, work: Callable[[Any], T]) -> T | None:
        """One exchange about something that may be missing: it fails alone, and sending goes on."""
        if not self.available():
            return None
        try:
            with self._producers.acquire(block=True, timeout=self._timeout) as producer:
                return work(producer.channel.client)
        except SEND_ERRORS as error:
            logger.warning("a hint could not be had from Redis", extra={"error_type": type(error).__name__})
            return None

    def send_hints(self, hints: Sequence[Hint]) -> bool:
        """Sends messages for jobs, several quick jobs of a task in one of them.

        Returns False when some may not have arrived.
        """
        if not self.available():
            return False
        alike = itertools.groupby(
            hints, key=lambda hint: (hint.task, hint.queue, hint.timeout, hint.priority)
        )
        return self._send(
            [
                job_message(part)
                for (task, *_), group in alike
                for part in _parts(list(group), self.chunk_size(task))
            ]
        )

    def send_each(self, hints: Sequence[Hint]) -> bool:
        """Sends a message for each job; False when some may not have arrived."""
        return self._send([job_message([hint]) for hint in hints])

    def send_tickets(self, tickets: Sequence[Ticket]) -> bool:
        """Sends tickets; False when some may not have arrived, which costs nothing but time."""
        return self._send([ticket_message(ticket) for ticket in tickets])

    def is_quick(self, task: str) -> bool:
        """Tells whether a job of this task is known to be quick work, or its handler says that several are."""
        if self._says_quick(task):
            return True
        seconds = self._paces.get(task)
        return seconds is not None and seconds <= pace.WORK_IN_A_MESSAGE

    def _says_quick(self, task: str) -> bool:
        return (self._chunk_of(task) or 1) > 1

    def chunk_size(self, task: str) -> int:
        """How many jobs of a task one message carries now."""
        return min(self._most, pace.chunk_size(self._paces.get(task), fixed=self._chunk_of(task)))

    def knows_pace(self, task: str) -> bool:
        """Tells whether it is known how long the jobs of a task take; looks for the first measurement more often."""
        if self._says_quick(task):
            return True
        return self._paces.get(task) is not None or self._paces.get(task, FIRST_TTL) is not None

    def tell_pace(self, task: str, seconds: float) -> None:
        """Tells every sender how long one job of a task takes."""
        self._paces.tell(task, seconds)

    def send_burial(self, job_id: UUID, attempt: int, queue: str) -> bool:
        """Asks the dead letter task to move a job; False when the message may not have arrived."""
        return self._send([burial_message(job_id, attempt, queue)])

    def _send(self, messages: Sequence[Message]) -> bool:
        """Puts messages into their lists, those of one list in one command."""
        if not self.available():
            return False
        lists: dict[str, list[str]] = defaultdict(list)
        for message in messages:
            lists[message.key].append(message.sealed(celery))
        pushes = [(key, part) for key, texts in lists.items() for part in _parts(texts, PUSHED_AT_ONCE)]
        return self._ask(lambda client: [_push(client, key, part) for key, part in pushes]) is not None

    def _failed(self, error: BaseException) -> None:
        self._paused_until = self._clock() + PAUSE_AFTER_FAILURE
        self._lengths.clear()
        logger.warning("broker is not answering", extra={"error_type": type(error).__name__})
