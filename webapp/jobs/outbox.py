"""The outbox: hints on their way to Redis, sent by a thread of their own, many at a time.

A request that has committed its job leaves the hint here and answers; it does not wait for Redis. Under load several
hints meet in here and share a pipeline and, for quick tasks, a message. Where nothing is going on, a request sends its one hint
itself: the thread would have to wait until the answer is written, for only one of them runs Python at a time. What
is lost with the process is sent again by the dispatcher, like every hint that is lost.
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
#: How long nothing has come in before a hint is alone, seconds.
QUIET = 0.01


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
        self._sending = 0
        self._last_at = 0.0
        self._owner = 0

    def put(self, hints: Sequence[Hint]) -> None:
        """Leaves hints to be sent, and returns at once; one that is alone is sent before this returns."""
        with self._changed:
            now = time.monotonic()
            is_alone = len(hints) == 1 and not self._waiting and now - self._last_at > QUIET
            self._last_at = now
            if self._owner != os.getpid():
                # A thread does not survive a fork, so each process starts its own when it first needs it.
                self._owner = os.getpid()
                self._sending = 0
                threading.Thread(target=self._send_on, name="outbox", daemon=True).start()
                atexit.register(self.flush)
            if is_alone:
                self._sending += 1
            else:
                self._waiting.extend(hints)
                self._changed.notify_all()
        if is_alone:
            self._send(hints)

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
                self._changed.wait_for(lambda: self._waiting)
                hints, self._waiting = self._waiting, []
                self._sending += 1
            began = time.monotonic()
            self._send(hints)
            if len(hints) > 1:
                # There is a crowd: what comes in the next moment goes together.
                time.sleep(max(0.0, began + CROWD_PAUSE - time.monotonic()))

    def _send(self, hints: Sequence[Hint]) -> None:
        try:
            if self._broker.send_hints(hints):
                metrics.jobs_dispatched.labels("submitted").inc(len(hints))
            else:
                self._give_back([hint.id for hint in hints])
        finally:
            with self._changed:
                self._sending -= 1
                self._changed.notify_all()
