"""What an answer means for the job that called: done, again, or never. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

#: Longest wait that an answer may ask for, seconds.
MAX_RETRY_AFTER = 3_600.0

#: A status code, or a class of them such as `2xx`.
Status = int | str
_ASK_TO_WAIT = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is what was hoped for."""


@dataclass(frozen=True, slots=True)
class Again:
    """Call again, `after` seconds from now; by the job's backoff when None."""

    after: float | None = None


@dataclass(frozen=True, slots=True)
class Never:
    """Another call would be answered the same."""


Verdict = Done | Again | Never


def is_among(status: int, wanted: Sequence[Status]) -> bool:
    """True if a status is one of these codes and classes.

    Example:
        >>> is_among(204, ["2xx"]), is_among(204, [200, 201])
        (True, False)
    """
    return any(status == one or one == f"{status // 100}xx" for one in wanted)


def judge(
    status: int,
    headers: Mapping[str, str],
    *,
    expect: Sequence[Status],
    retry_on: Sequence[Status],
    now: datetime,
) -> Verdict:
    """Decides what follows an answer.

    Args:
        headers: of the answer; `Retry-After` counts on 429 and 503, and on what `retry_on` names.
        expect: what completes the job.
        retry_on: what is tried again beside 429 and 5xx.
        now: the caller's clock, for a `Retry-After` that is a date and an answer without `Date`.
    """
    if is_among(status, expect):
        return Done()
    named = is_among(status, retry_on)
    if status in _ASK_TO_WAIT or named:
        return Again(retry_after(headers, now))
    return Again() if is_among(status, ["5xx"]) else Never()


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that `Retry-After` asks for, from 0 to `MAX_RETRY_AFTER`; None when it says nothing readable.

    A date is measured against the answer's own `Date`, so a wrong clock here changes nothing.
    """
    given = headers.get("retry-after", "").strip()
    if given.isascii() and given.isdigit():
        # Longer numbers than this are capped anyway, and cost time to read.
        return min(float(given[:10]), MAX_RETRY_AFTER)
    until = _moment(given)
    if until is None:
        return None
    seconds = (until - (_moment(headers.get("date", "")) or now)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _moment(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
