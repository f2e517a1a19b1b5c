"""The one writer of seals, and its looks at seals that are there.

Each seal is a transaction of its own under an advisory lock: a writer that is killed has made a seal or none, and the next one
goes on. Acts wait for none of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from sqlalchemy import Connection, Engine

from webapp.audit import seal_store
from webapp.audit.seals import LAST_XID, Mark, Seal, digest_of, ended_numbering, signature_of
from webapp.audit.verifying import Broken, fault_of_one
from webapp.infra.postgres.engine import in_one_trip, in_transaction


def seal_next(engine: Engine, keys: Sequence[str], limit: int, server: int | None = None) -> Seal | None:
    """Makes the next seal; None where no line waits for one, or another writer is at it.

    Args:
        keys: the first of them signs; none: it is not signed.
        limit: most lines of a seal.
        server: which server this is; None: what it says itself.
    """
    return in_transaction(engine, partial(_seal, keys=keys, limit=limit, server=server))


def look_back(engine: Engine, keys: Sequence[str], days: int) -> list[Broken]:
    """Looks at the newest seal, and at one of the others, each minute at the next of them; returns those that do not fit.

    Args:
        keys: those that may have signed them.
        days: days that lines are kept.
    """

    def look(connection: Connection) -> list[Broken]:
        newest = seal_store.newest(connection)
        if newest.seq == 0:
            return []
        minute = int(seal_store.here(connection).now.timestamp() // 60)
        found = (
            fault_of_one(connection, number, keys, days) for number in {newest.seq, minute % newest.seq + 1}
        )
        return [one for one in found if one is not None]

    return in_one_trip(engine, look)


def _seal(connection: Connection, *, keys: Sequence[str], limit: int, server: int | None) -> Seal | None:
    if not seal_store.alone(connection):
        return None
    newest, here = seal_store.newest(connection), seal_store.here(connection)
    server = here.server if server is None else server
    ahead = None if newest.server == server else seal_store.ahead(connection)
    ended = ended_numbering(newest, server, ahead)
    if ended is None:
        made = _over(newest, server, seal_store.unsealed(connection, newest, limit=limit), here.now)
    else:
        # All of them were committed before they came here.
        rest = seal_store.unsealed(connection, newest, limit=limit, until_id=ended, before=LAST_XID)
        made = _over(newest, newest.server, rest, here.now)
        if made is None:
            first = seal_store.beginning(connection, ended)
            made = _beginning(newest, server, ended, first, here.now)
    if made is None:
        return None
    digest = digest_of(made[0], made[1])
    seal = replace(made[0], sha256=digest, hmac=signature_of(keys[0], digest) if keys else None)
    seal_store.add(connection, seal)
    return seal


def _over(
    newest: Seal, server: int, lines: Sequence[seal_store.Line], now: datetime
) -> tuple[Seal, list[str]] | None:
    """The seal over lines that follow the newest one's, without its digest; None where there are none."""
    if not lines:
        return None
    seal = Seal(
        newest.seq + 1,
        now,
        server,
        newest.after_id,
        lines[-1].mark,
        max(newest.greatest_id, *(line.mark.id for line in lines)),
        datetime.fromisoformat(min(line.at for line in lines)),
        len(lines),
        newest.sha256,
    )
    return seal, [line.text for line in lines]


def _beginning(newest: Seal, server: int, ended: int, first: Mark, now: datetime) -> tuple[Seal, list[str]]:
    """The seal, without lines, from which on this server numbers transactions."""
    return Seal(newest.seq + 1, now, server, ended, first, ended, None, 0, newest.sha256), []
