"""Tries work with the database again while the database is away, for most of a lease."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from webapp.infra import prefork
from webapp.infra.background import Clock
from webapp.infra.postgres.database_errors import never_works

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Pause between two tries, seconds.
PAUSE = 0.5
#: Share of the lease during which it is tried; then the sweeper owns the job.
SHARE = 0.75

#: What the database's absence raises, ...
DATABASE_ERRORS = (DBAPIError, PoolTimeout)
#: ... and a time limit: messages of an earlier release carry one that strikes this late.
_TRIED_AGAIN = (*DATABASE_ERRORS, SoftTimeLimitExceeded)


def tries_until(
    deadline: float,
    pause: float,
    *,
    clock: Clock = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[int]:
    """Yields a number for each try, with a pause in between; ends when the deadline has passed, after one try at least.

    Args:
        deadline: on the clock.
        pause: seconds.

    Example:
        >>> list(tries_until(time.monotonic() - 1, pause=60))
        [1]
    """
    number = 1
    yield number
    while clock() <= deadline:
        sleep(pause)
        number += 1
        yield number


def _rest(seconds: float) -> None:
    with prefork.let_through():
        time.sleep(seconds)


def until_database_answers(work: Callable[[], T], lease: float, said: str) -> T:
    """Does the work until it comes through, or three quarters of a lease have passed; returns what it returns.

    The work must be safe to do twice: a commit may have come through although its answer did not.

    Args:
        lease: seconds.
        said: the log line when a try failed.

    Raises:
        DBAPIError, TimeoutError: the last try's; the first one's where trying again is no use.

    Example:
        >>> until_database_answers(lambda: 17, lease=60, said="number could not be read yet")
        17
    """
    failure: Exception | None = None
    for _ in tries_until(time.monotonic() + lease * SHARE, PAUSE, sleep=_rest):
        try:
            return work()
        except _TRIED_AGAIN as error:
            if never_works(error):
                raise
            logger.warning(said, extra={"error_type": type(error).__name__})
            failure = error
    assert failure is not None  # noqa: S101 - for the type checker: there was a try at least
    raise failure
