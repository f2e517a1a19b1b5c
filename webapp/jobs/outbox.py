"""The outbox: hints on their way to Redis, sent by a thread of their own, many at a time.

A request that has committed its job leaves the hint here and answers; it does not wait for Redis. Under load several
hints meet in here and share a pipeline and, for quick tasks, a message. What is lost with the process is sent again
by the dispatcher, like every hint that is lost.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Sequence
from uuid import UUID

from webapp import metrics
from webapp.broker import Broker
from webapp.jobs.store import Hint

#: How long a process that ends waits for the last hints to be sent, seconds.
LAST_CALL = 1.0
#: Shortest time between two sendings while hints come thick and fast, seconds. A lone hint never waits.
CROWD_PAUSE = 0.01


class Outbox:
    """Sends hints soon.

    Args:
        broker: where they go.
        give_back: is told the jobs whose hints could not be sent.
    """

    def __init__(self, broker: Broker, give_back: Callable[[Sequence[UUID]], None]) -> None:
        self._broker = broker
        self._give_back = give_back
        self._waiting: list[Hint] = []
        self._changed = threading.Condition()
        self._sending = False
        self._owner = 0

    def put(self, hints: Sequence[Hint]) -> None:
        """Leaves hints to be sent; returns at once."""
        with self._changed:
            self._waiting.extend(hints)
            if self._owner != os.getpid():
                # A thread does not survive a fork, so each process starts its own when it first needs it.
                self._owner = os.getpid()
                self._sending = False
                threading.Thread(target=self._send_on, name="outbox", daemon=True).start()
                atexit.register(self.flush)
            self._changed.notify_all()

    def flush(self, patience: float = LAST_CALL) -> bool:
        """Waits until everything is sent; False when that takes too long.

        Args:
            patience: seconds.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._sending, patience)

    def _send_on(self) -> None:
        while True:
            with self._changed:
                self._sending = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting)
                hints, self._waiting = self._waiting, []
                self._sending = True
            began = time.monotonic()
            if self._broker.send_hints(hints):
                metrics.jobs_dispatched.labels("submitted").inc(len(hints))
            else:
                self._give_back([hint.id for hint in hints])
            if len(hints) > 1:
                # There is a crowd: what comes in the next moment goes together.
                time.sleep(max(0.0, began + CROWD_PAUSE - time.monotonic()))
