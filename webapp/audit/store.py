"""Runs the statements about the record of acts. Functions take a connection and never commit."""

from __future__ import annotations

import json

from sqlalchemy import Connection, text

from webapp.audit.model import Act, Actor, AuditEvent, AuditFilter
from webapp.infra.postgres.engine import Statement
from webapp.infra.postgres.sql_files import read_sql

_ADD = Statement(read_sql(__file__, "events", "add"))
_MARKS = ("tenant", "default tenant")
_PAGE_OF_ALL, _PAGE_OF_DEFAULT, _PAGE_OF_GUEST = (
    text(read_sql(__file__, "events", "page", without=[mark for mark in _MARKS if mark != kept]))
    for kept in ("", "default tenant", "tenant")
)


def add(connection: Connection, act: Act, actor: Actor, *, success: bool = True) -> None:
    """Puts an act on record, in the transaction that does it.

    Args:
        success: whether it was let happen.

    Raises:
        DBAPIError: it cannot be recorded, so it must not be done.
    """
    kind, target = act.target or (None, None)
    values = {
        "event": act.event.value,
        "success": success,
        "actor_kind": actor.kind.value,
        "actor_id": actor.id,
        "actor_name": actor.name,
        "address": actor.address,
        "request_id": actor.request_id,
        "target_kind": kind,
        "target_id": target,
        "matched": act.matched,
        "changed": act.changed,
        "reason": act.reason,
        "details": json.dumps(act.details_for(actor)),
        "tenant": actor.tenant,
    }
    _ADD.run(connection, values)


def page(connection: Connection, wanted: AuditFilter, *, last: int | None, limit: int) -> list[AuditEvent]:
    """Events on record, the newest first.

    Args:
        last: only those with a smaller number.
    """
    statement = _PAGE_OF_DEFAULT if wanted.whose.tenant is None else _PAGE_OF_GUEST
    if wanted.whose.of_all:
        statement = _PAGE_OF_ALL
    rows = connection.execute(statement, wanted.values() | {"last": last, "limit": limit})
    return [AuditEvent(*row) for row in rows]
