"""Work with the database that is done again and again while the database is away, for most of a lease."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

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
_SWALLOWED = (*DATABASE_ERRORS, SoftTimeLimitExceeded)


def insist(work: Callable[[], T], lease: float, said: str) -> T:
    """Does the work until it comes through, or three quarters of a lease have passed; returns what it returns.

    The work must be safe to do twice: a commit may have come through although its answer did not.

    Args:
        lease: seconds.
        said: the log line when a try failed.

    Raises:
        DBAPIError, TimeoutError: the last try's; the first one's where trying again is no use.

    Example:
        >>> insist(lambda: 17, lease=60, said="number could not be read yet")
        17
    """
    deadline = time.monotonic() + lease * SHARE
    while True:
        try:
            return work()
        except _SWALLOWED as error:
            if never_works(error) or time.monotonic() > deadline:
                raise
            logger.warning(said, extra={"error_type": type(error).__name__})
        time.sleep(PAUSE)
