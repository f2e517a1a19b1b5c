"""What every sender knows of how long a task's jobs take: a hash in Redis that the workers write and all read."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import ResponseError

from webapp.infra.broker import pace, redis_keys

logger = logging.getLogger(__name__)

#: How long what was read is believed, seconds.
TTL = 0.2
#: The same while a task's first jobs run, of which nothing is known yet.
FIRST_TTL = 0.02
#: How long nothing is read after it could not be read, seconds: it is only a hint.
PAUSE = 2.0
#: How long a pace is kept after the last measurement, seconds.
KEPT = 86_400
#: Most tasks whose pace is read.
MOST_TASKS = 1_000

#: Does something with a Redis client; None when that cannot be done now.
Ask = Callable[[Callable[[Any], Any]], Any]


class PaceTable:
    """The paces that this process goes by.

    Only what was asked for is read, and only what makes sense is believed: the hash may hold anything.

    Args:
        ask: one exchange with Redis; None when Redis is away.
        chunk_of: jobs in a message of a task, where its handler says so.
        most: jobs in a message of any task.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        chunk_of: Callable[[str], int | None] = lambda _: None,
        most: int = pace.LARGEST_CHUNK,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._chunk_of = chunk_of
        self._most = most
        self._clock = clock
        self._known: dict[str, float] = {}
        self._asked: dict[str, None] = {}
        self._read_at = float("-inf")

    def get(self, task: str, ttl: float = TTL) -> float | None:
        """Seconds that one job of a task takes; None when that is not known.

        Args:
            ttl: how old what was read may be, seconds.
        """
        is_new = task not in self._asked and len(self._asked) < MOST_TASKS
        if is_new:
            self._asked[task] = None
        now = self._clock()
        if now - self._read_at > ttl or (is_new and now >= self._read_at):
            # Whatever comes of it, it is not tried again for each job of a batch.
            self._read_at = now
            self._read()
        return self._known.get(task)

    def chunk_size(self, task: str, work: float = pace.WORK_IN_A_MESSAGE) -> int:
        """How many jobs of a task are run together now.

        Args:
            work: how much work they should be, seconds.
        """
        return min(self._most, pace.chunk_size(self.get(task), fixed=self._chunk_of(task), work=work))

    def is_quick(self, task: str) -> bool:
        """True if a job of this task is known to be quick work, or its handler says that several are."""
        if self._says_quick(task):
            return True
        seconds = self.get(task)
        return seconds is not None and seconds <= pace.WORK_IN_A_MESSAGE

    def is_known(self, task: str) -> bool:
        """True if it is known how long the jobs of a task take; looks for the first measurement more often."""
        if self._says_quick(task):
            return True
        return self.get(task) is not None or self.get(task, FIRST_TTL) is not None

    def _says_quick(self, task: str) -> bool:
        return (self._chunk_of(task) or 1) > 1

    def tell(self, task: str, seconds: float) -> None:
        """Tells every sender how long one job of a task takes."""
        self._ask(lambda client: self._write(client, task, seconds))

    def _read(self) -> None:
        found = self._ask(self._fetch)
        if found is None:
            self._read_at = self._clock() + PAUSE
        else:
            self._known = found

    def _fetch(self, client: Any) -> dict[str, float]:
        name, tasks = redis_keys.key(redis_keys.PACE), list(self._asked)
        pipe = client.pipeline(transaction=False)
        for task in tasks:
            pipe.hget(name, task)
        answers = pipe.execute(raise_on_error=False)
        for error in answers:
            if isinstance(error, Exception):
                if not redis_keys.is_wrong_type(error):
                    raise error
                redis_keys.remove_wrong(client, {name: "hash"})
                return {}
        texts = dict(zip(tasks, answers, strict=True))
        paces = {task: seconds for task, text in texts.items() if (seconds := pace.parsed(text)) is not None}
        if broken := [task for task, text in texts.items() if text is not None and task not in paces]:
            client.hdel(name, *broken)
            logger.error("paces that make no sense were removed from Redis", extra={"tasks": broken[:10]})
        return paces

    @staticmethod
    def _write(client: Any, task: str, seconds: float) -> None:
        name = redis_keys.key(redis_keys.PACE)
        try:
            client.hset(name, task, seconds)
        except ResponseError as error:
            if not redis_keys.is_wrong_type(error):
                raise
            redis_keys.remove_wrong(client, {name: "hash"})
            client.hset(name, task, seconds)
        client.expire(name, KEPT)
