"""The read replica: answers lists while its view is young enough; whatever is the matter with it, the primary answers instead.

Its engine is made when the first list is read, in each process for itself. Nothing that it says or does not say is taken for
a word about the primary.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import psycopg2
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from webapp.infra.postgres import deadlines
from webapp.infra.postgres.database_errors import fields_of, trouble_of
from webapp.infra.postgres.engine import Read, engine_options, in_one_trip, watch_idle
from webapp.infra.postgres.staleness import (
    ASK_PRIMARY,
    ASK_REPLICA,
    LASTING,
    PrimarySays,
    Reason,
    ReplicaSays,
    judged,
    reason_of,
    staleness,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: What its connections are called in `pg_stat_activity`.
APPLICATION = "djps-lists"
#: Connections to it that a process keeps open; it may have two more.
POOL_SIZE = 2
#: Longest wait for one of them, seconds; the primary's are free.
POOL_TIMEOUT = 0.2
#: How long it may take to connect to it and to learn how far it is behind, seconds.
ASK_BUDGET = 0.5
#: How long it may take over a list, seconds, ...
READ_BUDGET = 2.2
#: ... and over one statement of it, milliseconds.
STATEMENT_TIMEOUT_MS = 2_000
#: Longest a statement waits for a lock, which replay may hold, milliseconds.
LOCK_TIMEOUT_MS = 100
#: How long the primary's last word of itself is good for, seconds: a replica may be left behind by a promotion.
KNOWN_FOR = 5.0
#: How long it is left alone after it did not answer, seconds; then one request tries.
AWAY_SECONDS = 2.0

_ERRORS = (SQLAlchemyError, psycopg2.Error)
_ASK_REPLICA, _ASK_PRIMARY = text(ASK_REPLICA), text(ASK_PRIMARY)


class Answer(NamedTuple):
    """Who answered a list.

    Args:
        age: how old the replica's view was at most, seconds; None: the primary answered.
        reason: why the primary did.
    """

    age: float | None
    reason: Reason | None = None


class Look(NamedTuple):
    """The replica as a scrape sees it.

    Args:
        is_usable: it may answer lists.
        age: how old its view is at most, seconds; None: not known.
    """

    is_usable: bool
    age: float | None = None


class _Unfit(Exception):
    """The replica must not answer."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Absence:
    """A short memory of a replica that did not answer: others do not wait for it as well, and then one of them tries.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._is_noted = False
        self._until = 0.0

    def lets_try(self) -> bool:
        """True if the replica may be asked."""
        if not self._is_noted:
            return True
        with self._lock:
            now = self._clock()
            if self._is_noted and now < self._until:
                return False
            self._until = now + AWAY_SECONDS
            return True

    def note(self) -> None:
        """It did not answer."""
        with self._lock:
            self._is_noted, self._until = True, self._clock() + AWAY_SECONDS

    def forget(self) -> None:
        """It answered."""
        self._is_noted = False


class ReadReplica:
    """Answers lists, or has the primary answer them.

    Args:
        url: DATABASE_READ_URL.
        primary: the engine of DATABASE_URL.
        bound: seconds that the replica may be behind.
        tell: is told of each list who answered it, in the thread that reads it.
    """

    def __init__(self, url: str, primary: Engine, *, bound: float, tell: Callable[[Answer], None]) -> None:
        self._url = url
        self._primary = primary
        self._bound = bound
        self._tell = tell
        self._lock = threading.Lock()
        self._made: tuple[int, Engine] | None = None
        self._absence = Absence()
        #: What the primary said last, and when.
        self._known: tuple[PrimarySays | None, float] = (None, 0.0)
        #: Why lists are not read from it at the moment; for the log.
        self._state: Reason | None = None

    def up_to(self, age: float) -> Read:
        """A reader that takes the replica's view when it is no older than this and the bound.

        Args:
            age: seconds; below zero the primary answers at once.
        """

        def read(work: Callable[[Connection], T]) -> T:
            reason = Reason.PAGE
            if age >= 0:
                try:
                    found, seen = self._read(work, age)
                except _Unfit as unfit:
                    reason = self._noted(unfit.reason)
                except _ERRORS as error:
                    reason = self._noted(reason_of(trouble_of(error)), error)
                else:
                    self._noted(None)
                    self._tell(Answer(seen))
                    return found
            self._tell(Answer(None, reason))
            return in_one_trip(self._primary, work)

        return read

    def look(self) -> Look:
        """How it is now; a scrape asks, so it is asked whatever is remembered of it."""
        try:
            with deadlines.apart(ASK_BUDGET):
                _, age = in_one_trip(self._engine(), lambda connection: self._age(connection, 0.0))
        except _ERRORS as error:
            self._noted(reason_of(trouble_of(error)), error)
            return Look(is_usable=False)
        self._absence.forget()
        return Look(judged(age, self._bound) is None, age)

    def close(self) -> None:
        """Closes this process's connections to it; the next list makes new ones."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made[1].dispose(close=made[0] == os.getpid())

    def _read(self, work: Callable[[Connection], T], at_most: float) -> tuple[T, float]:
        """What the work came to on the replica, and how old the view was at most when it ended.

        Raises:
            _Unfit: the primary should answer.
            SQLAlchemyError: as above, for there is trouble with the replica.
        """
        if not self._absence.lets_try():
            raise _Unfit(Reason.AWAY)

        def ask_and_work(connection: Connection) -> tuple[T, float]:
            asked_at = time.monotonic()
            says, age = self._age(connection, min(at_most, self._bound))
            reason = judged(age, self._bound, at_most)
            if age is None or reason is not None:
                raise _Unfit(reason or Reason.UNKNOWN)
            with deadlines.apart(READ_BUDGET):
                found = work(connection)
            # Replay may have stood still since it was asked.
            return found, age + (time.monotonic() - asked_at if says.in_recovery else 0.0)

        with deadlines.apart(ASK_BUDGET):
            # Not tried again where replay has ended it: the primary is asked then.
            return in_one_trip(self._engine(), ask_and_work, if_broken=ask_and_work)

    def _age(self, connection: Connection, enough: float) -> tuple[ReplicaSays, float | None]:
        """What the replica says, and how old its view is at most, seconds; None when that is not known.

        The primary is asked now and then who it is, and where its WAL ends, and whenever what is known is not enough: while
        nothing is written the last transaction is old, and whether anything is missing is for the primary to say.
        """
        says = _word_of(connection)
        known, said_at = self._known
        said_age = time.monotonic() - said_at
        age = staleness(says, known, said_age)
        if age is not None and age <= enough and said_age < KNOWN_FOR:
            return says, age
        asked_at = time.monotonic()
        primary = self._ask_primary()
        if primary is None:
            return says, age
        self._known = (primary, asked_at)
        # What was written between the two questions has had time to arrive.
        says = _word_of(connection)
        return says, staleness(says, primary)

    def _ask_primary(self) -> PrimarySays | None:
        try:
            with deadlines.rejoined(ASK_BUDGET):
                return in_one_trip(
                    self._primary, lambda connection: PrimarySays(*connection.execute(_ASK_PRIMARY).one())
                )
        except _ERRORS:
            return None

    def _noted(self, reason: Reason | None, error: BaseException | None = None) -> Reason:
        """Remembers, and logs, how the replica is; returns the reason."""
        if reason is Reason.AWAY:
            # Without an error it was not even asked.
            if error is not None:
                self._absence.note()
        elif reason is not Reason.BUSY:
            self._absence.forget()
        if (reason is None or reason in LASTING) and reason is not self._state:
            self._state = reason
            if reason is None:
                logger.info("lists are read from the replica again")
            else:
                about = fields_of(error) if error is not None else {}
                logger.warning("lists are read from the primary", extra={"reason": reason.value, **about})
        return reason or Reason.UNKNOWN

    def _engine(self) -> Engine:
        """This process's engine; one that was made before a fork belongs to another process."""
        made = self._made
        if made is not None and made[0] == os.getpid():
            return made[1]
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                deadlines.tell_apart()
                self._made = (os.getpid(), _engine_of(self._url))
            return self._made[1]


def _word_of(connection: Connection) -> ReplicaSays:
    return ReplicaSays(*connection.execute(_ASK_REPLICA).one())


def _engine_of(url: str) -> Engine:
    """An engine whose sessions write nothing, wherever the URL leads."""
    options = engine_options(
        APPLICATION,
        pool_size=POOL_SIZE,
        statement_timeout=STATEMENT_TIMEOUT_MS,
        lock_timeout=LOCK_TIMEOUT_MS,
        url=url,
    )
    options["connect_args"]["options"] += " -c default_transaction_read_only=on"
    return watch_idle(create_engine(url, **options | {"pool_timeout": POOL_TIMEOUT}))
