"""The load tests there are: how long each runs, and how many jobs a second it submits."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

_DURATION = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>s|m|h)?")
_UNITS = {None: 1, "s": 1, "m": 60, "h": 3_600}
#: Shortest and longest run, seconds.
DURATIONS = (4, 7 * 24 * 3_600)
#: Most submissions a second; one k6 and its clients do not get further on one machine.
MAX_RATE = 10_000


@dataclass(frozen=True, slots=True)
class Profile:
    """One load test.

    Args:
        seconds: how long it submits.
        rate: submissions a second (at the peak).
        says: what it is for.
    """

    name: str
    seconds: int
    rate: int
    says: str


PROFILES = {
    one.name: one
    for one in (
        Profile("smoke", 15, 1, "does everything answer as it should?"),
        Profile("load", 60, 50, "an ordinary busy time"),
        Profile("spike", 60, 200, "ten times as many from one second to the next"),
        Profile("soak", 1_800, 20, "a steady stream, to find what grows"),
    )
}


def duration(given: str) -> int:
    """Reads `90`, `90s`, `15m` or `2h` as whole seconds.

    Raises:
        argparse.ArgumentTypeError: it is none of these, or out of bounds.

    Example:
        >>> duration("15m")
        900
    """
    found = _DURATION.fullmatch(given.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"must be a duration such as 90s, 15m or 2h (given: {given[:40]!r})")
    seconds = round(float(found["number"]) * _UNITS[found["unit"]])
    shortest, longest = DURATIONS
    if not shortest <= seconds <= longest:
        raise argparse.ArgumentTypeError(f"must be {shortest} to {longest} seconds (given: {given[:40]!r})")
    return seconds


def rate(given: str) -> int:
    """Reads submissions a second.

    Raises:
        argparse.ArgumentTypeError: it is no whole number from 1 to `MAX_RATE`.
    """
    if not given.isdecimal() or not 1 <= int(given) <= MAX_RATE:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 1 to {MAX_RATE} (given: {given[:40]!r})"
        )
    return int(given)
