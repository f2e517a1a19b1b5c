"""Cron expressions: what they name, before and after a moment, in words. A wrapper around the package `cronsim`. Pure.

The rules of changes of the clock are those of Debian's cron. An expression of a fixed minute and hour comes once on each local day: in
a gap at the first moment after it, in an hour that comes twice at the first of the two. One whose minute or hour begins with `*` goes
by elapsed time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from webapp.schedules.zones import zone_of

#: Longest expression, characters.
LONGEST = 100
#: Fields of an expression: minute, hour, day of the month, month, day of the week.
FIELDS = 5
#: What stands for whole expressions.
ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
#: Longest that a change of the clock may be, so far around a moment its neighbours are looked for.
LARGEST_CHANGE = timedelta(hours=3)
_NONE, _SECOND, _MINUTE = timedelta(0), timedelta(seconds=1), timedelta(minutes=1)
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


def plain(expression: str) -> str:
    """An expression without aliases and needless spaces.

    Example:
        >>> plain("@daily"), plain(" */5  * * * mon ")
        ('0 0 * * *', '*/5 * * * mon')
    """
    words = " ".join(expression.split())
    return ALIASES.get(words.lower(), words)


def check(expression: str) -> None:
    """Judges an expression.

    Raises:
        ValueError: it is none, or names no day that comes; the message is the rule that was broken.

    Example:
        >>> check("0 9 * * 1-5")
        >>> check("0 0 31 2 *")
        Traceback (most recent call last):
        ...
        ValueError: must name a day that comes: its day of the month is not one of its months
    """
    if len(expression) > LONGEST:
        raise ValueError(f"must have at most {LONGEST} characters")
    if len(plain(expression).split()) != FIELDS:
        raise ValueError(
            "must have five fields (minute, hour, day of the month, month, day of the week), or be one of "
            + ", ".join(ALIASES)
        )
    try:
        comes = next(CronSim(plain(expression), datetime(2024, 1, 1, tzinfo=UTC)), None)
    except (CronSimError, ValueError, OverflowError) as error:
        raise ValueError(_rule(plain(expression), str(error))) from None
    if comes is None:
        raise ValueError("must name a day that comes: within fifty years there is none")


def _rule(expression: str, said: str) -> str:
    """The words of cronsim as a rule that names the field."""
    field = said.removeprefix("Bad ").replace("-", " ")
    if field == "day of month" and _has_days(expression):
        return "must name a day that comes: its day of the month is not one of its months"
    named = {"day of month": "a day of the month", "day of week": "a day of the week", "hour": "an hour"}
    return f"must have {named.get(field, f'a {field}')} that there is"


def _has_days(expression: str) -> bool:
    """True if each part of the day of the month is one by itself."""
    minute, hour, day, _, _ = expression.split()
    try:
        CronSim(f"{minute} {hour} {day} * *", datetime(2024, 1, 1, tzinfo=UTC))
    except CronSimError:
        return False
    return True


def words(expression: str) -> str:
    """What an expression says.

    Example:
        >>> words("30 2 L * *")
        'At 02:30 on the last day of every month'
    """
    return CronSim(plain(expression), datetime(2024, 1, 1, tzinfo=UTC)).explain()


@lru_cache(maxsize=20_000)
def next_after(expression: str, zone: str, moment: datetime) -> datetime | None:
    """The first time after a moment, in UTC; None where there is none in fifty years.

    Example:
        >>> next_after("30 2 * * *", "Europe/Berlin", datetime(2026, 3, 28, 12, tzinfo=UTC)).isoformat()
        '2026-03-29T01:00:00+00:00'
    """
    found = _next(expression, zone, moment)
    if found is None:
        return None
    before = moment - _HOUR
    offsets = [one.astimezone(zone_of(zone)).utcoffset() or _NONE for one in (before, found)]
    if (offsets[1] - offsets[0]) % _HOUR == _NONE:
        return found
    # Over a change of half an hour the library, which goes by whole hours, may pass a time by.
    start = max(_change(zone_of(zone), before, found), moment.replace(second=0, microsecond=0) + _MINUTE)
    return _passed_by(expression, zone, start, found)


def _passed_by(expression: str, zone: str, start: datetime, found: datetime) -> datetime:
    """The first time from a minute on, looked for minute by minute for a day; else the one that was found."""
    if not _goes_by_elapsed_time(expression):
        return found
    fields = CronSim(plain(expression), start)
    at = start
    while at < min(found, start + _DAY):
        local = at.astimezone(zone_of(zone))
        if local.minute in fields.minutes and local.hour in fields.hours and _has_day(fields, local):
            return at
        at += _MINUTE
    return found


def _has_day(fields: CronSim, local: datetime) -> bool:
    return local.month in fields.months and fields.match_day(local.date())


def _goes_by_elapsed_time(expression: str) -> bool:
    """True if its minute or hour begins with a star."""
    minute, hour, *_ = plain(expression).split()
    return minute.startswith("*") or hour.startswith("*")


def _next(expression: str, zone: str, moment: datetime) -> datetime | None:
    for found in CronSim(plain(expression), moment.astimezone(zone_of(zone))):
        # In an hour that comes twice, what is named by its first half is behind a moment of its second.
        if (at := found.astimezone(UTC)) > moment:
            return at
    return None


def _change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """When the clock was changed between two moments, to the second."""
    offset = after.astimezone(zone).utcoffset()
    while after - before > _SECOND:
        middle = before + ((after - before) / 2)
        if middle.astimezone(zone).utcoffset() == offset:
            after = middle
        else:
            before = middle
    return after.replace(microsecond=0)


def backwards(expression: str, zone: str, moment: datetime) -> Iterator[datetime]:
    """The times until a moment, which may be one of them, the newest first, in UTC.

    Example:
        >>> first = next(backwards("0 9 * * *", "UTC", datetime(2026, 1, 2, 9, tzinfo=UTC)))
        >>> first.isoformat()
        '2026-01-02T09:00:00+00:00'
    """
    last: datetime | None = None
    zone_info = zone_of(zone)
    start = (moment.replace(microsecond=0) + _SECOND).astimezone(zone_info)
    if not _goes_by_elapsed_time(expression) and _changes_near(start):
        # By the clock on the wall, what comes later may be named earlier.
        start += LARGEST_CHANGE
    for found in CronSim(plain(expression), start, reverse=True):
        at = found.astimezone(UTC)
        if at > moment or (last is not None and at >= last):
            continue
        newest = moment if last is None else last
        if at.astimezone(zone_info).utcoffset() != newest.astimezone(zone_info).utcoffset():
            # Over a change of half an hour the library goes back too far; forwards it does not.
            yield from reversed(list(_between(expression, zone, at, newest, with_end=last is None)))
        yield at
        last = at


def _between(
    expression: str, zone: str, after: datetime, until: datetime, *, with_end: bool
) -> Iterator[datetime]:
    """The times after a moment and before another."""
    at = next_after(expression, zone, after)
    while at is not None and (at < until or (with_end and at == until)):
        yield at
        at = next_after(expression, zone, at)


def _changes_near(local: datetime) -> bool:
    """True if the clock is changed within some hours of a moment."""
    offsets = {
        (local.astimezone(UTC) + away).astimezone(local.tzinfo).utcoffset()
        for away in (-LARGEST_CHANGE, timedelta(0), LARGEST_CHANGE)
    }
    return len(offsets) > 1
