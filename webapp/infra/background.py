"""Work in the background that goes on although a part of it fails, and a thread that its process cannot do without.

A thread of several duties is a list of steps. Each has its own period and its own guard: what one raises costs
that step its turn, and no other step anything. Should the thread end all the same, its process ends with it, so
that its supervisor starts it again: half a process that looks alive is worse than none.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

#: Gives the time, seconds; `time.monotonic`, or one that a test sets.
Clock = Callable[[], float]

#: Exit code of a process whose thread died (EX_SOFTWARE of sysexits.h).
EXIT_CODE = 70
#: Seconds between two log lines about a step that goes on failing.
SAY_EVERY = 60.0
#: Rounds without memory, one after the other, after which a thread gives up: a new process has what this one lacks.
MEMORY_PATIENCE = 20


@dataclass(slots=True)
class Step:
    """One duty of a thread.

    Args:
        name: for log lines and metrics.
        work: what is done.
        period: seconds from one turn that went well to the next; 0 for every round.
        again: seconds from a turn that failed to the next; 0 for the next round.
        when: True while there is something to do.
        kind: what it is called in log lines.
    """

    name: str
    work: Callable[[], object]
    period: float = 0.0
    again: float = 0.0
    when: Callable[[], bool] = lambda: True
    kind: str = "step"
    #: When its next turn is, on the monotonic clock.
    due_at: float = 0.0
    #: What its last turn raised; None when it went well.
    error: Exception | None = None
    _say_at: float = field(default=0.0, repr=False)

    def turn(self, now: float) -> Exception | None:
        """Does the work when it is due; what it raises is kept, logged, returned, and goes no further.

        Raises:
            BaseException: one that is no `Exception`: it asks the thread to end.
        """
        if now < self.due_at:
            return None
        try:
            if not self.when():
                self.error = None
                return None
            self.work()
        except Exception as error:  # noqa: BLE001 - that is the guard: the steps that follow have their turn
            self.due_at = now + min(self.again, self.period)
            self._failed(error, now)
            return error
        self.due_at = now + self.period
        if self.error is not None:
            self.error = None
            self._say_at = 0.0
            logger.info(f"{self.kind} works again", extra={"step": self.name})
        return None

    def _failed(self, error: Exception, now: float) -> None:
        """Keeps the error, and logs it unless that was done a moment ago."""
        is_new = type(error) is not type(self.error)
        self.error = error
        if is_new or now >= self._say_at:
            self._say_at = now + SAY_EVERY
            logger.error(f"{self.kind} failed", exc_info=error, extra={"step": self.name})


class Steps:
    """The duties of one thread, in their order.

    Args:
        steps: each with a name of its own.
        failed: is told the name of a step that failed, such as to count it; must not raise.
        clock: says when a step is due.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        failed: Callable[[str], object] = lambda _: None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._steps = tuple(steps)
        self._failed = failed
        self._clock = clock
        self._rounds_without_memory = 0

    def __getitem__(self, name: str) -> Step:
        return next(step for step in self._steps if step.name == name)

    def run(self) -> None:
        """One round: gives each step its turn.

        Raises:
            MemoryError: a step had no memory in so many rounds that a new process is better.
        """
        lacked_memory = False
        for step in self._steps:
            error = step.turn(self._clock())
            if error is not None:
                lacked_memory |= isinstance(error, MemoryError)
                self._failed(step.name)
        self._rounds_without_memory = self._rounds_without_memory + 1 if lacked_memory else 0
        if self._rounds_without_memory >= MEMORY_PATIENCE:
            raise MemoryError(f"no memory in {self._rounds_without_memory} rounds, one after the other")

    def failing(self) -> Iterator[tuple[str, Exception]]:
        """The steps whose last turn failed, with what they raised."""
        return ((step.name, step.error) for step in self._steps if step.error is not None)


class NeededThread:
    """A thread that is there when it is needed: started again should it have died, or when the process was forked.

    Args:
        name: the thread's.
        work: what it does; what it raises is logged, and the next need starts it again.
    """

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self._name = name
        self._work = work
        self._thread: threading.Thread | None = None

    def is_alive(self) -> bool:
        """True while the thread runs in this process."""
        # After a fork Python marks the threads of the parent as ended.
        return self._thread is not None and self._thread.is_alive()

    def ensure(self) -> bool:
        """Starts the thread unless it runs; False when the system gives no thread. Callers hold a lock of their own."""
        if self.is_alive():
            return True
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            logger.error("thread could not be started", exc_info=error, extra={"part": self._name})  # noqa: TRY400
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        try:
            self._work()
        except BaseException:
            logger.critical(
                "thread died, and is started when it is needed", exc_info=True, extra={"part": self._name}
            )


class VitalThread(threading.Thread):
    """A thread that its process cannot do without: whatever leaves `work` ends the process.

    Args:
        name: the thread's.
        work: what it does; it returns when the thread is told to end.
    """

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work

    def run(self) -> None:
        """Works until the work is done."""
        try:
            self._work()
        except BaseException:  # noqa: BLE001 - the process ends with it
            try:
                logger.critical("thread died and its process ends", exc_info=True, extra={"part": self.name})
            finally:
                os._exit(EXIT_CODE)
