"""How many jobs of a tenant wait, as each process has counted it a moment ago, where a quota bounds that.

Who submits counts, at most once a second, and adds what it has let in since: so a tenant exceeds its quota by what other processes let in
within a second, and one without a quota costs nothing.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text

from webapp.infra.background import Clock
from webapp.infra.postgres.engine import in_one_trip
from webapp.infra.postgres.sql_files import read_sql

_OF_ONE, _OF_EACH = (text(read_sql(__file__, "queued", name)) for name in ("of_one", "of_each"))

#: What was counted is used for so long, seconds.
LOOK_EVERY = 1.0
#: Least and greatest time after which a client is told to come again, seconds.
SOONEST, LATEST = 1, 300


@dataclass(frozen=True, slots=True)
class Look:
    """What was counted.

    Args:
        at: when, seconds that only grow.
        waiting: jobs, counted to one beyond the quota and what was asked for.
        let_in: jobs that this process has let in since.
        full_since: since when it lets in none; None: it does.
        surplus: what was beyond the quota when that began.
    """

    at: float
    waiting: int
    let_in: int = 0
    full_since: float | None = None
    surplus: int = 0


def wait_of(look: Look, wanted: int, most: int, now: float) -> int:
    """Seconds until so many jobs more would be taken, by how quickly others have left since none were. Pure.

    Where nothing has left it is as long again as it stands already.

    Args:
        wanted: jobs.
        most: that may wait.

    Example:
        >>> wait_of(Look(12.0, 106, full_since=2.0, surplus=26), 1, 100, 12.0), wait_of(Look(9.0, 100, full_since=2.0), 1, 100, 9.0)
        (4, 7)
    """
    surplus = look.waiting + look.let_in + wanted - most
    stood = now - look.full_since if look.full_since is not None else 0.0
    left = look.surplus - (look.waiting + look.let_in - most)
    seconds = surplus * stood / left if left > 0 else stood
    return max(SOONEST, min(LATEST, math.ceil(round(seconds, 3))))


class QueuedLooks:
    """Counts waiting jobs of tenants.

    Args:
        engine: the database.
        clock: seconds that only grow.
    """

    def __init__(self, engine: Engine, clock: Clock = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._lock = threading.Lock()
        self._looks: dict[int, Look] = {}

    def admit(self, tenant: int, jobs: int, most: int) -> tuple[int, int] | None:
        """Lets jobs in; else says how many wait, and after how many seconds these would be taken.

        Args:
            tenant: the number of one beside the default one.
            jobs: so many.
            most: that may wait.
        """
        look = self._looks.get(tenant)
        if look is None or self._clock() - look.at >= LOOK_EVERY:
            look = self._counted(tenant, jobs, most, look)
        with self._lock:
            look = self._looks.get(tenant, look)
            waiting, now = look.waiting + look.let_in, self._clock()
            if waiting + jobs <= most:
                self._looks[tenant] = Look(look.at, look.waiting, look.let_in + jobs)
                return None
            if look.full_since is None:
                look = Look(look.at, look.waiting, look.let_in, now, waiting - most)
                self._looks[tenant] = look
        return waiting, wait_of(look, jobs, most, now)

    def _counted(self, tenant: int, jobs: int, most: int, before: Look | None) -> Look:
        at = self._clock()
        waiting = in_one_trip(self._engine, lambda connection: _count(connection, tenant, most + jobs + 1))
        is_full = before is not None and before.full_since is not None and waiting >= most
        look = Look(at, waiting)
        if is_full and before is not None:
            look = Look(at, waiting, 0, before.full_since, before.surplus)
        with self._lock:
            self._looks[tenant] = look
        return look


def _count(connection: Connection, tenant: int, most: int) -> int:
    return int(connection.execute(_OF_ONE, {"tenant": tenant, "most": most}).scalar_one())


def of_each(connection: Connection, *, tenants: int, most: int) -> dict[str, tuple[int, int]]:
    """How many jobs wait and run of the first tenants beside the default one, by their names.

    Args:
        tenants: so many of them.
        most: each is counted so far.
    """
    rows = connection.execute(_OF_EACH, {"tenants": tenants, "most": most})
    return {row[0]: (row[1], row[2]) for row in rows}
