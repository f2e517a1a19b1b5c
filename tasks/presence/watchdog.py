"""The watchdog: notices that a worker lives and takes no messages, and ends it.

A worker can lose the ability to take messages and not know it: a connection that is half open, a consumer that
was not started again after a reconnect. Celery's own ping answers all the same. What tells is the work: messages
wait, the worker has a free child, and for some time it has received none.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from tasks.presence.context import UNREACHABLE, WorkerContext
from tasks.presence.drain import Drain
from tasks.presence.running import messages_received
from webapp.infra.background import Step
from webapp.infra.broker.room import waiting_in
from webapp.jobs import store

logger = logging.getLogger(__name__)

#: How long messages must wait in vain, seconds.
PATIENCE = 20.0
#: Seconds between two looks.
LOOK_EVERY = 2.0
#: Exit code of a worker that was found deaf (EX_SOFTWARE of sysexits.h).
EXIT_CODE = 70


@dataclass(slots=True)
class Watchdog:
    """Judges one look after the other. Pure.

    Args:
        patience: seconds of waiting messages and no receipt before a worker counts as deaf.
    """

    patience: float = PATIENCE
    _since: float | None = None
    _received: int = -1

    def is_deaf(self, now: float, *, waiting: int, received: int, busy: int, capacity: int) -> bool:
        """True if the worker has been deaf for longer than its patience.

        Args:
            now: a monotonic clock, seconds.
            waiting: messages in the worker's queues.
            received: messages the worker has taken since it started.
            busy: children that run something.
            capacity: children there are.
        """
        if not waiting or received != self._received or busy >= capacity:
            self._received = received
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= self.patience

    def forget(self) -> None:
        """Begins anew: what could not be seen says nothing."""
        self._since = None


class DeafnessCheck:
    """Looks whether the worker takes messages, and ends it when it does not; its supervisor starts it again.

    Args:
        worker: the one that is looked at.
        drain: gives back what runs before the worker ends.
    """

    def __init__(self, worker: WorkerContext, drain: Drain) -> None:
        self._worker = worker
        self._drain = drain
        self._watchdog = Watchdog()

    def steps(self) -> list[Step]:
        """One; a worker that was told to end takes no messages on purpose."""
        return [Step("watchdog", self.look, period=LOOK_EVERY, when=lambda: not self._drain.has_begun)]

    def look(self) -> None:
        """Ends the worker when it is deaf.

        Raises:
            DBAPIError, RedisError: a server is away, so nothing can be said.
        """
        worker = self._worker
        try:
            length = waiting_in(worker.redis, worker.queues)
            busy = 0
            if length:
                with worker.bounded(), worker.engine.connect() as connection:
                    busy = len(store.holders(connection, worker.holders_prefix))
        except UNREACHABLE:
            self._watchdog.forget()
            raise
        now, received = worker.clock(), messages_received()
        if self._watchdog.is_deaf(
            now, waiting=length, received=received, busy=busy, capacity=worker.capacity
        ):
            logger.critical(
                "worker takes no messages and ends", extra={"waiting": length, "received": received}
            )
            self._drain.release_running()
            os._exit(EXIT_CODE)
