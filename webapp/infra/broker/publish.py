"""Sends messages to Redis. A message is a hint: losing one costs a delay, never a job.

A message carries ids only, and goes straight to its queue's list (`queue=`, never an exchange: after
FLUSHALL kombu drops what is sent through an exchange without an error).
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from redis.exceptions import ResponseError

from webapp.infra.broker import pace, redis_keys
from webapp.infra.broker.client import PUBLISH_TIMEOUT, Client, celery
from webapp.infra.broker.epoch import Epoch
from webapp.infra.broker.hints import Hint, Ticket
from webapp.infra.broker.messages import Message, dead_letter_message, job_message, ticket_message
from webapp.infra.broker.pace_table import PaceTable
from webapp.infra.broker.room import Room

T = TypeVar("T")

#: Most messages put into a list with one command.
PUSHED_AT_ONCE = 500


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
        self.client = Client(url, timeout=timeout, clock=clock)
        self.room = Room(self.client, buffer, clock)
        self.paces = PaceTable(self.client.ask_aside, chunk_of=chunk_of, most=most, clock=clock)
        self.epoch = Epoch(self.client)

    def has_room_for(self, jobs: Mapping[tuple[str, str], int]) -> bool:
        """True if messages for all of these should be sent now.

        Args:
            jobs: how many, by queue and task.
        """
        needed: dict[str, float] = defaultdict(float)
        for (queue, task), count in jobs.items():
            needed[queue] += count / self.paces.chunk_size(task)
        return all(self.room.fits(queue, messages) for queue, messages in needed.items())

    def send_hints(self, hints: Sequence[Hint]) -> bool:
        """Sends messages for jobs, several quick jobs of a task in one of them.

        Returns False when some may not have arrived.
        """
        if not self.client.available():
            return False
        alike = itertools.groupby(
            hints, key=lambda hint: (hint.task, hint.queue, hint.timeout, hint.priority)
        )
        return self._send(
            [
                job_message(part)
                for (task, *_), group in alike
                for part in _parts(list(group), self.paces.chunk_size(task))
            ]
        )

    def send_each(self, hints: Sequence[Hint]) -> bool:
        """Sends a message for each job; False when some may not have arrived."""
        return self._send([job_message([hint]) for hint in hints])

    def send_tickets(self, tickets: Sequence[Ticket]) -> bool:
        """Sends tickets; False when some may not have arrived, which costs nothing but time."""
        return self._send([ticket_message(ticket) for ticket in tickets])

    def send_dead_letter(self, job_id: UUID, attempt: int, queue: str) -> bool:
        """Asks the dead letter task to move a job; False when the message may not have arrived."""
        return self._send([dead_letter_message(job_id, attempt, queue)])

    def _send(self, messages: Sequence[Message]) -> bool:
        """Puts messages into their lists, those of one list in one command."""
        if not self.client.available():
            return False
        lists: dict[str, list[str]] = defaultdict(list)
        for message in messages:
            lists[message.key].append(message.sealed(celery))
        pushes = [(key, part) for key, texts in lists.items() for part in _parts(texts, PUSHED_AT_ONCE)]
        return self.client.ask(lambda client: [_push(client, key, part) for key, part in pushes]) is not None


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
