"""Time zones by their IANA names, from the package `tzdata` alone: every process on every host goes by the same rules. Pure.

The host's own files are not looked at, so a preview in the API is what a maintenance worker fires.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib import metadata, resources
from zoneinfo import ZoneInfo

#: The zone where none is named.
UTC_NAME = "UTC"
#: Longest name of a zone, characters.
LONGEST_NAME = 60
_PACKAGE = "tzdata"


@cache
def names() -> frozenset[str]:
    """All names that are taken: `Europe/Berlin` and its like, and `UTC`.

    Abbreviations such as CET or EST5EDT are left out: they say nothing of where, and mean another time in summer.
    """
    listed = resources.files(_PACKAGE).joinpath("zones").read_text().split()
    return frozenset({UTC_NAME, *(name for name in listed if "/" in name)})


@cache
def zone_of(name: str) -> ZoneInfo:
    """The zone of a name.

    Raises:
        ValueError: there is none; the message is the rule that was broken.

    Example:
        >>> zone_of("Europe/Berlin").key
        'Europe/Berlin'
    """
    if name not in names():
        raise ValueError(f"must be an IANA name such as Europe/Berlin, or UTC{_meant(name)}")
    folder, _, file = f"zoneinfo/{name}".rpartition("/")
    with resources.files(_PACKAGE).joinpath(folder, file).open("rb") as opened:
        return ZoneInfo.from_file(opened, key=name)


def _meant(name: str) -> str:
    """A hint at the name that was probably meant."""
    by_lower = {one.lower(): one for one in names()}
    wanted = name[:LONGEST_NAME].lower().replace(" ", "_")
    cities = {one.rpartition("/")[2].lower(): one for one in sorted(names(), reverse=True)}
    if wanted in cities:
        return f"; did you mean {cities[wanted]!r}?"
    close = get_close_matches(wanted, by_lower, n=1, cutoff=0.7)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""


@cache
def rules_version() -> str:
    """The version of the rules of all zones, such as 2026.6."""
    return metadata.version(_PACKAGE)
