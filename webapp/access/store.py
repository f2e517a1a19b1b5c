"""Runs the statements about keys: which are live, what is on record, and changes of them.

Functions take a connection and never commit. A change begins with `stamp`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import Any, NamedTuple

from sqlalchemy import Connection, TextClause, text

from webapp.access.model import (
    OF_ALL_QUEUES,
    OF_ALL_TENANTS,
    AccessKey,
    Caller,
    LiveKey,
    NewKey,
    scopes_of,
)
from webapp.access.quotas import Quotas, given, quotas_of
from webapp.access.secret import Kept, apart
from webapp.flow.reach import EVERYTHING, Reach
from webapp.flow.reached import Reached
from webapp.flow.tenant import DEFAULT, DEFAULT_SLUG, DEFAULT_TENANT, Tenant
from webapp.infra.postgres.sql_files import read_sql

logger = logging.getLogger(__name__)

#: Most live keys: each process keeps them all.
MOST_KEYS = 10_000
#: Most secrets that a process keeps: a key has two while it is rotated.
MOST_SECRETS = 2 * MOST_KEYS
#: Most tenants beside the default one: each process keeps their names.
MOST_TENANTS = 1_000
#: How long the owner of an expired key is told that it has, seconds; later it is unknown.
TOLD_FOR = 7 * 86_400.0


class Known(NamedTuple):
    """What each process keeps.

    Args:
        keys: those that let someone in, and those that did a moment ago, by the hashes of their secrets.
        guests: the names of the tenants beside the default one.
    """

    keys: dict[bytes, LiveKey]
    guests: frozenset[str]


def _statement(name: str) -> TextClause:
    return text(read_sql(__file__, "keys", name))


_STAMP, _STAMP_NOW, _LIVING, _LIVE_NUMBER = map(_statement, ("stamp", "stamp_now", "living", "live_number"))
_ADD_KEY, _ADD_SECRET, _DATE_SECRETS, _REVOKE = map(
    _statement, ("add_key", "add_secret", "date_secrets", "revoke")
)
_OF_SECRET, _ADMIN, _NOTE_USES, _SET_QUOTAS = map(
    _statement, ("of_secret", "admin", "note_uses", "set_quotas")
)
_FIND, _PAGE = (Reached(__file__, "keys", name) for name in ("find", "page"))
_GUESTS = text(read_sql(__file__, "tenants", "names"))


def stamp(connection: Connection) -> None:
    """Has every process read the keys anew once this transaction is committed; until then others that change keys wait."""
    connection.execute(_STAMP)


def stamp_now(connection: Connection) -> str | None:
    """The stamp of the last change of keys; None: there was none yet."""
    found: str | None = connection.execute(_STAMP_NOW).scalar()
    return found


def known(connection: Connection) -> Known:
    """What each process keeps: read in one statement each, tenants first, so that no key is of one that is not known."""
    guests = frozenset(connection.execute(_GUESTS, {"most": MOST_TENANTS}).scalars())
    rows = connection.execute(_LIVING, {"told": TOLD_FOR, "most": MOST_SECRETS})
    keys = {bytes(row[0]): live for row in rows if (live := _live(row, guests)) is not None}
    return Known(keys, guests)


def _live(row: Sequence[Any], guests: frozenset[str]) -> LiveKey | None:
    """A key as processes keep it; None for one that was changed by hand and cannot be read, which lets no one in."""
    _, key_id, tenant_id, name, role, scopes, networks, queues, quotas, expires_at, *of_tenant = row
    slug, is_suspended, ours, since = of_tenant
    try:
        allowed = tuple(map(ip_network, networks))
    except ValueError:
        logger.warning("key has networks that are none, and is good for nothing", extra={"key": key_id})
        return None
    may, tenant = scopes_of(role, scopes), Tenant(tenant_id, slug)
    if queues is not None:
        # None is made with such a scope; a role may get one in a later release.
        may -= OF_ALL_QUEUES
    if tenant != DEFAULT:
        may -= OF_ALL_TENANTS
    reach = Reach(
        tenant,
        None if queues is None else frozenset(queues),
        others=(guests | {DEFAULT_SLUG}) - {slug},
        is_alone=tenant == DEFAULT and not guests,
        since=since,
        key=key_id,
    )
    caller = Caller(may, reach, key_id, name, expires_at, quotas_of(quotas), quotas_of(ours))
    return LiveKey(caller, allowed, is_suspended)


def live_number(connection: Connection) -> int:
    """How many keys are live, counted up to `MOST_KEYS`."""
    return int(connection.execute(_LIVE_NUMBER, {"most": MOST_KEYS}).scalar_one())


def add(
    connection: Connection, wanted: NewKey, secret: Kept, *, by: str | None, tenant: int = DEFAULT_TENANT
) -> AccessKey:
    """Puts a new key on record, with the hash of its secret.

    Args:
        by: who asks.
        tenant: whose it is.
    """
    values = {
        "tenant": tenant,
        "name": wanted.name,
        "role": wanted.role,
        "scopes": list(wanted.scopes),
        "networks": list(wanted.networks),
        "queues": list(wanted.queues) or None,
        "quotas": _json_of(wanted.quotas),
        "by": by,
        "lifetime": wanted.lifetime,
    }
    key_id = connection.execute(_ADD_KEY, values).scalar_one()
    add_secret(connection, key_id, secret)
    return _known(connection, key_id)


def add_secret(connection: Connection, key_id: int, secret: Kept) -> None:
    """Puts the hash of another secret of a key on record."""
    connection.execute(_ADD_SECRET, {"id": key_id, "hash": secret.hash, "hint": secret.hint})


def date_secrets(connection: Connection, key_id: int, *, overlap: float) -> None:
    """Lets the newest secret of a key be good for so many seconds more, and the older ones no longer."""
    connection.execute(_DATE_SECRETS, {"id": key_id, "overlap": overlap})


def set_quotas(connection: Connection, key_id: int, quotas: Quotas | None) -> None:
    """Lets a key use so much from here on; None: as much as all others."""
    connection.execute(_SET_QUOTAS, {"id": key_id, "quotas": _json_of(quotas)})


def _json_of(quotas: Quotas | None) -> str | None:
    found = given(quotas)
    return json.dumps(found) if found else None


def revoke(connection: Connection, key_id: int) -> None:
    """Makes a key good for nothing."""
    connection.execute(_REVOKE, {"id": key_id})


def find(connection: Connection, key_id: int, reach: Reach) -> AccessKey | None:
    """A key on record; None: there is none, or it is another tenant's."""
    row = connection.execute(
        _FIND.of(reach.number, of_queues=False), {"id": key_id, "tenant": reach.number}
    ).first()
    return _key(row) if row is not None else None


def _known(connection: Connection, key_id: int) -> AccessKey:
    found = find(connection, key_id, EVERYTHING)
    if found is None:
        raise LookupError(key_id)
    return found


def of_secret(connection: Connection, secret: bytes) -> tuple[AccessKey, bool] | None:
    """The key that a secret is or was good for, and whether the secret is still good for it; None: there is none.

    Args:
        secret: its hash.
    """
    row = connection.execute(_OF_SECRET, {"hash": secret, "hash_apart": apart(secret)}).first()
    return None if row is None else (_known(connection, row[0]), row[1])


def page(
    connection: Connection,
    reach: Reach,
    *,
    ended: bool,
    before: int | None,
    limit: int,
    slug: str | None = None,
) -> list[AccessKey]:
    """Keys on record, the newest first: those of the caller's tenant.

    Args:
        ended: also those that are revoked or have expired.
        before: only those with a smaller number.
        slug: only those of this tenant.
    """
    values = {"ended": ended, "before": before, "limit": limit, "slug": slug, "tenant": reach.number}
    rows = connection.execute(_PAGE.of(reach.number, of_queues=False), values)
    return [_key(row) for row in rows]


def admin(connection: Connection) -> AccessKey | None:
    """A live key with the role admin; None: there is none."""
    found = connection.execute(_ADMIN).scalar()
    return None if found is None else _known(connection, found)


def note_uses(connection: Connection, uses: Mapping[int, tuple[float, str | None]]) -> None:
    """Notes when keys were last used, seconds of the epoch, and from where; of one that another session has locked, nothing."""
    values = {
        "ids": list(uses),
        "seconds": [seconds for seconds, _ in uses.values()],
        "addresses": [address for _, address in uses.values()],
    }
    connection.execute(_NOTE_USES, values)


def _key(row: Sequence[Any]) -> AccessKey:
    # Scopes, networks and hints are lists in the row.
    fields: list[Any] = [tuple(value) if isinstance(value, list) else value for value in row]
    fields[-2:] = fields[-2] or (), quotas_of(fields[-1])
    return AccessKey(*fields)
