"""The soft time limit of jobs that run one after the other in one message: a timer that is hardly ever moved."""

from __future__ import annotations

import math
import signal
import threading
import time
from types import TracebackType
from typing import Any, Self

from celery.exceptions import SoftTimeLimitExceeded

#: The timer may differ from what it was set to by so much, seconds.
ALARM_SLACK = 0.05


class SoftLimit:
    """Raises `SoftTimeLimitExceeded` in a job that runs past its time.

    Setting a timer for each of hundreds of quick jobs is hundreds of system calls for nothing. One timer rings for the
    first job's end, looks whether the job that runs by then has time left, and is set for the rest of it. Only a job
    that must end before the timer rings moves it.

    Signals reach the main thread only, which is where a prefork child runs its jobs; elsewhere there is no limit.

    Args:
        is_for_one: True for the only job of a message.

    Example:
        >>> with SoftLimit() as limit:
        ...     limit.begin(30.0)
        ...     limit.end()
    """

    def __init__(self, *, is_for_one: bool = False) -> None:
        self.is_for_one = is_for_one
        self._works = threading.current_thread() is threading.main_thread()
        self._ends_at: float | None = None
        self._rings_at = math.inf
        self._before: Any = None

    def __enter__(self) -> Self:
        """The process's alarm is ours from here."""
        if self._works:
            self._before = signal.signal(signal.SIGALRM, self._ring)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """And no longer."""
        if self._works:
            self._ends_at = None
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)

    def begin(self, seconds: float) -> None:
        """A job begins that may take this long."""
        now = time.monotonic()
        self._ends_at = now + seconds
        if self._works and self._ends_at < self._rings_at:
            self._set(now)

    def end(self) -> None:
        """It is over; the timer may ring, and raises nothing."""
        self._ends_at = None

    def take_back(self) -> None:
        """Takes the alarm back from a job that has used it for itself."""
        if not self._works:
            return
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        expected = self._rings_at - time.monotonic() if self._rings_at < math.inf else 0.0
        if signal.getsignal(signal.SIGALRM) != self._ring or abs(left - max(expected, 0.0)) > ALARM_SLACK:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._ring)
            self._rings_at = math.inf

    def _set(self, now: float) -> None:
        assert self._ends_at is not None  # noqa: S101 - for the type checker: both callers have just looked
        self._rings_at = self._ends_at
        # A timer of no time at all would be none.
        signal.setitimer(signal.ITIMER_REAL, max(self._ends_at - now, 1e-6))

    def _ring(self, _number: int, _frame: object) -> None:
        self._rings_at = math.inf
        if self._ends_at is None:
            return
        now = time.monotonic()
        if now >= self._ends_at:
            raise SoftTimeLimitExceeded
        self._set(now)
