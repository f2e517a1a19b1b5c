"""Runs the statements about keys: which are live, what is on record, and changes of them.

Functions take a connection and never commit. A change begins with `stamp`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import Any

from sqlalchemy import Connection, TextClause, text

from webapp.access.model import OF_ALL_QUEUES, AccessKey, Caller, LiveKey, NewKey, scopes_of
from webapp.access.quotas import Quotas, given, quotas_of
from webapp.access.secret import Kept
from webapp.flow.reach import EVERYTHING, Reach
from webapp.infra.postgres.sql_files import read_sql

logger = logging.getLogger(__name__)

#: Most live keys: each process keeps them all.
MOST_KEYS = 10_000
#: Most secrets that a process keeps: a key has two while it is rotated.
MOST_SECRETS = 2 * MOST_KEYS
#: How long the owner of an expired key is told that it has, seconds; later it is unknown.
TOLD_FOR = 7 * 86_400.0


def _statement(name: str) -> TextClause:
    return text(read_sql(__file__, "keys", name))


_STAMP, _STAMP_NOW, _LIVING, _LIVE_NUMBER = map(_statement, ("stamp", "stamp_now", "living", "live_number"))
_ADD_KEY, _ADD_SECRET, _DATE_SECRETS, _REVOKE = map(
    _statement, ("add_key", "add_secret", "date_secrets", "revoke")
)
_FIND, _OF_SECRET, _PAGE, _ADMIN, _NOTE_USES, _SET_QUOTAS = map(
    _statement, ("find", "of_secret", "page", "admin", "note_uses", "set_quotas")
)


def stamp(connection: Connection) -> None:
    """Has every process read the keys anew once this transaction is committed; until then others that change keys wait."""
    connection.execute(_STAMP)


def stamp_now(connection: Connection) -> str | None:
    """The stamp of the last change of keys; None: there was none yet."""
    found: str | None = connection.execute(_STAMP_NOW).scalar()
    return found


def living(connection: Connection) -> dict[bytes, LiveKey]:
    """The secrets that let someone in, by their hashes, and those that did a moment ago."""
    rows = connection.execute(_LIVING, {"told": TOLD_FOR, "most": MOST_SECRETS})
    return {bytes(row[0]): live for row in rows if (live := _live(row)) is not None}


def _live(row: Sequence[Any]) -> LiveKey | None:
    """A key as processes keep it; None for one that was changed by hand and cannot be read, which lets no one in."""
    _, key_id, tenant, name, role, scopes, networks, queues, quotas, expires_at = row
    try:
        allowed = tuple(map(ip_network, networks))
    except ValueError:
        logger.warning("key has networks that are none, and is good for nothing", extra={"key": key_id})
        return None
    may, reach = scopes_of(role, scopes), EVERYTHING
    if queues is not None:
        # None is made with such a scope; a role may get one in a later release.
        may, reach = may - OF_ALL_QUEUES, Reach(frozenset(queues))
    return LiveKey(Caller(may, reach, tenant, key_id, name, expires_at, quotas_of(quotas)), allowed)


def live_number(connection: Connection) -> int:
    """How many keys are live, counted up to `MOST_KEYS`."""
    return int(connection.execute(_LIVE_NUMBER, {"most": MOST_KEYS}).scalar_one())


def add(connection: Connection, wanted: NewKey, secret: Kept, *, by: str | None) -> AccessKey:
    """Puts a new key on record, with the hash of its secret."""
    values = {
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


def find(connection: Connection, key_id: int) -> AccessKey | None:
    """A key on record; None: there is none."""
    row = connection.execute(_FIND, {"id": key_id}).first()
    return _key(row) if row is not None else None


def _known(connection: Connection, key_id: int) -> AccessKey:
    return _key(connection.execute(_FIND, {"id": key_id}).one())


def of_secret(connection: Connection, secret: bytes) -> tuple[AccessKey, bool] | None:
    """The key that a secret is or was good for, and whether the secret is still good for it; None: there is none.

    Args:
        secret: its hash.
    """
    row = connection.execute(_OF_SECRET, {"hash": secret}).first()
    return None if row is None else (_known(connection, row[0]), row[1])


def page(connection: Connection, *, ended: bool, before: int | None, limit: int) -> list[AccessKey]:
    """Keys on record, the newest first.

    Args:
        ended: also those that are revoked or have expired.
        before: only those with a smaller number.
    """
    rows = connection.execute(_PAGE, {"ended": ended, "before": before, "limit": limit})
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
