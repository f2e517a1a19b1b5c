"""The front door of keys: make, list, rotate, revoke and find them. Commits."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine

from webapp.access import store, tenant_store
from webapp.access.errors import (
    AdminExists,
    CannotGive,
    KeyEnded,
    NoGoodKey,
    OnCommandLine,
    TooManyKeys,
    UnknownKey,
    UnknownTenant,
)
from webapp.access.grants import Grant, grant_of, grant_of_new, lacking
from webapp.access.model import AccessKey, Issued, NewKey, Role, Scope
from webapp.access.quotas import Quotas, given
from webapp.access.secret import Kept, checked, hash_of, kept, new_key
from webapp.audit.model import Act, Event, Named
from webapp.audit.service import AuditRecord
from webapp.flow.reach import EVERYTHING, Reach
from webapp.flow.tenant import DEFAULT_SLUG
from webapp.infra.postgres.engine import in_one_trip, in_transaction

logger = logging.getLogger(__name__)

#: How long after it was made a tenant gets its first key, seconds: as long as a process may believe that there is none beside the default
#: one, and as long as a list takes that was begun by then.
KEPT_APART_AFTER = 8.0


class Access:
    """Makes keys, and answers for them. A change holds in every process within two and a half seconds.

    Args:
        engine: the database.
        audit: notes who makes and ends keys; None: DJPS itself does.
    """

    def __init__(self, engine: Engine, audit: AuditRecord | None = None) -> None:
        self._engine = engine
        self._audit = audit or AuditRecord(engine)

    def create(self, wanted: NewKey, *, by: str | None, giver: int | None = None) -> Issued:
        """Makes a key. The first ones of a tenant wait until every process keeps it apart, some seconds after it was made.

        Args:
            by: who asks, for the record.
            giver: the key that asks, which gives nothing that it does not have; None: the command line.

        Raises:
            TooManyKeys: as many are live as may.
            CannotGive: the giver lacks what it would give.
            OnCommandLine: the new key could make keys, and a key asks for it.
            NoGoodKey: the giver was revoked a moment ago.
            UnknownTenant: there is none of this name, or it is not the giver's.
        """
        secret = new_key()
        self._wait_for(wanted.tenant)

        def once(connection: Connection) -> AccessKey:
            made = _create(connection, wanted=wanted, secret=secret, by=by, giver=giver)
            self._note(connection, Event.KEY_CREATE, made, None if giver else by, **_rights_of(made))
            return made

        key = in_transaction(self._engine, once)
        logger.info("key was made", extra={"key": key.id, "by": by})
        return Issued(key, secret)

    def init(self, *, by: str | None, again: bool = False) -> Issued:
        """Makes the first key, with the role admin and without an end.

        Args:
            by: who asks, for the record.
            again: also where there is one already.

        Raises:
            AdminExists: there is one.
        """
        secret = new_key()

        def once(connection: Connection) -> AccessKey:
            store.stamp(connection)
            found = store.admin(connection)
            if found is not None and not again:
                raise AdminExists(found)
            made = store.add(connection, NewKey("admin", Role.ADMIN), kept(secret), by=by)
            self._note(connection, Event.KEY_INIT, made, by, **_rights_of(made))
            return made

        key = in_transaction(self._engine, once)
        logger.info("key was made", extra={"key": key.id, "by": by})
        return Issued(key, secret)

    def adopt(self, sha256: str, wanted: NewKey, *, by: str) -> tuple[AccessKey, bool]:
        """Makes a key known that was made elsewhere, by its hash; one that is or was known stays as it is.

        So a file of settings may name the first key of an installation, and does not bring one back that was revoked.

        Args:
            sha256: of the key's text, 64 hexadecimal digits.
            by: who asks, for the record.

        Returns:
            The key, and whether it was made known now.
        """
        secret = Kept(bytes.fromhex(sha256), "")

        def once(connection: Connection) -> tuple[AccessKey, bool]:
            store.stamp(connection)
            found = store.of_secret(connection, secret.hash)
            if found is not None:
                return found[0], False
            made = store.add(connection, wanted, secret, by=by)
            self._note(connection, Event.KEY_INIT, made, by, **_rights_of(made))
            return made, True

        return in_transaction(self._engine, once)

    def rotate(
        self, key_id: int, reach: Reach, *, overlap: float, by: str | None, giver: int | None = None
    ) -> Issued:
        """Gives a key another secret; the one that it had is good for a while more.

        Args:
            overlap: how long, seconds; 0: no longer.
            by: who asks, for the log.
            giver: the key that asks, which gets no secret of a key that may more than itself; None: the command line.

        Raises:
            UnknownKey: there is no such key.
            KeyEnded: it is revoked, or has expired.
            CannotGive, OnCommandLine, NoGoodKey: as for `create`.
        """
        secret = new_key()

        def once(connection: Connection) -> AccessKey:
            store.stamp(connection)
            found = _known(connection, key_id, reach)
            if not found.is_live:
                raise KeyEnded(found)
            _check_giver(connection, giver, grant_of(found), found.tenant)
            store.date_secrets(connection, key_id, overlap=overlap)
            store.add_secret(connection, key_id, kept(secret, of_guest=found.tenant != DEFAULT_SLUG))
            self._note(connection, Event.KEY_ROTATE, found, None if giver else by, overlap=overlap)
            return _known(connection, key_id, reach)

        key = in_transaction(self._engine, once)
        logger.info("key was rotated", extra={"key": key.id, "by": by, "overlap": overlap})
        return Issued(key, secret)

    def set_quotas(
        self,
        key_id: int,
        quotas: Quotas | None,
        reach: Reach,
        *,
        by: str | None,
        giver: int | None = None,
    ) -> AccessKey:
        """Lets a key use so much from here on, in place of what it might before.

        Args:
            quotas: None: as much as all others.
            by: who asks, for the record.
            giver: the key that asks, which gives no more than it may use itself; None: the command line.

        Raises:
            UnknownKey: there is no such key.
            KeyEnded: it is revoked, or has expired.
            CannotGive, OnCommandLine, NoGoodKey: as for `create`.
        """

        def once(connection: Connection) -> AccessKey:
            store.stamp(connection)
            found = _known(connection, key_id, reach)
            if not found.is_live:
                raise KeyEnded(found)
            _check_giver(connection, giver, grant_of(found)._replace(quotas=quotas), found.tenant)
            store.set_quotas(connection, key_id, quotas)
            self._note(
                connection,
                Event.KEY_QUOTAS,
                found,
                None if giver else by,
                old=given(found.quotas),
                new=given(quotas),
            )
            return _known(connection, key_id, reach)

        key = in_transaction(self._engine, once)
        logger.info("key got quotas", extra={"key": key.id, "by": by})
        return key

    def revoke(self, key_id: int, reach: Reach, *, by: str | None, giver: int | None = None) -> AccessKey:
        """Makes a key good for nothing; one that was revoked before stays as it is.

        Args:
            by: who asks, for the log.
            giver: the key that asks, which may be any; None: the command line.

        Raises:
            UnknownKey: there is no such key.
        """

        def once(connection: Connection) -> AccessKey:
            store.stamp(connection)
            found = _known(connection, key_id, reach)
            if found.revoked_at is not None:
                return found
            store.revoke(connection, key_id)
            self._note(connection, Event.KEY_REVOKE, found, None if giver else by)
            return _known(connection, key_id, reach)

        key = in_transaction(self._engine, once)
        logger.info("key was revoked", extra={"key": key.id, "by": by})
        return key

    def find(self, key_id: int, reach: Reach) -> AccessKey:
        """A key on record, of the caller's tenant.

        Raises:
            UnknownKey: there is no such key.
        """
        return in_one_trip(self._engine, partial(_known, key_id=key_id, reach=reach))

    def page(
        self, reach: Reach, *, ended: bool, before: int | None, limit: int, slug: str | None = None
    ) -> list[AccessKey]:
        """Keys on record, the newest first; arguments as for `store.page`."""
        asked = partial(store.page, reach=reach, ended=ended, before=before, limit=limit, slug=slug)
        return in_one_trip(self._engine, asked)

    def of_secret(self, secret: str) -> tuple[AccessKey, bool]:
        """The key that a secret is or was good for, and whether the secret is still good for it.

        Raises:
            NoGoodKey: it does not have the form of a key.
            UnknownKey: no key has it.
        """
        wanted = checked(secret.strip())
        found = in_one_trip(self._engine, partial(store.of_secret, secret=hash_of(wanted)))
        if found is None:
            raise UnknownKey
        return found

    def disconnect(self) -> None:
        """Closes the connections that are not in use."""
        self._engine.dispose()

    def _note(
        self, connection: Connection, event: Event, key: AccessKey, by: str | None, **details: Any
    ) -> None:
        target = Named("key", str(key.id))
        act = Act(event, target, on_behalf_of=by, details={"name": key.name} | details)
        self._audit.note(connection, act)

    def has_keys(self) -> bool:
        """True if a key is live."""
        return in_one_trip(self._engine, store.live_number) > 0

    def _wait_for(self, slug: str) -> None:
        if slug == DEFAULT_SLUG:
            return
        age = in_one_trip(self._engine, partial(tenant_store.age, slug=slug))
        if age is not None and age < KEPT_APART_AFTER:
            time.sleep(KEPT_APART_AFTER - age)


def _rights_of(key: AccessKey) -> dict[str, Any]:
    """What goes on record of a new key."""
    return {
        "role": key.role,
        "scopes": list(key.scopes),
        "networks": list(key.networks),
        "queues": list(key.queues),
        "quotas": given(key.quotas),
    } | ({} if key.tenant == DEFAULT_SLUG else {"tenant": key.tenant})


def _create(
    connection: Connection, *, wanted: NewKey, secret: str, by: str | None, giver: int | None
) -> AccessKey:
    store.stamp(connection)
    tenant = tenant_store.find(connection, wanted.tenant)
    if tenant is None:
        raise UnknownTenant(wanted.tenant)
    _check_giver(connection, giver, grant_of_new(wanted, datetime.now(UTC)), tenant.slug)
    if store.live_number(connection) >= store.MOST_KEYS:
        raise TooManyKeys(store.MOST_KEYS)
    own = kept(secret, of_guest=not tenant.is_default)
    return store.add(connection, wanted, own, by=by, tenant=tenant.id)


def _check_giver(connection: Connection, giver: int | None, wanted: Grant, tenant: str) -> None:
    """Looks whether a key may give what is wanted to one of this tenant; by its row, which no one changes meanwhile."""
    if giver is None:
        return
    if wanted.makes_keys:
        raise OnCommandLine(
            f"keys with the scope {Scope.ACCESS_MANAGE} are made and rotated on the command line alone"
        )
    found = store.find(connection, giver, EVERYTHING)
    if found is None or not found.is_live:
        raise NoGoodKey("the key is unknown, or was revoked")
    if found.tenant != tenant:
        raise UnknownTenant(tenant)
    if lacks := lacking(grant_of(found), wanted):
        raise CannotGive(found, lacks)


def _known(connection: Connection, key_id: int, reach: Reach) -> AccessKey:
    found = store.find(connection, key_id, reach)
    if found is None:
        raise UnknownKey(key_id)
    return found
