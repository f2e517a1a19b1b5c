"""Times in logs, and how `--since` says one."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
#: How far into a line its time begins, characters.
_BEGINNING = 80
#: Our own lines and Prometheus's: a moment in ISO 8601, under a name or at the beginning.
_ISO = re.compile(
    r'(?:^|"timestamp": ?"|time=)(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?)'
)
#: PostgreSQL's and supervisord's lines, and Valkey's; they write the machine's own time, where they do not say UTC.
_STAMPS = (
    (re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)[.,](\d{3})( UTC)?"), "%Y-%m-%d %H:%M:%S"),
    (re.compile(r"(\d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d)\.(\d{3})( UTC)?"), "%d %b %Y %H:%M:%S"),
)


class BadTime(ValueError):
    """A time cannot be read; the message says how one is written."""


def moment(text: str) -> datetime:
    """Reads `--since`: so long ago (30s, 10m, 2h, 1d), or a moment in ISO 8601 (UTC where it says no zone).

    Raises:
        BadTime: it is neither.

    Example:
        >>> moment("2026-11-24T10:00:00+01:00").isoformat()
        '2026-11-24T09:00:00+00:00'
    """
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return datetime.now(UTC) - timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
        return _aware(datetime.fromisoformat(text)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadTime(
            f"must be like 30s, 10m, 2h, 1d or 2026-11-24T10:00:00 in UTC (given: {text!r})"
        ) from None


def stamp(line: str) -> datetime | None:
    """When a line was written, where it says so: as JSON, or as the servers write."""
    beginning = line[:_BEGINNING]
    try:
        if (found := _ISO.search(beginning)) is not None:
            return _aware(datetime.fromisoformat(found[1]))
        for pattern, form in _STAMPS:
            if (found := pattern.search(beginning)) is not None:
                read = datetime.strptime(found[1], form) + timedelta(milliseconds=int(found[2]))  # noqa: DTZ007 - the zone is set below
                return read.replace(tzinfo=UTC) if found[3] else read.astimezone(UTC)
    except ValueError:
        # It looks like a time, and names none: a 31st of June.
        return None
    return None


def _aware(found: datetime) -> datetime:
    return found if found.tzinfo else found.replace(tzinfo=UTC)
