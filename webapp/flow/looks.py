"""How queues stand for submissions, in one process: the last look at each that has bounds, and a new one when it is old.

A submission that finds the look older than a second looks anew, one of all processes at a time. What is found is kept in
PostgreSQL, so neither a restart nor an empty Redis changes what holds, and a queue to which no one submits is not looked at.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from webapp.flow import look_store
from webapp.flow.admission import Standing
from webapp.flow.look_store import Known
from webapp.infra.postgres.engine import in_one_trip, in_transaction

logger = logging.getLogger(__name__)

#: A look this old is made anew, seconds; a queue without a bound that needs looks has its bounds read anew.
LONGEST_AGE = 1.0
#: The same where only what was submitted since says that the queue is full, seconds.
LONGEST_AGE_OF_ESTIMATE = 0.25
#: A look this old is not gone by while another process makes a new one, seconds.
OLD = 3.0
#: A look this old is not gone by at all where no new one can be made, seconds: jobs are taken then.
WORTHLESS = 60.0
#: A look takes at most this part of the time.
PART_OF_TIME = 0.1
#: What is stored within this time is noted together, seconds, and so many times are kept.
TOGETHER, MOST_NOTES = 0.05, 1_000
#: How long it is told that a key's wait is not known, seconds.
WAIT_NOT_KNOWN = 10
#: How long what is known of a key that is full is gone by, seconds, and of how many keys.
LONGEST_AGE_OF_KEY, MOST_KEYS = 1.0, 1_000


@dataclass(slots=True)
class _Kept:
    """What this process knows of a queue.

    Args:
        known: what PostgreSQL knew.
        looked_at: when the look was, by this process's clock.
        good_until: when that is read anew.
        created: when this process has stored how many jobs since, by its clock.
    """

    known: Known
    looked_at: float
    good_until: float
    created: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=MOST_NOTES))


class Looks:
    """Knows how queues stand that take submissions up to a bound.

    Args:
        engine: the database.
        clock: seconds that only grow.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._lock = threading.Lock()
        self._noting = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._waits: dict[tuple[str, str], tuple[float, int]] = {}

    def standing(self, queue: str) -> Standing:
        """How a queue stands, by a look that is not old.

        Raises:
            DBAPIError: the database does not answer.
        """
        kept = self._kept.get(queue)
        now = self._clock()
        if kept is None or now >= kept.good_until:
            kept = self._renewed(queue, LONGEST_AGE)
        standing = self._standing(kept)
        if standing.is_estimate and standing.age >= LONGEST_AGE_OF_ESTIMATE:
            standing = self._standing(self._renewed(queue, LONGEST_AGE_OF_ESTIMATE))
        return standing

    @property
    def are_none(self) -> bool:
        """True while no queue is known that has bounds."""
        return not self._kept

    def note(self, queue: str, created: int) -> None:
        """Notes that this process has stored so many jobs of a queue."""
        now = self._clock()
        with self._noting:
            kept = self._kept.get(queue)
            if kept is None:
                return
            if now > kept.good_until + WORTHLESS:
                # It was not asked for since: the queue has no bounds any more.
                del self._kept[queue]
                return
            if kept.created and now - kept.created[-1][0] < TOGETHER:
                at, before = kept.created.pop()
                kept.created.append((at, before + created))
            else:
                kept.created.append((now, created))

    def key_depths(self, bounds: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
        """How many jobs of keys are queued, each counted up to its bound.

        Args:
            bounds: by queue and key.
        """
        return in_one_trip(self._engine, lambda connection: look_store.key_depths(connection, bounds))

    def key_wait(self, queue: str, key: str, most: int) -> int:
        """Seconds until a job of a key that has its `most` jobs would be taken."""
        known_until, seconds = self._waits.get((queue, key), (0.0, 0))
        now = self._clock()
        if now < known_until:
            return seconds

        def ask(connection: Connection) -> int:
            look_store.set_bounds(connection)
            known = look_store.known(connection, queue)
            return look_store.key_wait(connection, queue, key, most, paused=known.paused)

        try:
            seconds = in_transaction(self._engine, ask)
        except SQLAlchemyError as error:
            logger.warning(
                "a key could not be looked at", extra={"queue": queue, "error_type": type(error).__name__}
            )
            seconds = WAIT_NOT_KNOWN
        if len(self._waits) >= MOST_KEYS:
            self._waits.clear()
        self._waits[queue, key] = (now + LONGEST_AGE_OF_KEY, seconds)
        return seconds

    def forget(self) -> None:
        """Has the next questions be answered by what PostgreSQL knows then."""
        with self._lock:
            self._kept.clear()
            self._waits.clear()

    def _standing(self, kept: _Kept) -> Standing:
        with self._noting:
            created = sum(count for at, count in kept.created if at >= kept.looked_at)
        age = max(0.0, self._clock() - kept.looked_at)
        return Standing(kept.known.bounds, kept.known.look, age, created)

    def _renewed(self, queue: str, longest_age: float) -> _Kept:
        """What is known of a queue, by a look that is no older than so many seconds, unless another one is on its way."""
        kept = self._kept.get(queue)
        wait = kept is None or self._clock() - kept.looked_at > OLD
        if not self._lock.acquire(blocking=wait) and kept is not None:
            return kept
        try:
            again = self._kept.get(queue)
            if again is not None and again is not kept:
                return again
            renewed = self._read(queue, longest_age, wait=wait)
            with self._noting:
                if kept is not None:
                    # What was stored before the look is in it.
                    renewed.created.extend(one for one in kept.created if one[0] >= renewed.looked_at)
                self._kept[queue] = renewed
            return renewed
        finally:
            self._lock.release()

    def _read(self, queue: str, longest_age: float, *, wait: bool) -> _Kept:
        asked = self._clock()
        known = in_one_trip(self._engine, lambda connection: look_store.known(connection, queue))
        if _needs_look(known, longest_age):
            try:
                known = in_transaction(
                    self._engine, lambda connection: _look(connection, queue, longest_age, wait=wait)
                )
            except SQLAlchemyError as error:
                # What is known is gone by for a while; where it is the database that is away, the submission will say so.
                logger.warning(
                    "a queue could not be looked at",
                    extra={"queue": queue, "error_type": type(error).__name__},
                )
                if _age(known) > WORTHLESS:
                    known = known._replace(look=None)
                return _Kept(known, asked - _age(known), self._clock() + LONGEST_AGE)
        looked_at = asked - _age(known)
        look = known.look
        pause = max(LONGEST_AGE, look.took / PART_OF_TIME) if look else LONGEST_AGE
        return _Kept(known, looked_at, max(looked_at + pause, asked + LONGEST_AGE_OF_ESTIMATE / 2))


def _age(known: Known) -> float:
    return max(0.0, known.now - known.look.at) if known.look else 0.0


def _needs_look(known: Known, longest_age: float) -> bool:
    if not known.bounds.needs_looks:
        return False
    if known.look is None or known.look.at > known.now:
        return True
    return known.now - known.look.at >= max(longest_age, known.look.took / PART_OF_TIME)


def _look(connection: Connection, queue: str, longest_age: float, *, wait: bool) -> Known:
    """Looks at a queue, unless another process does or just did."""
    look_store.set_bounds(connection)
    is_mine = look_store.lock(connection, queue, wait=wait)
    known = look_store.known(connection, queue)
    if not is_mine or not _needs_look(known, longest_age):
        return known
    return known._replace(look=look_store.look_anew(connection, queue, known))
