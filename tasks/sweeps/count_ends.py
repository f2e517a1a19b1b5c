"""The sweep that counts: what triggers have noted of members' ends is added to the counters of their batches.

Where there are no batches it is one look at an empty table. Any number of beats and workers may run it at once; one of them counts.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from uuid import UUID

from sqlalchemy import Connection

from tasks.runtime import Runtime, runtime
from tasks.sweeps.base import Each, is_of_the_server, sweep
from webapp.batches import course
from webapp.batches.course import Followed
from webapp.groups import store
from webapp.infra.postgres.engine import in_transaction
from webapp.settings import sweeps

logger = logging.getLogger(__name__)

PLAN = sweeps.COUNT_ENDS


@sweep(PLAN)
def count_ends() -> None:
    """Counts the ends of members since the last tick, and goes on with what was asked of batches."""
    parts = runtime()
    with Each("part") as each:
        each.do("count", lambda: run_count(parts))
        each.do("close", parts.keeper.close_late)
        each.do("cancel", parts.keeper.go_on_cancelling)
        each.do("retry", parts.keeper.go_on_retrying)


def run_count(parts: Runtime, batch: int = PLAN.batch) -> int:
    """Returns how many notes were counted.

    Args:
        batch: notes in one transaction.
    """
    total, end = 0, time.monotonic() + PLAN.seconds
    while True:
        try:
            counted = _count(parts, batch)
        except Exception as error:
            if is_of_the_server(error):
                raise
            counted = _count_one_by_one(parts, batch)
        total += counted
        if counted < batch or time.monotonic() > end:
            break
    if total:
        logger.info("ends of members were counted", extra={"ends": total})
    return total


def _count_one_by_one(parts: Runtime, batch: int) -> int:
    """The same where one of the batches raises: its notes stay, and the others are counted."""
    found = in_transaction(parts.engine, partial(store.noted, limit=batch))
    with Each("batch") as each:
        return sum(each.do(one, partial(_count, parts, batch, one)) or 0 for one in found)


def _count(parts: Runtime, limit: int, only: UUID | None = None) -> int:
    """Counts, and does what follows from it in the same transaction."""

    def once(connection: Connection) -> tuple[int, Followed]:
        if not store.may_count(connection):
            return 0, Followed()
        counted = store.count_ends(connection, limit, only)
        return counted.notes, parts.keeper.judged(connection, counted.groups)

    notes, followed = in_transaction(parts.engine, once)
    course.tell(followed)
    return notes
