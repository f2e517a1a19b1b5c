"""Keeps lanes in order beside the claims: calls those that were forgotten, forgets those of which nothing is left to know.

Functions take a connection and never commit.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text

from webapp.infra.postgres.sql_files import read_sql

_CALL_FORGOTTEN, _MEND_TIMED, _FORGET_IDLE, _FORGET_RATES = (
    text(read_sql(__file__, "lane_repairs", name))
    for name in ("call_forgotten", "mend_timed", "forget_idle", "forget_rates")
)


class Repairs(NamedTuple):
    """What was done.

    Args:
        mended: lanes that were out of order: there should be none but after a dump was restored.
        forgotten: rows of which nothing was left to know.
    """

    mended: int
    forgotten: int


def repair(connection: Connection, limit: int) -> Repairs:
    """Calls lanes in which jobs wait though nothing tells of them, and forgets what is over.

    Args:
        limit: most rows of each kind.
    """
    values = {"limit": limit}
    mended = [connection.execute(one, values).rowcount for one in (_CALL_FORGOTTEN, _MEND_TIMED)]
    forgotten = [connection.execute(one, values).rowcount for one in (_FORGET_IDLE, _FORGET_RATES)]
    return Repairs(sum(mended), sum(forgotten))
