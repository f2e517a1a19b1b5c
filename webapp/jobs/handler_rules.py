"""What a handler may set for its jobs: each number and text is held to the bounds of a submission, when it is registered. Pure."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

from webapp.infra.broker.pace import LARGEST_CHUNK
from webapp.jobs.functions import check_function
from webapp.jobs.options import (
    HIGHEST_PRIORITY,
    LOWEST_PRIORITY,
    MAX_DELAY,
    MAX_RETRIES,
    MAX_TAG_LENGTH,
    MAX_TAGS,
    MAX_TIMEOUT,
    checked_backoff,
    checked_number,
)

if TYPE_CHECKING:
    from webapp.jobs.handlers import Handler


def check(new: Handler) -> None:
    """Holds a handler to the rules.

    Raises:
        ValueError: one is broken; the message names handler, rule and what was given.
    """
    check_function(new.name, new.run)
    try:
        _check_whole("max_retries", new.max_retries, 0, MAX_RETRIES)
        _check_whole("chunk", new.chunk, 1, LARGEST_CHUNK)
        _check_whole("priority", new.priority, LOWEST_PRIORITY, HIGHEST_PRIORITY)
        _check_seconds("timeout", new.timeout, MAX_TIMEOUT)
        _check_seconds("expires_in", new.expires_in, MAX_DELAY)
        _check_tags(new.tags)
        if new.backoff is not None:
            checked_backoff(new.backoff)
    except ValueError as error:
        raise ValueError(f"handler {new.name!r}: {error}") from None


def _check_whole(what: str, value: Any, least: int, most: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= value <= most:  # type: ignore[operator] # integers compare
        raise ValueError(f"{what} must be an integer from {least} to {most}; given: {value!r}")


def _check_seconds(what: str, value: Any, most: float) -> None:
    if value is not None and not checked_number(what, value, 0, most) > 0:
        raise ValueError(f"{what} must be above 0 s; given: {value!r}")


def _check_tags(tags: Any) -> None:
    rule = f"tags must be at most {MAX_TAGS} texts, printable, of 1 to {MAX_TAG_LENGTH} characters"
    for tag in tags:
        if (
            not isinstance(tag, str)
            or not 0 < len(tag) <= MAX_TAG_LENGTH
            or not tag.isprintable()
            or tag != tag.strip()
        ):
            raise ValueError(f"{rule}; given: {tag!r}")
    if len(tags) > MAX_TAGS:
        raise ValueError(f"{rule}; given: {len(tags)}")
