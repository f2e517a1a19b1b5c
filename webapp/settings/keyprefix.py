"""What may stand before the keys of an installation in Redis. Pure."""

from __future__ import annotations

import re

_PREFIX = re.compile(r"(?=.{0,51}\Z)(?:[A-Za-z0-9_.-]+:)*")
#: Parts that begin keys of an installation without a prefix.
TAKEN = frozenset({"djps", "LIMITS", "_kombu"})


def checked(prefix: str) -> str:
    """The prefix, when it is one.

    No queue's name has a colon, so no key of one installation begins with another's prefix by chance.

    Raises:
        ValueError: it breaks the rule; the message says which.

    Example:
        >>> checked("shop:"), checked("")
        ('shop:', '')
    """
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(
            "must be empty, or up to 50 letters, digits and any of _.- with a colon at the end, such as shop:"
        )
    if TAKEN & set(prefix.split(":")):
        raise ValueError(f"must not have {' or '.join(sorted(TAKEN))} as a part")
    return prefix
