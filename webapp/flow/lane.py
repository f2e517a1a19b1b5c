"""Lanes: where jobs of one queue and key wait. A lane's number comes of their names, so a submission asks no table for it. Pure."""

from __future__ import annotations

from hashlib import sha256

#: Between queue and key in what is hashed; a queue's name has no such character.
_BETWEEN = b"\x1f"


def lane_of(queue: str, key: str | None) -> int:
    """The number of a lane, as a `bigint`; `djps_lane` of the database gives the same. Two that meet, one pair in 2**64, share their limits and exceed none.

    Args:
        key: None for jobs without one: they are a lane of their own.

    Example:
        >>> lane_of("mail", "acme") == lane_of("mail", "acme") != lane_of("mail", None)
        True
    """
    digest = sha256(queue.encode() + _BETWEEN + (key or "").encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
