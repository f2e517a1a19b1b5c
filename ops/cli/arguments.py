"""What arguments may be. Each function reads one, or says the rule and what was given."""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import urllib.parse
from collections.abc import Callable
from datetime import datetime

from ops.capacity.model import MOST_CHILDREN
from ops.logs.times import BadTime, moment
from ops.stack.venv import ROOT

#: Most lines of `logs --lines`.
MOST_LINES = 1_000_000
#: Most rounds of `bench --against`; each takes a minute and a half.
MOST_ROUNDS = 100
#: Longest pattern of `logs --grep`, characters.
LONGEST_PATTERN = 1_000
#: Longest git may take to look up a commit, seconds.
GIT_PATIENCE = 30.0


def lines(text: str) -> int:
    """A number of lines."""
    return _whole(text, 0, MOST_LINES)


def rounds(text: str) -> int:
    """A number of rounds."""
    return _whole(text, 1, MOST_ROUNDS)


def children(text: str) -> int:
    """A number of children of a pool."""
    return _whole(text, 1, MOST_CHILDREN)


def above(low: float, high: float, *, itself: bool = False) -> Callable[[str], float]:
    """What reads a number between two others.

    Args:
        itself: the lower one may be given, too.
    """

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (low < number < high or (itself and number == low)):
            words = f"from {low:.12g} to" if itself else f"above {low:.12g} and below"
            raise argparse.ArgumentTypeError(f"must be a number {words} {high:.12g} (given: {text[:40]!r})")
        return number

    return read


def url(text: str) -> str:
    """The URL of an API."""
    try:
        parts = urllib.parse.urlsplit(text)
        found = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        found = False
    if not found:
        raise argparse.ArgumentTypeError(
            f"must be the URL of an API, such as http://127.0.0.1:8000 (given: {text[:80]!r})"
        )
    return text


def commit(text: str) -> str:
    """A commit of this repository, as git names it."""
    known = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{text}^{{commit}}"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=GIT_PATIENCE,
    )
    if known.returncode != 0:
        raise argparse.ArgumentTypeError(f"must name a commit that git knows (given: {text[:80]!r})")
    return text


def _whole(text: str, least: int, most: int) -> int:
    # Longer than any bound, and not worth reading as a number.
    if not text.isdecimal() or len(text) > 9 or not least <= int(text) <= most:  # noqa: PLR2004 - see above
        raise argparse.ArgumentTypeError(
            f"must be a whole number from {least} to {most} (given: {text[:40]!r})"
        )
    return int(text)


def since(text: str) -> datetime:
    """A moment, as `--since` takes it."""
    try:
        return moment(text)
    except BadTime as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def pattern(text: str) -> re.Pattern[str]:
    """A regular expression."""
    if len(text) > LONGEST_PATTERN:
        raise argparse.ArgumentTypeError(f"must have {LONGEST_PATTERN} characters at most")
    try:
        return re.compile(text)
    except (re.error, OverflowError) as error:
        raise argparse.ArgumentTypeError(
            f"must be a regular expression (given: {text[:80]!r}: {error})"
        ) from None
