"""A clock that tests set forward, for code that takes its clock as a parameter."""

from __future__ import annotations

import time


class SettableClock:
    """The monotonic clock, and what it was set forward by: it goes on by itself, as that of a real thread does.

    Example:
        >>> clock = SettableClock()
        >>> before = clock()
        >>> clock.advance(60.0)
        >>> clock() - before >= 60.0
        True
    """

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        """Sets it forward."""
        self._ahead += seconds
