"""Runs the statements about looks at queues that take submissions up to a bound.

Functions take a connection and never commit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, TextClause, text

from webapp.flow.admission import (
    CLEARS_AT,
    NO_BOUNDS,
    Age,
    Bounds,
    Ends,
    Look,
    counted_up_to,
    drain_of,
    next_age,
    seconds_until,
    windows,
)
from webapp.infra.postgres.engine import Statement
from webapp.infra.postgres.literals import array_of, text_array_of
from webapp.infra.postgres.sql_files import read_sql

#: Longest that a look takes, milliseconds, and longest that a submission waits for that of another process: both are parts of its time.
LONGEST_LOOK_MS = 350
LOCK_TIMEOUT_MS = 150
#: Most due jobs that are looked at.
MOST_DUE = 20_000
#: Most ended jobs of a queue that are looked at.
MOST_ENDS = 10_000
#: The same of a key, and its queued jobs beyond its bound that are counted.
MOST_OF_KEY = 2_000
#: From this part of its depth on it is looked how quickly a queue drains.
NEARLY_FULL = 0.5

(_SETTINGS, _TIMEOUT, _KNOWN, _MAKE, _LOCK, _WAIT, _DEPTH, _OLDEST, _ENDS, _SURPLUS, _NOTE, _KEY_SURPLUS, _KEY_ENDS, _FORGET) = (
    text(read_sql(__file__, "looks", name))
    for name in (
        "settings",
        "timeout",
        "known",
        "make",
        "lock",
        "wait",
        "depth",
        "oldest",
        "ends",
        "surplus",
        "note",
        "key_surplus",
        "key_ends",
        "forget",
    )
)  # fmt: skip
#: Each submission with a key asks for it.
_KEY_DEPTHS = Statement(read_sql(__file__, "looks", "key_depths"))


class Known(NamedTuple):
    """What PostgreSQL knows of a queue.

    Args:
        bounds: up to where it takes submissions.
        paused: nothing of it starts.
        look: the last one; None where there was none.
        now: PostgreSQL's clock, seconds of the epoch.
    """

    bounds: Bounds
    paused: bool
    look: Look | None
    now: float


def known(connection: Connection, queue: str) -> Known:
    """A queue's bounds, and the last look at it."""
    row = connection.execute(_KNOWN, {"queue": queue}).first()
    if row is None:
        return Known(NO_BOUNDS, paused=False, look=None, now=0.0)
    at, took, depth, oldest, old_since, too_old, full_since, drain, surplus = row[5:]
    age = Age(old_since, bool(too_old))
    look = Look(at, took, depth, oldest, age, full_since, drain, surplus) if at else None
    return Known(Bounds(*row[0:3]), row[3], look, row[4])


def set_bounds(connection: Connection) -> None:
    """Bounds the statements of this transaction; the functions below are for a transaction that has begun with this."""
    connection.execute(
        _SETTINGS, {"statement_timeout": str(LONGEST_LOOK_MS), "lock_timeout": str(LOCK_TIMEOUT_MS)}
    )


class _Timed:
    """Runs the statements of a look, which have a time together.

    Args:
        connection: in a transaction whose statements are bounded.
        queue: that is looked at.
    """

    def __init__(self, connection: Connection, queue: str) -> None:
        self._connection = connection
        self._queue = queue
        self._began = time.monotonic()

    def took(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._began

    def row(self, statement: TextClause, **values: Any) -> tuple[Any, ...]:
        """The one row of a statement.

        Raises:
            DBAPIError: the time is over.
        """
        left = max(1, LONGEST_LOOK_MS - int(self.took() * 1_000))
        self._connection.execute(_TIMEOUT, {"statement_timeout": str(left)})
        return tuple(self._connection.execute(statement, {"queue": self._queue} | values).one())


def lock(connection: Connection, queue: str, *, wait: bool) -> bool:
    """Has no one else look at a queue until the transaction ends; False where another one does.

    Args:
        wait: for the other one.
    """
    if connection.execute(_LOCK, {"queue": queue}).first() is not None:
        return True
    connection.execute(_MAKE, {"queue": queue})
    return connection.execute(_WAIT if wait else _LOCK, {"queue": queue}).first() is not None


def look_anew(connection: Connection, queue: str, before: Known) -> Look:
    """Looks at a queue that was locked, and notes what is found.

    Args:
        before: what was known of it once it was locked.
    """
    timed = _Timed(connection, queue)
    bounds, last, now = before.bounds, before.look or Look(0.0), before.now
    depth = _depth(timed, bounds, last.drain)
    is_deep = bounds.reaches(depth, NEARLY_FULL)
    oldest = 0.0
    if bounds.max_age is not None or is_deep:
        oldest = float(timed.row(_OLDEST, most=MOST_DUE)[0])
    age = next_age(last.age, oldest, bounds.max_age, now=now, gap=now - last.at)
    drain = _drain(timed, oldest) if (age.refuses or is_deep) and not before.paused else 0.0
    surplus = _surplus(timed, bounds, drain) if age.refuses else 0
    is_full = age.refuses or bounds.reaches(depth)
    full_since = (last.full_since or now) if is_full else None
    look = Look(now, timed.took(), depth, oldest, age, full_since, drain, surplus)
    connection.execute(_NOTE, {"queue": queue} | _values(look))
    return look


def _depth(timed: _Timed, bounds: Bounds, drain: float) -> int:
    if bounds.max_depth is None:
        return 0
    most = counted_up_to(bounds.max_depth, drain)
    return min(most, int(timed.row(_DEPTH, most=most)[0]))


def _drain(timed: _Timed, oldest: float) -> float:
    recent, long_ago = windows(oldest)
    return drain_of(Ends(*timed.row(_ENDS, recent=recent, long_ago=long_ago, most=MOST_ENDS)), oldest)


def _surplus(timed: _Timed, bounds: Bounds, drain: float) -> int:
    """What must leave until the oldest due job is young enough; 0 where it is not known how quickly jobs leave."""
    if drain <= 0 or bounds.max_age is None:
        return 0
    clears = bounds.max_age * CLEARS_AT
    return int(timed.row(_SURPLUS, most=MOST_DUE, drain=drain, clears=clears)[0])


def _values(look: Look) -> dict[str, Any]:
    return {
        "at": look.at,
        "took": look.took,
        "depth": look.depth,
        "oldest": look.oldest,
        "old_since": look.age.old_since,
        "too_old": look.age.refuses,
        "full_since": look.full_since,
        "drain": look.drain,
        "surplus": look.surplus,
    }


def key_depths(connection: Connection, bounds: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """How many jobs of keys are queued, each counted up to its bound.

    Args:
        bounds: by queue and key.
    """
    values = {
        "queues": text_array_of(queue for queue, _ in bounds),
        "keys": text_array_of(key for _, key in bounds),
        "mosts": array_of(bounds.values()),
    }
    return {(row[0], row[1]): row[2] for row in _KEY_DEPTHS.run(connection, values).rows}


def key_wait(connection: Connection, queue: str, key: str, most: int, *, paused: bool) -> int:
    """Seconds until a job of a key would be taken.

    Args:
        most: jobs of it that may be queued.
        paused: nothing of its queue starts.
    """
    values: dict[str, Any] = {"queue": queue, "key": key}
    depth, oldest = connection.execute(_KEY_SURPLUS, values | {"most": most + MOST_OF_KEY}).one()
    if paused:
        return seconds_until(1, 0.0, oldest)
    recent, long_ago = windows(oldest)
    values |= {"recent": recent, "long_ago": long_ago, "most": MOST_OF_KEY}
    drain = drain_of(Ends(*connection.execute(_KEY_ENDS, values).one()), oldest)
    return seconds_until(depth - most + 1, drain, oldest)


def forget(connection: Connection, queue: str) -> None:
    """Forgets the last look at a queue: it was by other bounds."""
    connection.execute(_FORGET, {"queue": queue})
