"""Runs the statements of `sql/dead_letters.sql`: find dead letters, group them, requeue and discard what matches.

Functions take a connection and never commit.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, TextClause, text

from webapp.dead_letters.model import DeadLetter, DeadLetterFilter, Group, Resolved, ResolveRequest
from webapp.infra.postgres.sql_files import read_sql
from webapp.jobs import pages
from webapp.jobs.store import JobRow


def _statement(name: str) -> TextClause:
    return text(read_sql(__file__, "dead_letters", name))


_PAGE, _COUNT, _JOBS, _GROUPS = (_statement(name) for name in ("page", "count", "jobs", "groups"))
_REQUEUE, _DISCARD = _statement("requeue"), _statement("discard")


def page(
    connection: Connection, wanted: DeadLetterFilter, *, limit: int, before: int | None
) -> list[DeadLetter]:
    """Dead letters from the newest on.

    Args:
        before: only those with a smaller number.
    """
    given = wanted.values() | {"limit": limit, "before": before}
    return [DeadLetter(*row) for row in connection.execute(_PAGE, given)]


def count(connection: Connection, wanted: DeadLetterFilter) -> int:
    """How many dead letters match."""
    return int(connection.execute(_COUNT, wanted.values()).scalar_one())


def jobs(
    connection: Connection,
    wanted: DeadLetterFilter,
    *,
    limit: int,
    offset: int,
    large: Collection[str] = pages.LARGE,
) -> tuple[list[JobRow], bool]:
    """The jobs of open dead letters, the newest first, as many as fit into a page; and whether there may be more.

    Args:
        large: fields that may be large and are wanted.
    """
    given = wanted.values() | {"limit": limit, "offset": offset}
    ids = list(connection.execute(_JOBS, given).scalars())
    found, all_fit = pages.fetch(connection, ids, large)
    return found, not all_fit or len(ids) == limit


def groups(connection: Connection, wanted: DeadLetterFilter, *, limit: int) -> list[Group]:
    """Dead letters by task, queue, error class and fingerprint, the largest group first."""
    return [Group(*row) for row in connection.execute(_GROUPS, wanted.values() | {"limit": limit})]


def requeue(
    connection: Connection, request: ResolveRequest, *, limit: int, first: datetime | None
) -> Resolved:
    """Queues the jobs of the oldest open dead letters that match again, each with a fresh budget of retries.

    Args:
        limit: most dead letters.
        first: when the first job is due; None: now.
    """
    given = request.wanted.values() | {"limit": limit, "gap": request.gap, "first": first}
    given |= {"by": request.by, "why": request.why}
    return Resolved(*connection.execute(_REQUEUE, given).one())


def discard(connection: Connection, request: ResolveRequest, *, limit: int) -> Resolved:
    """Puts the oldest open dead letters that match aside: their jobs stay failed, and leave the dead letter queue."""
    given = request.wanted.values() | {"limit": limit, "by": request.by, "why": request.why}
    return Resolved(connection.execute(_DISCARD, given).rowcount)
