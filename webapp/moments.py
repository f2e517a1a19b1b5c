"""Moments as clients and receivers see them."""

from __future__ import annotations

from datetime import UTC, datetime


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC, with a Z.

    Example:
        >>> iso(datetime(2030, 1, 1, tzinfo=UTC))
        '2030-01-01T00:00:00Z'
    """
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
