"""Whether a failed job is tried again, and when. Pure: no clock, no database.

The wait before retry n is `base ** n` seconds, capped: with base 2 and three retries a job that always
fails runs at 0, 2, 6 and 14 seconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from webapp.jobs.errors import Discard, Retry, Snooze
from webapp.jobs.options import MAX_DELAY, checked_number


class DeathReason(StrEnum):
    """Why a job went to the dead letter queue."""

    #: It failed more often than its `max_retries` allow.
    EXHAUSTED = "exhausted"
    #: Its handler said that trying again is no use.
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Run the job again, `delay` seconds from now."""

    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not run the job again."""

    reason: DeathReason


@dataclass(frozen=True, slots=True)
class ComeBack:
    """Run the job again, `delay` seconds from now; no retry is used up."""

    delay: float


RetryDecision = TryAgain | ComeBack | GiveUp


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with a cap and optional jitter.

    Args:
        base: the wait before retry n is `base ** n` seconds.
        cap: longest wait, seconds.
        jitter: share of the wait that is random, 0 to 1; 1 is "full jitter"
            (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015).
        steps: the waits themselves, seconds, instead of base and cap; the last one goes for all that follow.

    Example:
        >>> [RetryPolicy(base=2, cap=10).delay(n) for n in (1, 2, 3, 4)]
        [2.0, 4.0, 8.0, 10.0]
    """

    base: float = 2.0
    cap: float = 60.0
    jitter: float = 0.0
    steps: tuple[float, ...] = ()

    def of_job(self, backoff: dict[str, float] | list[float] | None) -> RetryPolicy:
        """The policy of a job with a backoff of its own; what that leaves out is as it is here.

        Example:
            >>> RetryPolicy().of_job({"base": 3}).delay(2), RetryPolicy().of_job([1, 10, 60]).delay(2)
            (9.0, 10.0)
        """
        if backoff is None:
            return self
        if isinstance(backoff, list):
            return RetryPolicy(steps=tuple(backoff))
        return RetryPolicy(
            backoff.get("base", self.base), backoff.get("max", self.cap), backoff.get("jitter", self.jitter)
        )

    def delay(self, retry: int, chance: Callable[[], float] = random.random) -> float:
        """Seconds to wait before retry number `retry` (1 for the first)."""
        if self.steps:
            return float(self.steps[min(retry, len(self.steps)) - 1])
        try:
            wait = min(self.base**retry, self.cap)
        except OverflowError:
            wait = self.cap
        return float(wait * (1 - self.jitter * chance()))

    def after_failure(self, error: BaseException, *, retry_count: int, max_retries: int) -> RetryDecision:
        """Decides what follows an attempt that raised `error`.

        Args:
            error: what the handler raised; `Discard` ends the job, `Retry(after=...)` sets the wait, `Snooze` waits
                without using up a retry.
            retry_count: retries this job has used.
            max_retries: retries this job has in all.
        """
        if isinstance(error, Discard):
            return GiveUp(DeathReason.DISCARDED)
        asked = _wait_asked_by(error)
        if isinstance(error, Snooze) and asked is not None:
            return ComeBack(asked)
        if retry_count >= max_retries:
            return GiveUp(DeathReason.EXHAUSTED)
        return TryAgain(self.delay(retry_count + 1) if asked is None else asked)

    def after_loss(self, *, retry_count: int, max_retries: int) -> RetryDecision:
        """Decides what follows an attempt whose process died: again at once, while the budget lasts."""
        if retry_count >= max_retries:
            return GiveUp(DeathReason.EXHAUSTED)
        return TryAgain(0.0)


def _wait_asked_by(error: BaseException) -> float | None:
    """Seconds that a `Retry` or a `Snooze` asks for; None where it says nothing that can be used.

    A subclass may have forgotten to set it, or set it to anything.
    """
    names = {Retry: "after", Snooze: "seconds"}
    for kind, name in names.items():
        if isinstance(error, kind):
            try:
                return checked_number(name, getattr(error, name), 0, MAX_DELAY)
            except (AttributeError, ValueError):
                return None
    return None
