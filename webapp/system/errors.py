"""Why something about the installation cannot be told."""

from __future__ import annotations


class NotTold(Exception):
    """Something about the installation that cannot be told."""


class UnknownWorker(NotTold):
    """No worker of this name was seen lately.

    Args:
        name: what was asked for.

    Example:
        >>> str(UnknownWorker("vm:1:0"))
        "no worker of this name was seen within the last hour (given: 'vm:1:0')"
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"no worker of this name was seen within the last hour (given: {name[:100]!r})")


class RedisAway(NotTold):
    """Redis alone knows what was asked, and is not answering.

    Args:
        error: what its client says.

    Example:
        >>> RedisAway(ConnectionError("refused")).error_type
        'ConnectionError'
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(
            "Redis is not answering, and what is asked is known there alone; send the request again"
        )
        #: The class of what its client says, for the log.
        self.error_type = type(error).__name__


class RangeRefused(NotTold):
    """A range of time that cannot be told of.

    Args:
        field: of the query.
        rule: that it breaks.
        given: what it says.
    """

    def __init__(self, field: str, rule: str, given: str) -> None:
        super().__init__(f"{field} {rule}; given: {given}")
        self.field, self.rule, self.given = field, rule, given
