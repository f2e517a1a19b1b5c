"""Where a fault plays: the running system, and what is noted about the fault."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ops.chaos.history import History
from ops.chaos.system import System, await_that


class Broken(Exception):
    """A promise was broken that the checker cannot see; the message says which."""


@dataclass(slots=True)
class Stage:
    """Where a fault plays: the system, and what is noted about the fault.

    Args:
        slack: factor on the bars for times.
        faults: begin and end of each fault, seconds since the epoch.
        broken: promises about the fault itself that were broken, and how.
    """

    system: System
    history: History
    prefix: str
    rng: random.Random
    say: Callable[[str], None]
    slack: float = 1.0
    faults: list[tuple[float, float]] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def fault(self, what: str) -> Iterator[None]:
        """Notes when a fault begins and ends."""
        self.say(what)
        began = time.time()
        try:
            yield
        finally:
            self.faults.append((began, time.time()))

    @contextmanager
    def stopped(self, *pids: int) -> Iterator[None]:
        """Stops processes (SIGSTOP) for the time of a block, and notes it: it is the one excuse for an overlap."""
        began = time.time()
        self.system.freeze(*pids)
        try:
            yield
        finally:
            self.system.thaw(*pids)
            self.history.stopped(pids, began, time.time())

    def await_that(
        self, condition: Callable[[], object], patience: float, what: str, pause: float = 0.1
    ) -> None:
        """Waits for a condition; on a busy machine for longer.

        Raises:
            TimeoutError: it did not come true in time.
        """
        await_that(condition, patience * self.slack, what, pause)

    def hold(self, seconds: float) -> None:
        """Lets the system go on for a while."""
        time.sleep(seconds)

    def busy_children(self) -> list[int]:
        """Children of the worker that hold a job right now."""
        held = self.system.rows("SELECT worker_id FROM jobs WHERE status = 'processing'")
        pids = {int(row[0].rpartition("/")[2]) for row in held}
        return [pid for pid in self.system.children("worker") if pid in pids]


Fault = Callable[[Stage], None]
