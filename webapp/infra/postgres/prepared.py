"""Statements that a session plans once and then runs by a name: planning is half of what a short statement costs PostgreSQL.

A plan that is kept does not know the values, and outlives the sizes of the tables for which it was made: one of an empty table may read
all of a full one. So it is kept for long only where the statement leaves one way to its rows, and else for a moment. And it is kept
only in a session whose options let the planner go by indexes alone, and that says so itself (`KEEPS_PLANS`): one that a pooler hands out,
which drops these options, plans each time. PostgreSQL makes a plan anew when a table, an index or a partition of it changes.
"""

from __future__ import annotations

import re
import time
from collections.abc import MutableMapping
from hashlib import blake2b
from math import inf
from typing import Any, NamedTuple

import psycopg2
from psycopg2 import errors

#: How long a plan is used where a table's size decides which one is good, seconds: in that time a table grows by some thousand rows.
FOR_A_MOMENT = 0.25
#: Where a statement leaves one way to its rows, whatever the sizes.
FOR_LONG = inf
#: The option of a session that keeps plans, made without a look at the values.
KEEPS_PLANS = "plan_cache_mode=force_generic_plan"
_DOES_IT = "SELECT current_setting('plan_cache_mode') = 'force_generic_plan'"
#: Where a connection has its `_Session`; None: it plans each time.
_SESSION = "plans"
#: What says that a name means nothing here, or something else: a pooler gave this session to another. The third is what a change of a
#: table's columns leads to. In each of them nothing was run.
_FORGOTTEN = (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement, errors.FeatureNotSupported)
#: A value's place as psycopg2 takes it.
_PLACE = re.compile(r"%\((\w+)\)s")


class _Session:
    """What a session has planned."""

    __slots__ = ("fresh_at", "names")

    def __init__(self) -> None:
        self.names: set[str] = set()
        #: Since when its plans are kept, monotonic seconds.
        self.fresh_at = time.monotonic()


class Prepared(NamedTuple):
    """A statement as it is planned, and as it is run from then on.

    Args:
        name: the same for the same text, in every process.
        lasts: how long a plan of it is used, seconds.
    """

    name: str
    prepare: str
    execute: str
    lasts: float

    @classmethod
    def of(cls, driver_sql: str, lasts: float) -> Prepared:
        """Of a statement as psycopg2 takes it.

        Example:
            >>> found = Prepared.of("SELECT %(a)s::int + %(b)s, %(a)s, '5%%'", FOR_LONG)
            >>> found.prepare.partition(" AS ")[2], found.execute.partition("(")[2]
            ("SELECT $1::int + $2, $1, '5%'", '%(a)s, %(b)s)')
        """
        names = list(dict.fromkeys(_PLACE.findall(driver_sql)))
        numbers = {name: f"${number}" for number, name in enumerate(names, 1)}
        name = f"djps_{blake2b(driver_sql.encode(), digest_size=8).hexdigest()}"
        numbered = _PLACE.sub(lambda place: numbers[place[1]], driver_sql).replace("%%", "%")
        given = "(" + ", ".join(f"%({one})s" for one in names) + ")" if names else ""
        return cls(name, f"PREPARE {name} AS {numbered}", f"EXECUTE {name}{given}", lasts)

    def run(self, cursor: Any, values: Any, info: MutableMapping[Any, Any]) -> bool:
        """Runs it, planned before or now; False when nothing was run, for this session plans each time.

        Only for a statement that is a transaction of its own: what fails here would end a longer one.

        Args:
            info: what is kept with the connection.

        Raises:
            psycopg2.Error: PostgreSQL refused it.
        """
        session: _Session | None = info[_SESSION] if _SESSION in info else _learn(cursor, info)
        if session is None:
            return False
        try:
            now = time.monotonic()
            if now > session.fresh_at + self.lasts:
                cursor.execute("DISCARD PLANS")
                session.fresh_at = now
            if self.name not in session.names:
                cursor.execute(self.prepare)
                session.names.add(self.name)
            cursor.execute(self.execute, values)
        except _FORGOTTEN:
            info[_SESSION] = None
            return False
        return True


def _learn(cursor: psycopg2.extensions.cursor, info: MutableMapping[Any, Any]) -> _Session | None:
    """Asks a session that is used for the first time whether it keeps plans."""
    cursor.execute(_DOES_IT)
    (does_it,) = cursor.fetchone() or (False,)
    session = _Session() if does_it else None
    info[_SESSION] = session
    return session
