"""When a schedule is due: before and after a moment, within its first and last day. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile

from webapp.schedules import cron
from webapp.schedules.model import Timing

#: From where `every` counts that has no beginning.
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: The least that two moments differ by.
INSTANT = timedelta(microseconds=1)


def next_after(timing: Timing, moment: datetime) -> datetime | None:
    """The first time after a moment, in UTC; None: there is none.

    Example:
        >>> next_after(Timing(every=60), EPOCH + timedelta(seconds=61)).isoformat()
        '1970-01-01T00:02:00+00:00'
    """
    if timing.start_at is not None:
        moment = max(moment, timing.start_at - INSTANT)
    if timing.every is not None:
        found: datetime | None = _next_of_every(timing, timing.every, moment)
    else:
        found = cron.next_after(timing.cron or "", timing.zone, moment)
    if found is None or (timing.end_at is not None and found > timing.end_at):
        return None
    return found


def _next_of_every(timing: Timing, every: int, moment: datetime) -> datetime:
    base = timing.start_at or EPOCH
    step = timedelta(seconds=every)
    return base + ((moment - base) // step + 1) * step


def backwards(timing: Timing, moment: datetime) -> Iterator[datetime]:
    """The times until a moment, which may be one of them, the newest first.

    Example:
        >>> times = backwards(Timing(every=60), EPOCH + timedelta(seconds=61))
        >>> [one.isoformat() for one in times]
        ['1970-01-01T00:01:00+00:00', '1970-01-01T00:00:00+00:00']
    """
    if timing.end_at is not None:
        moment = min(moment, timing.end_at)
    first = timing.start_at or EPOCH
    if timing.every is not None:
        found = _every_backwards(timing, timing.every, moment)
    else:
        found = cron.backwards(timing.cron or "", timing.zone, moment)
    return takewhile(lambda at: at >= first, found)


def _every_backwards(timing: Timing, every: int, moment: datetime) -> Iterator[datetime]:
    step = timedelta(seconds=every)
    at = _next_of_every(timing, every, moment) - step
    while True:
        yield at
        at -= step


def upcoming(timing: Timing, after: datetime, count: int) -> list[datetime]:
    """The next so many times after a moment."""

    def each() -> Iterator[datetime]:
        at = next_after(timing, after)
        while at is not None:
            yield at
            at = next_after(timing, at)

    return list(islice(each(), count))


def between(timing: Timing, first: datetime, last: datetime) -> Iterator[datetime]:
    """The times from a moment to another, both of which may be one, the oldest first."""
    at = next_after(timing, first - INSTANT)
    while at is not None and at <= last:
        yield at
        at = next_after(timing, at)


def words(timing: Timing) -> str:
    """What it says, in a sentence.

    Example:
        >>> words(Timing(every=3600)), words(Timing(cron="0 6 * * 1-5", zone="Europe/Berlin"))
        ('Every 3600 seconds', 'At 06:00 on Monday through Friday, Europe/Berlin')
    """
    if timing.every is not None:
        return f"Every {timing.every} second{'s' if timing.every != 1 else ''}"
    return f"{cron.words(timing.cron or '')}, {timing.zone}"
