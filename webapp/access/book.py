"""The keys that each process keeps: all that are live, read anew after a change of any.

A request asks the database for its key only when the last look is older than a second, and then only for the stamp of the last change:
nothing tells a process of a change, so nothing can be missed. A key that is not known is looked for at most ten times a second,
however many are tried.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from webapp.access import store
from webapp.access.errors import KeysUnknown
from webapp.access.model import LiveKey
from webapp.access.secret import apart
from webapp.flow.reach import Reach
from webapp.flow.tenant import DEFAULT
from webapp.infra.background import Clock
from webapp.infra.postgres import database_errors, deadlines
from webapp.infra.postgres.engine import in_one_trip

logger = logging.getLogger(__name__)

#: Keys of this age are looked at anew, seconds. While one request does so, others go by what is known, ...
LOOK_EVERY = 1.0
#: ... up to this age.
LONGEST_AGE = 1.8
#: A key that is not known is looked for where the last look is older, seconds.
LOOK_FOR_UNKNOWN = 0.1
#: How long a look may take, seconds.
LOOK_BUDGET = 0.5
#: How long the keys that are known are good while the database does not answer, seconds. It answers nothing else meanwhile.
GRACE = 60.0
#: So long what is known of tenants is believed, seconds; a tenant gets its first key later than that after it was made.
SURE_FOR = 3.0
#: How long after a look in vain the next one may be, seconds.
REST = 0.25


class KeyBook:
    """Knows the live keys.

    Args:
        engine: the database.
        clock: seconds that only grow.
    """

    def __init__(self, engine: Engine, clock: Clock = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: Mapping[bytes, LiveKey] = {}
        self._stamp: str | None = None
        self.forget()

    def forget(self) -> None:
        """Has the next question read the keys anew, whatever their age."""
        with self._lock:
            self._keys, self._stamp, self._is_away = {}, None, False
            self._guests: frozenset[str] | None = None
            self._asked_at = self._known_at = self._look_at = float("-inf")

    def find(self, digest: bytes) -> LiveKey | None:
        """The key of a secret, by its hash, as known a moment ago; None: none was known."""
        late = self._clock() - self._look_at
        if late >= 0.0:
            self._look(LOOK_EVERY, wait=late >= LONGEST_AGE - LOOK_EVERY)
        return self._known(digest)

    def reach_of_anyone(self) -> Reach:
        """How far those reach of whom no key is asked: all that is the default tenant's."""
        late = self._clock() - self._look_at
        if late >= 0.0:
            self._look(LOOK_EVERY, wait=late >= LONGEST_AGE - LOOK_EVERY)
        guests = self._guests
        return Reach(
            DEFAULT, None, guests or frozenset(), is_alone=guests is not None and not guests and self.is_sure
        )

    @property
    def is_sure(self) -> bool:
        """True if what is known of tenants is so young that one that was made since has no key yet."""
        return self._clock() - self._known_at <= SURE_FOR

    def _known(self, digest: bytes) -> LiveKey | None:
        return self._keys.get(digest) or self._keys.get(apart(digest))

    def find_new(self, digest: bytes) -> LiveKey | None:
        """The same of one that `find` did not know: it may just have been made.

        Raises:
            KeysUnknown: the database does not answer.
        """
        self._look(LOOK_FOR_UNKNOWN, wait=True)
        if self._is_away:
            raise KeysUnknown
        return self._known(digest)

    def _look(self, age: float, *, wait: bool) -> None:
        """Looks at the keys anew, unless that was done a moment ago.

        Args:
            age: what is older is looked at, seconds.
            wait: for another request that looks.
        """
        if not self._lock.acquire(blocking=wait):
            return
        try:
            # What is changed while the question is answered may be missing in the answer, so the age counts from before it.
            asked = self._clock()
            if asked - self._asked_at < (REST if self._is_away else age):
                return
            self._read(asked)
            # A look in vain may have taken its time: those who wait for it do not begin the next one at once.
            self._asked_at = self._clock() if self._is_away else asked
            self._look_at = self._asked_at + (REST if self._is_away else LOOK_EVERY)
        finally:
            self._lock.release()

    def _read(self, asked: float) -> None:
        try:
            with deadlines.within(LOOK_BUDGET):
                in_one_trip(self._engine, self._read_changes)
        except SQLAlchemyError as error:
            if not self._is_away:
                logger.warning("keys cannot be looked at", extra=database_errors.fields_of(error))
            self._is_away = True
            if asked - self._known_at >= GRACE:
                self._keys, self._stamp, self._guests = {}, None, None
            return
        self._is_away, self._known_at = False, asked

    def _read_changes(self, connection: Connection) -> None:
        # The stamp first: keys that come in between are read, and read again at the next look.
        stamp = store.stamp_now(connection)
        if stamp != self._stamp or self._guests is None:
            (self._keys, self._guests), self._stamp = store.known(connection), stamp
