"""How much a key, or all keys of a tenant together, may do: numbers that its owner sets, each for itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

#: The largest of each, by name.
MOST = {
    "submit_per_minute": 10_000_000,
    "read_per_minute": 10_000_000,
    "max_waiters": 1_000,
    "max_payload_bytes": 16 * 1024**2,
}
#: The same of a tenant.
MOST_OF_TENANT = MOST | {"max_queued": 250_000}


class Quotas(NamedTuple):
    """What a key may use; None: as much as all others.

    Args:
        submit_per_minute: jobs that it submits within any minute; a batch counts as its jobs.
        read_per_minute: requests that change nothing, within any minute.
        max_waiters: requests of one API process that wait for a job at once.
        max_payload_bytes: the largest body, and the largest item of a batch.
        max_queued: jobs that wait; of a tenant alone.
    """

    submit_per_minute: int | None = None
    read_per_minute: int | None = None
    max_waiters: int | None = None
    max_payload_bytes: int | None = None
    max_queued: int | None = None


def quotas_of(found: Mapping[str, Any] | None) -> Quotas | None:
    """The quotas of a row; None where there are none. What this release does not know, or no number, is left out.

    Example:
        >>> quotas_of({"max_waiters": 3, "of_a_later_release": 1}).max_waiters, quotas_of({})
        (3, None)
    """
    known = {
        name: value for name, value in (found or {}).items() if name in Quotas._fields and type(value) is int
    }
    return Quotas(**known) if known else None


def given(quotas: Quotas | None) -> dict[str, int]:
    """The quotas that are set, by name.

    Example:
        >>> given(Quotas(max_waiters=3))
        {'max_waiters': 3}
    """
    return {name: value for name, value in (quotas or Quotas())._asdict().items() if value is not None}


def beyond(has: Quotas | None, wanted: Quotas | None) -> list[str]:
    """What a key that has these quotas cannot give, in words: more than it may use itself.

    Example:
        >>> beyond(Quotas(read_per_minute=60), Quotas(read_per_minute=61)), beyond(None, None)
        (['read_per_minute above 60'], [])
    """
    asked = given(wanted)
    return [f"{name} above {most:,}" for name, most in given(has).items() if asked.get(name, most + 1) > most]
