"""Runs the statements about tenants. Functions take a connection and never commit; a change begins with `store.stamp`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from webapp.access.model import TenantRecord
from webapp.access.quotas import Quotas, given, quotas_of
from webapp.access.store import MOST_TENANTS
from webapp.flow.tenant import OF_TENANT
from webapp.infra.postgres.sql_files import read_sql

_NAMES, _PAGE, _FIND, _AGE, _ADD, _SUSPEND, _SET_QUOTAS, _QUEUES_OF = (
    text(read_sql(__file__, "tenants", name))
    for name in ("names", "page", "find", "age", "add", "suspend", "set_quotas", "queues_of")
)


def number(connection: Connection) -> int:
    """How many there are beside the default one."""
    return len(connection.execute(_NAMES, {"most": MOST_TENANTS}).all())


def page(connection: Connection) -> list[TenantRecord]:
    """All tenants, in the order in which they were made."""
    return [_record(row) for row in connection.execute(_PAGE, {"most": MOST_TENANTS + 1})]


def find(connection: Connection, slug: str) -> TenantRecord | None:
    """A tenant; None: there is none of this name."""
    row = connection.execute(_FIND, {"slug": slug}).first()
    return None if row is None else _record(row)


def age(connection: Connection, slug: str) -> float | None:
    """How long ago a tenant was made, seconds; None: there is none of this name."""
    found: float | None = connection.execute(_AGE, {"slug": slug}).scalar()
    return found


def add(connection: Connection, slug: str, name: str) -> bool:
    """Makes a tenant; False: there is one of this name."""
    return connection.execute(_ADD, {"slug": slug, "name": name}).first() is not None


def suspend(connection: Connection, tenant: int, *, suspended: bool) -> None:
    """Has a tenant's keys be refused, or no longer."""
    connection.execute(_SUSPEND, {"id": tenant, "suspended": suspended})


def set_quotas(connection: Connection, tenant: int, quotas: Quotas | None) -> None:
    """Lets all keys of a tenant together use so much; None: as much as they like."""
    found = given(quotas)
    connection.execute(_SET_QUOTAS, {"id": tenant, "quotas": json.dumps(found) if found else None})


def queues_of(connection: Connection, slug: str) -> list[str]:
    """Some queues with jobs or limits that would be a new tenant's own."""
    return list(connection.execute(_QUEUES_OF, {"like": f"{slug}{OF_TENANT}%"}).scalars())


def _record(row: Sequence[Any]) -> TenantRecord:
    number, slug, name, created_at, suspended_at, quotas, keys = row
    return TenantRecord(number, slug, name, created_at, suspended_at, quotas_of(quotas), keys)
