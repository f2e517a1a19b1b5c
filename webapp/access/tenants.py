"""The front door of tenants: make, list, suspend and resume them. Commits.

Who reaches the database makes them, by a command: over HTTP a key knows of no tenant but its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine

from webapp.access import store, tenant_store
from webapp.access.errors import (
    NameTaken,
    NotCounted,
    NotTheDefault,
    OlderProcesses,
    TenantExists,
    TooManyTenants,
    UnknownTenant,
)
from webapp.access.model import TenantRecord
from webapp.access.quotas import Quotas, given
from webapp.audit.model import Act, Event, Named
from webapp.audit.service import AuditRecord
from webapp.flow.tenant import owner_of
from webapp.infra.postgres.engine import in_one_trip, in_transaction

logger = logging.getLogger(__name__)


class Tenants:
    """Makes tenants, and answers for them. A change holds in every process within two and a half seconds.

    Args:
        engine: the database.
        known: the queues that there are.
        older_workers: names the live workers that keep no tenants apart; None while that cannot be said.
        audit: notes who makes and suspends them; None: DJPS itself does.
    """

    def __init__(
        self,
        engine: Engine,
        known: Callable[[], Collection[str]],
        older_workers: Callable[[], Sequence[str] | None],
        audit: AuditRecord | None = None,
    ) -> None:
        self._engine = engine
        self._known = known
        self._older_workers = older_workers
        self._audit = audit or AuditRecord(engine)

    def create(self, slug: str, name: str, *, by: str | None) -> TenantRecord:
        """Makes a tenant. Queues whose names begin with its name and a dot are its own from here on.

        Args:
            slug: its name, which never changes.
            name: what people call it.
            by: who asks, for the record.

        Raises:
            OlderProcesses: a worker of a release that keeps no tenants apart is alive, or may be.
            TenantExists: there is one of this name.
            TooManyTenants: there are as many as may be.
            NameTaken: others may use a queue that would become its own.
        """
        older = self._older_workers()
        if older is None or older:
            raise OlderProcesses(older)

        def once(connection: Connection) -> TenantRecord:
            store.stamp(connection)
            if tenant_store.number(connection) >= store.MOST_TENANTS:
                raise TooManyTenants(store.MOST_TENANTS)
            found = {one for one in self._known() if owner_of(one) == slug}
            if taken := found | set(tenant_store.queues_of(connection, slug)):
                raise NameTaken(slug, taken)
            if not tenant_store.add(connection, slug, name):
                raise TenantExists(slug)
            self._note(connection, Event.TENANT_CREATE, slug, by, name=name)
            return _found(connection, slug)

        tenant = in_transaction(self._engine, once)
        logger.warning("tenant was made", extra={"of_tenant": slug, "by": by})
        return tenant

    def page(self) -> list[TenantRecord]:
        """All tenants, in the order in which they were made."""
        return in_one_trip(self._engine, tenant_store.page)

    def find(self, slug: str) -> TenantRecord:
        """A tenant.

        Raises:
            UnknownTenant: there is none of this name.
        """
        return in_one_trip(self._engine, partial(_found, slug=slug))

    def suspend(self, slug: str, *, by: str | None) -> TenantRecord:
        """Has a tenant's keys be refused; its jobs that wait and run go on. One that is suspended stays as it is.

        Raises:
            UnknownTenant: there is none of this name.
            NotTheDefault: it is the default one.
        """
        return self._turn(slug, suspended=True, by=by)

    def resume(self, slug: str, *, by: str | None) -> TenantRecord:
        """Lets a tenant's keys in again. Arguments and errors as for `suspend`."""
        return self._turn(slug, suspended=False, by=by)

    def set_quotas(self, slug: str, quotas: Quotas | None, *, by: str | None) -> TenantRecord:
        """Lets all keys of a tenant together use so much from here on, in place of what they might before.

        Args:
            quotas: None: as much as they like.
            by: who asks, for the record.

        Raises:
            UnknownTenant: there is none of this name.
            NotCounted: it is the default one, and its waiting jobs are to be bounded.
        """

        def once(connection: Connection) -> TenantRecord:
            store.stamp(connection)
            found = _found(connection, slug)
            if found.is_default and quotas is not None and quotas.max_queued is not None:
                raise NotCounted
            tenant_store.set_quotas(connection, found.id, quotas)
            self._note(connection, Event.TENANT_QUOTAS, slug, by, old=given(found.quotas), new=given(quotas))
            return _found(connection, slug)

        return in_transaction(self._engine, once)

    def _turn(self, slug: str, *, suspended: bool, by: str | None) -> TenantRecord:
        def once(connection: Connection) -> TenantRecord:
            store.stamp(connection)
            found = _found(connection, slug)
            if found.is_default:
                raise NotTheDefault
            if suspended == (found.suspended_at is not None):
                return found
            tenant_store.suspend(connection, found.id, suspended=suspended)
            self._note(connection, Event.TENANT_SUSPEND if suspended else Event.TENANT_RESUME, slug, by)
            return _found(connection, slug)

        tenant = in_transaction(self._engine, once)
        logger.warning(
            "tenant was suspended" if suspended else "tenant was resumed", extra={"of_tenant": slug, "by": by}
        )
        return tenant

    def _note(self, connection: Connection, event: Event, slug: str, by: str | None, **details: Any) -> None:
        act = Act(event, Named("tenant", slug), on_behalf_of=by, details=details)
        self._audit.note(connection, act)


def _found(connection: Connection, slug: str) -> TenantRecord:
    found = tenant_store.find(connection, slug)
    if found is None:
        raise UnknownTenant(slug)
    return found
