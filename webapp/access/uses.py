"""When keys were last used: kept in memory, and written by a thread, all of a process at once.

A key would be a row that every request waits for, were it written by each. What is lost with a process is at most half a minute's.
"""

from __future__ import annotations

import logging
import threading

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from webapp.access import store
from webapp.infra.background import NeededThread
from webapp.infra.postgres import database_errors, deadlines
from webapp.infra.postgres.engine import in_one_trip

logger = logging.getLogger(__name__)

#: Seconds between two writings.
WRITE_EVERY = 30.0
#: How long one may take, seconds.
WRITE_BUDGET = 2.0


class KeyUses:
    """Notes uses of keys.

    Args:
        engine: the database.
        period: seconds between two writings.
    """

    def __init__(self, engine: Engine, period: float = WRITE_EVERY) -> None:
        self._engine = engine
        self._period = period
        self._lock = threading.Lock()
        self._uses: dict[int, tuple[float, str | None]] = {}
        self._pause = threading.Event()
        self._thread = NeededThread("key-uses", self._write_on)

    def note(self, key_id: int, seconds: float, address: str | None) -> None:
        """Notes that a key was used.

        Args:
            seconds: when, of the epoch.
            address: from where.
        """
        with self._lock:
            self._uses[key_id] = (seconds, address)
            self._thread.ensure()

    def flush(self) -> bool:
        """Writes what was noted since the last time; True if there was something.

        What cannot be written is lost: the next use is noted again.
        """
        with self._lock:
            uses, self._uses = self._uses, {}
        if not uses:
            return False
        try:
            with deadlines.within(WRITE_BUDGET):
                in_one_trip(self._engine, lambda connection: store.note_uses(connection, uses))
        except SQLAlchemyError as error:
            logger.warning("uses of keys could not be written", extra=database_errors.fields_of(error))
        return True

    def _write_on(self) -> None:
        while True:
            self._pause.wait(self._period)
            self.flush()
