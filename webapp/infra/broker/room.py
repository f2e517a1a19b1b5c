"""How many messages wait in Redis, and so whether one more should be sent now."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from webapp.infra.broker import redis_keys, transport
from webapp.infra.broker.client import Client

#: How long a queue's measured length is believed, seconds.
LENGTH_TTL = 0.1

#: When a length was measured that never was, and what it is taken for.
_NEVER = (float("-inf"), 0)


def waiting_in(client: Any, queues: Iterable[str]) -> int:
    """Messages that wait in these queues, of every priority; one exchange with Redis.

    What is in a list's place and is none is removed: nothing could be sent to that queue any more.

    Raises:
        RedisError: Redis is not answering, or refuses to.
    """
    return _waiting_in(client, [name for queue in queues for name in transport.lists_of(queue)])


def _waiting_in(client: Any, names: Sequence[str]) -> int:
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


class Room:
    """The room in the queues of the broker, as it was measured lately.

    Args:
        client: asks Redis.
        buffer: most messages of one queue kept in Redis.
        clock: seconds that only grow.
    """

    def __init__(self, client: Client, buffer: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._buffer = buffer
        self._clock = clock
        self._lengths: dict[str, tuple[float, int]] = {}

    def fits(self, queue: str, messages: float = 1.0) -> bool:
        """True if so many messages for `queue` should be sent now; the answer may be `LENGTH_TTL` old."""
        if not self._client.available():
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
        return length + messages <= self._buffer

    def is_crowded(self, queue: str, messages: int) -> bool:
        """True if as many messages as this were lately seen in a queue."""
        return self._lengths.get(queue, _NEVER)[1] >= messages

    def most_urgent(self, queue: str) -> int | None:
        """Messages of the most urgent priority that wait in a queue; None when Redis cannot be asked."""
        return self._client.ask(
            lambda client: _waiting_in(client, [transport.list_of(queue, transport.MOST_URGENT)])
        )

    def length(self, queue: str) -> int | None:
        """Messages waiting in a queue; None when Redis cannot be asked."""
        length = self._client.ask(lambda client: waiting_in(client, [queue]))
        if length is not None:
            self._lengths[queue] = (self._clock(), length)
        return length
