"""What a client may ask of a job beside its payload, and the terms that come of it. Pure.

`Options` is what was asked, `Terms` what the job gets once its handler's defaults are filled in. A job of which
nothing is asked, and whose handler sets nothing, has no terms: storing it costs nothing more for all that is in here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from numbers import Real
from typing import Any

from webapp.infra.broker import hints
from webapp.jobs.unique import Unique

#: Priority of a job that asks for none.
DEFAULT_PRIORITY = hints.DEFAULT_PRIORITY
#: The least and the most urgent priority.
LOWEST_PRIORITY, HIGHEST_PRIORITY = 0, 9
#: Furthest ahead a job may be due or expire, seconds: a hundred years.
MAX_DELAY = 100 * 365.25 * 86_400
#: Longest timeout of an attempt, seconds.
MAX_TIMEOUT = 86_400.0
#: Most retries of a job.
MAX_RETRIES = 100
#: Most tags of a job.
MAX_TAGS = 20
#: Longest tag, characters.
MAX_TAG_LENGTH = 64
#: Longest key of a job, characters.
MAX_JOB_KEY_LENGTH = 200
#: Most waits in a `backoff` that is a list: as many as a job may have retries.
MAX_BACKOFF_STEPS = 100
#: Longest wait before a retry that a `backoff` may ask for, seconds: thirty days.
MAX_BACKOFF_WAIT = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Options:
    """What a client asked for; None and () where it did not ask.

    Args:
        queue: where the job waits, instead of its handler's queue.
        priority: 0 to 9, higher first.
        run_at: not before; with an offset.
        delay: not before so many seconds from now.
        max_retries: retries after the first attempt.
        backoff: `{"base", "max", "jitter"}`, or the waits before the retries as a list of seconds.
        timeout: seconds an attempt may take.
        expires_at: when a job that has not started is given up; with an offset.
        tags: what to find it by.
        callback_url: who is told how it ended.
        key: whose work it is.
        unique: no second job beside it.
    """

    queue: str | None = None
    priority: int | None = None
    run_at: datetime | None = None
    delay: float | None = None
    max_retries: int | None = None
    backoff: dict[str, float] | list[float] | None = None
    timeout: float | None = None
    expires_at: datetime | None = None
    tags: tuple[str, ...] = ()
    callback_url: str | None = None
    key: str | None = None
    unique: Unique | None = None

    def is_late(self, now: datetime) -> bool:
        """True if the job would expire before it is due, or has already."""
        if self.expires_at is None:
            return False
        return self.expires_at <= max(now, self.run_at or now + timedelta(seconds=self.delay or 0.0))

    def canonical(self) -> str:
        """The same text for the same wishes: what was not asked is not in it, and times are in UTC."""
        asked = {one.name: getattr(self, one.name) for one in fields(self)}
        return json.dumps(
            {name: value for name, value in asked.items() if value not in (None, ())},
            sort_keys=True,
            separators=(",", ":"),
            default=_as_json,
        )


def _as_json(asked: datetime | Unique) -> Any:
    return asked.wishes() if isinstance(asked, Unique) else asked.astimezone(UTC).isoformat()


#: Nothing was asked.
NO_OPTIONS = Options()


@dataclass(frozen=True, slots=True)
class Terms:
    """How a job is stored that is not like every other.

    Args:
        run_at: not before; None for the moment it is stored.
        delay: seconds after it is stored; 0 where `run_at` says when.
        expires_in: seconds after it is due, where `expires_at` does not say when.
        backoff: JSON text.
    """

    priority: int = DEFAULT_PRIORITY
    run_at: datetime | None = None
    delay: float = 0.0
    expires_at: datetime | None = None
    expires_in: float | None = None
    backoff: str | None = None
    tags: tuple[str, ...] = ()
    callback_url: str | None = None
    key: str | None = None


#: The terms of a job of which nothing is asked.
PLAIN = Terms()


def checked_backoff(backoff: Any) -> Any:
    """A backoff as a handler or a client may give it.

    Raises:
        ValueError: it is no list of seconds and no object of `base`, `max` and `jitter`, or a number is out of bounds.

    Example:
        >>> checked_backoff([1, 10, 60])
        [1, 10, 60]
    """
    if isinstance(backoff, (list, tuple)):
        if not 1 <= len(backoff) <= MAX_BACKOFF_STEPS:
            raise ValueError(f"backoff must have 1 to {MAX_BACKOFF_STEPS} waits; given: {len(backoff)}")
        for wait in backoff:
            _check_number("a wait of backoff", wait, 0, MAX_BACKOFF_WAIT)
        return list(backoff)
    if isinstance(backoff, dict):
        bounds = {"base": (1.0, 100.0), "max": (0.0, MAX_BACKOFF_WAIT), "jitter": (0.0, 1.0)}
        for name, value in backoff.items():
            if name not in bounds:
                raise ValueError(f"backoff must have base, max and jitter only; given: {name!r}")
            _check_number(f"backoff.{name}", value, *bounds[name])
        return dict(backoff)
    raise ValueError(f"backoff must be a list of seconds, or base, max and jitter; given: {backoff!r}")


def _check_number(what: str, value: Any, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ValueError(f"{what} must be {least:g} to {most:g}; given: {value!r}")


def checked_number(what: str, value: Any, least: float, most: float) -> float:
    """A number that a handler gives, as a float: integers, fractions, decimals and NumPy's numbers are taken.

    Args:
        what: its name, for the error.

    Raises:
        ValueError: it is no number, or not from `least` to `most`.

    Example:
        >>> checked_number("after", 5, 0, 60)
        5.0
    """
    try:
        if (
            isinstance(value, (Real, Decimal))
            and not isinstance(value, bool)
            and least <= float(value) <= most
        ):
            return float(value)
    except (ArithmeticError, ValueError):
        # A decimal that is no number at all.
        pass
    raise ValueError(f"{what} must be a number from {least:g} to {most:g}; given: {_shown(value)}")


def _shown(value: Any) -> str:
    try:
        return repr(value)[:100]
    except Exception as failure:  # noqa: BLE001 - a handler's class may do anything in __repr__
        return f"a {type(value).__name__} ({type(failure).__name__})"
