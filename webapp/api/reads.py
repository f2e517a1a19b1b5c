"""Where lists are read: from the read replica, where one is set and its view is young enough, else from the primary.

Only lists, totals and searches come here. What is decided on, waited for or looked up by its id is read from the primary.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flask import Flask, Response, current_app, g

from webapp.infra.postgres.replica import Answer, ReadReplica
from webapp.infra.postgres.staleness import Reason
from webapp.infra.telemetry import metrics
from webapp.jobs.retention import made_at

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from webapp.infra.postgres.engine import Read
    from webapp.settings import Settings

#: Says how old an answer may be.
HEADER = "DJPS-Staleness"
#: The header, for the description of the API.
STALENESS: dict[str, dict[str, Any]] = {
    HEADER: {
        "schema": {"type": "number", "minimum": 0},
        "description": "Only where a read replica answered: how many seconds old its view was at most. Absent: the primary answered.",
    }
}
#: A job is committed this long after its id was made at the latest, as far as the clocks of API hosts agree, seconds. A batch
#: may take twenty.
LATEST_COMMIT = 60.0


def init_app(app: Flask, settings: Settings, engine: Engine) -> None:
    """Gives the application its replica; without one, nothing is done for a request."""
    app.extensions["replica"] = None
    if not settings.database_read_url:
        return
    metrics.know_replica(reason.value for reason in Reason)
    app.extensions["replica"] = ReadReplica(
        settings.database_read_url, engine, bound=settings.read_staleness, tell=_note
    )
    app.after_request(_say)


def reader(*, cursor: UUID | None = None, goes_on: bool = False) -> Read | None:
    """What reads a list; None: the primary, for there is no replica.

    Args:
        cursor: the list begins with what is older than this job.
        goes_on: it begins where another one ended, in a way that does not tell when that was.
    """
    replica: ReadReplica | None = current_app.extensions["replica"]
    if replica is None:
        return None
    return replica.up_to(oldest_view(time.time(), cursor=cursor, goes_on=goes_on))


def oldest_view(now: float, *, cursor: UUID | None, goes_on: bool) -> float:
    """How old a view may be that a list is read from, for the list's own sake, seconds. Pure.

    A page that the primary gave may end with a job that the replica does not have yet. The next page, from the replica, would
    leave out what else it does not have: so its view must be from when all that is older than the cursor was committed.
    Where pages are counted from the newest on, an older view passes over as many as it is short of.

    Args:
        now: seconds since 1970.

    Returns:
        Any age where the list begins with the newest; below zero where no view of a replica will do.

    Example:
        >>> oldest_view(0.0, cursor=None, goes_on=False), oldest_view(0.0, cursor=None, goes_on=True)
        (inf, -inf)
    """
    if goes_on:
        return -math.inf
    if cursor is None:
        return math.inf
    return now - made_at(cursor).timestamp() - LATEST_COMMIT


def shown(age: float) -> str:
    """An age in the header's form, rounded up to the millisecond: it is a bound.

    Example:
        >>> shown(0.0), shown(1.23401)
        ('0.000', '1.235')
    """
    return f"{math.ceil(age * 1_000) / 1_000:.3f}"


def _note(answer: Answer) -> None:
    """Counts who answered, and keeps it for the header."""
    if answer.age is None:
        metrics.list_reads.labels("primary", answer.reason).inc()
        return
    metrics.list_reads.labels("replica", "").inc()
    g.staleness = answer.age


def _say(response: Response) -> Response:
    age: float | None = g.pop("staleness", None)
    if age is not None:
        response.headers[HEADER] = shown(age)
    return response
