"""What arguments may be. Each function reads one, or says the rule and what was given."""

from __future__ import annotations

import argparse
import re
from datetime import datetime

from ops.logs.times import BadTime, moment

#: Most lines of `logs --lines`.
MOST_LINES = 1_000_000
#: Most rounds of `bench --against`; each takes a minute and a half.
MOST_ROUNDS = 100
#: Longest pattern of `logs --grep`, characters.
LONGEST_PATTERN = 1_000


def lines(text: str) -> int:
    """A number of lines."""
    return _whole(text, 0, MOST_LINES)


def rounds(text: str) -> int:
    """A number of rounds."""
    return _whole(text, 1, MOST_ROUNDS)


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
