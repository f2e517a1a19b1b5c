"""The front door of the record: acts are noted in their own transactions, and looked at."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sqlalchemy import Connection, Engine

from webapp.audit import store
from webapp.audit.model import Act, Actor, AuditEvent, AuditFilter, the_system
from webapp.infra.postgres.engine import in_one_trip


class AuditRecord:
    """Notes acts, and answers for them.

    Args:
        engine: the database.
        who: says who acts now.
    """

    def __init__(self, engine: Engine, who: Callable[[], Actor] = the_system) -> None:
        self._engine = engine
        self._who = who

    def note(self, connection: Connection, act: Act) -> None:
        """Puts an act on record. It is committed with the act, or neither is.

        Args:
            connection: in the transaction of the act.

        Raises:
            DBAPIError: it cannot be recorded, so it must not be done.
        """
        store.add(connection, act, self._who())

    def page(self, wanted: AuditFilter, *, last: int | None, limit: int) -> list[AuditEvent]:
        """Events on record, the newest first; arguments as for `store.page`."""
        return in_one_trip(self._engine, partial(store.page, wanted=wanted, last=last, limit=limit))
