"""Gives back what this process claimed and has not begun: because other jobs take too long, or because it was paused meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence

from tasks.attempt import claims
from tasks.presence import lost_jobs
from tasks.retrying import DATABASE_ERRORS, until_database_answers
from tasks.runtime import Runtime
from webapp.infra import prefork
from webapp.infra.postgres.engine import in_one_trip
from webapp.jobs import ends
from webapp.jobs.model import Claim

logger = logging.getLogger(__name__)

#: After this long giving back is tried again where the database was away for most of a lease, seconds.
AGAIN_AFTER = 0.5


def may_begin(parts: Runtime, kinds: Iterable[tuple[str, str]]) -> bool:
    """True if jobs that were claimed may begin, by rules that are young enough: each begins right after this was asked.

    False also where the rules cannot be read: then it is not known, and what has not begun loses nothing by waiting.

    Args:
        kinds: their queues and tasks.
    """
    try:
        return not parts.book.rules().close_any(kinds)
    except DATABASE_ERRORS:
        return False


@prefork.held_off()
def give_back(parts: Runtime, rest: Sequence[Claim]) -> None:
    """Gives back what has not begun, and goes on trying to while this process lives; no retry is used up.

    Else the jobs would wait until their leases run out, and one that was alone would be taken for lost, which uses up a
    retry. Once another process has taken them over, nothing is left to give back. Should this one end, its parent does it.
    """
    # Whatever comes of it: the thread that runs jobs must not take them for jobs it has just claimed.
    claims.give_up(rest)
    try:
        released = until_database_answers(
            lambda: in_one_trip(
                parts.engine,
                lambda connection: ends.end_attempts(connection, [ends.released(claim) for claim in rest]),
            ),
            parts.settings.stuck_job_threshold,
            "jobs that had not begun could not be handed back yet",
        )
    except DATABASE_ERRORS as error:
        logger.error(  # noqa: TRY400 - the error's text may quote a payload
            "jobs that had not begun could not be handed back, it will be tried again",
            extra={"jobs": len(rest), "error_type": type(error).__name__},
        )
        again = threading.Timer(AGAIN_AFTER, give_back, [parts, rest])
        again.daemon = True
        again.start()
        return
    lost_jobs.count_released(released)
    logger.info("jobs that had not begun were handed back", extra={"jobs": len(released)})
