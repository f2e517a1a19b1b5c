"""How many requests work at once in a process: as many as it has database connections, and submissions beside them.

The others wait for a slot, or need none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

from flask import current_app, g, request

from webapp.settings.http import MOST_SUBMISSIONS

#: What is answered however busy this process is: it asks PostgreSQL nothing, or only within bounds of its own.
SLOTLESS = frozenset(
    {
        "health.alive",
        "metrics.exposition",
        "openapi.openapi",
        "index.index",
        "docs.page",
        "docs.start",
        "docs.file",
        "access.me",
    }
)


#: What works on the database only for a part of its time, and takes a slot for that part.
SUBMISSIONS = frozenset({"jobs.submit"})


class WorkSlots:
    """Lets only so many requests work at once: those that wait have a thread each, and hold no slot.

    Args:
        slots: requests that work at once, as many as there are database connections.
    """

    def __init__(self, slots: int) -> None:
        # Queues of tokens: to wait for one is one sleep, where `threading.Semaphore` has a lock and a condition made in Python.
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(slots):
            self._free.put(None)
        self._submissions: SimpleQueue[None] = SimpleQueue()
        for _ in range(MOST_SUBMISSIONS):
            self._submissions.put(None)

    def free(self) -> int:
        """How many are free now."""
        return self._free.qsize()

    def take(self) -> None:
        """Takes a slot for this request; waits for one, unless it needs none."""
        if request.endpoint in SLOTLESS:
            return
        slots = self._submissions if request.endpoint in SUBMISSIONS else self._free
        slots.get()
        g.slots = slots

    def leave(self) -> None:
        """Gives this request's slot back, if it has one."""
        slots: SimpleQueue[None] | None = g.pop("slots", None)
        if slots is not None:
            slots.put(None)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """A slot for a block outside of a request's own work."""
        self._free.get()
        try:
            yield
        finally:
            self._free.put(None)


def work_slots() -> WorkSlots:
    """Those of this application."""
    found: WorkSlots = current_app.extensions["work_slots"]
    return found
