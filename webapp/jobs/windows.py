"""Windows of time in which a search goes through history, from the newest job on. Pure.

A statement about all of history has PostgreSQL plan each of its days. One that only looks for ids of a window need not look at
the days before it: an id begins with the time at which it was made, and a job ends after that. So a search begins with the last
days, and takes in more of them only when it has seen all that is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from webapp.jobs import retention
from webapp.jobs.filters import first_id

#: The first window...
FIRST = timedelta(days=2)
#: ...and how many times as far back as the one before each other goes.
GROWTH = 8
#: Beyond this there is one more, which has no end.
LONGEST = timedelta(days=100)


@dataclass(frozen=True, slots=True)
class Window:
    """Ids that a statement looks at.

    Args:
        from_id: the smallest of them; None: it goes back to the first job.
        ended_from: before this none of their jobs had ended.
    """

    from_id: UUID | None
    ended_from: datetime


#: All jobs there are.
ALL = Window(None, retention.BEGINNING)


def before(newest: UUID | None, width: timedelta, oldest: UUID | None = None) -> Window:
    """The window that ends with an id.

    Args:
        newest: what is older than this one is looked at; None: all that is younger, too.
        width: how far it goes back.
        oldest: nothing older than this one is wanted; None: everything is.

    Example:
        >>> before(None, LONGEST * 2) == ALL
        True
    """
    until = datetime.now(UTC) if newest is None else retention.made_at(newest)
    too_long = width > LONGEST or until - retention.BEGINNING <= width
    from_id = None if too_long else first_id(until - width)
    if oldest is not None and (from_id is None or from_id <= oldest):
        return Window(None, retention.may_end_from(oldest))
    return ALL if from_id is None else Window(from_id, retention.may_end_from(from_id))
