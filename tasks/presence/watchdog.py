"""The watchdog: notices that a worker lives and does not hear.

A worker can lose the ability to take messages and not know it: a connection that is half open, a consumer that
was not started again after a reconnect. Celery's own ping answers all the same. What tells is the work: messages
wait, the worker has a free child, and for some time it has received none.
"""

from __future__ import annotations

from dataclasses import dataclass

#: How long messages must wait in vain, seconds.
PATIENCE = 20.0
#: Seconds between two looks.
LOOK_EVERY = 2.0
#: Exit code of a worker that was found deaf (EX_SOFTWARE of sysexits.h).
EXIT_CODE = 70


@dataclass(slots=True)
class Watchdog:
    """Judges one look after the other.

    Args:
        patience: seconds of waiting messages and no receipt before a worker counts as deaf.
    """

    patience: float = PATIENCE
    _since: float | None = None
    _received: int = -1

    def is_deaf(self, now: float, *, waiting: int, received: int, busy: int, capacity: int) -> bool:
        """Tells whether the worker has been deaf for longer than is bearable.

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
