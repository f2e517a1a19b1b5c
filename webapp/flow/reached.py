"""A statement for each way to reach: the lines that narrow it are left out where there is nothing to narrow.

In the file, a line that ends with `-- reach` is for callers of some queues; one with `-- tenant` for those of a tenant beside the default
one, and one with `-- default tenant` for those of the default one. The latter asks for numbers up to its own, which is the smallest: of a column without
statistics, as one that was just added, PostgreSQL expects one row in two hundred to be equal to something, and one in three to be less.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import TextClause, text

from webapp.flow.reach import Reach
from webapp.flow.tenant import DEFAULT_TENANT
from webapp.infra.postgres.literals import text_array_of
from webapp.infra.postgres.sql_files import read_sql

#: The marks of the lines for tenants, by whether a statement is for none, the default one, or another.
_TENANTS = ("default tenant", "tenant")


class Reached:
    """A statement of a room, by who asks.

    Args:
        module: `__file__` of a module in the room.
        file: the name of the SQL file.
        part: the statement's name in it.
    """

    def __init__(self, module: str, file: str, part: str = "") -> None:
        self._texts = {
            (keep, of_queues): text(
                read_sql(
                    module,
                    file,
                    part,
                    without=[
                        *(mark for mark in _TENANTS if mark != keep),
                        *(() if of_queues else ("reach",)),
                    ],
                )
            )
            for keep in (None, *_TENANTS)
            for of_queues in (False, True)
        }

    def by(self, reach: Reach) -> TextClause:
        """The statement for a caller."""
        return self.of(reach.number, of_queues=reach.queues is not None)

    def of(self, tenant: int | None, *, of_queues: bool) -> TextClause:
        """The statement for callers of a tenant, and of some queues.

        Args:
            tenant: its number; None: of all that there are.
        """
        keep = None if tenant is None else _TENANTS[tenant != DEFAULT_TENANT]
        return self._texts[keep, of_queues]


def reach_values(reach: Reach) -> dict[str, Any]:
    """The values of the lines that narrow a statement."""
    values: dict[str, Any] = {} if reach.number is None else {"tenant": reach.number}
    return values if reach.queues is None else values | {"queues": text_array_of(sorted(reach.queues))}
