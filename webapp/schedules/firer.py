"""Has schedules fire, turn after turn: what the dispatcher of jobs asks before each of its looks. Commits.

Where there are no schedules a turn is one look at two empty indexes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import repeat, takewhile
from uuid import UUID

from sqlalchemy import Connection, Engine

from webapp.infra.postgres.database_errors import Trouble, is_of_database, trouble_of
from webapp.infra.postgres.engine import in_one_trip, in_transaction
from webapp.schedules import firing, store
from webapp.schedules.firing import PUT_OFF, Done
from webapp.schedules.making import JobMaker
from webapp.schedules.store import Move, Taken
from webapp.schedules.timetable import next_after

logger = logging.getLogger(__name__)

#: Schedules in one transaction, and those of which a time waits that are looked at in a turn.
BATCH = 500
#: Longest that a turn goes on while more is due, seconds: what was fired wants to be dispatched.
LONGEST_TURN = 0.25
#: Schedules whose times are computed anew in one transaction, when the rules of time zones have changed.
RULES_BATCH = 1_000
#: Before every id.
FIRST = UUID(int=0)
#: Troubles that are the database's and not a schedule's.
_OF_THE_SERVER = frozenset(
    {Trouble.AWAY, Trouble.NO_CONNECTION, Trouble.READ_ONLY, Trouble.FULL, Trouble.REFUSED}
)

Take = Callable[[Connection], Sequence[Taken]]
Work = Callable[[Connection, JobMaker, Sequence[Taken]], Done]


class Firer:
    """Fires what is due.

    Args:
        engine: the database.
        maker: makes the jobs.
        clock: seconds that only grow.
    """

    def __init__(self, engine: Engine, maker: JobMaker, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._maker = maker
        self._clock = clock
        #: The last schedule that was looked at of those that wait.
        self._after = FIRST

    def turn(self) -> float | None:
        """Does what is due now; returns the seconds until something may be due, 0 where more is; None: there is nothing to come."""
        found = in_one_trip(self._engine, store.look)
        if found.is_waiting:
            self.release()
        if found.due_in is None:
            return LONGEST_TURN if found.is_waiting else None
        if found.due_in > 0:
            return min(found.due_in, LONGEST_TURN) if found.is_waiting else found.due_in
        end = self._clock() + LONGEST_TURN
        while self.fire(BATCH):
            if self._clock() > end:
                return 0.0
        return LONGEST_TURN if found.is_waiting else self.due_in()

    def due_in(self) -> float | None:
        """Seconds until the first schedule is due; None: none will be."""
        return in_one_trip(self._engine, store.look).due_in

    def fire(self, limit: int = BATCH) -> int:
        """Does what is due of so many schedules at most; returns how many there were."""
        alone = repeat(partial(store.take_due, limit=1), limit)
        return self._guarded(partial(store.take_due, limit=limit), firing.fire_due, alone)

    def release(self, limit: int = BATCH) -> int:
        """Lets waiting times fire whose turn has come, of the next so many schedules; returns of how many."""
        looked = in_one_trip(
            self._engine, lambda connection: store.look_at_waiting(connection, self._after, limit)
        )
        self._after = looked[-1][0] if len(looked) == limit else FIRST
        free = [schedule_id for schedule_id, is_free in looked if is_free]
        if not free:
            return 0
        alone = [partial(store.take_waiting, ids=[one]) for one in free]
        return self._guarded(partial(store.take_waiting, ids=free), firing.release, alone)

    def renew_times(self, limit: int = RULES_BATCH) -> int:
        """Computes the next times anew that went by other rules of time zones; returns how many schedules there were."""

        def renew(connection: Connection) -> int:
            taken = store.take_older(connection, limit)
            store.move(connection, [_renewed(one) for one in taken])
            return len(taken)

        return in_transaction(self._engine, renew)

    def _guarded(self, take: Take, work: Work, alone: Iterable[Take]) -> int:
        """Works on schedules together; where that fails, on each by itself, and puts off those that fail."""
        try:
            return self._worked(take, work)
        except Exception as error:
            if _is_of_the_server(error):
                raise
            logger.warning(
                "schedules could not be worked on together", extra={"error_type": type(error).__name__}
            )
        return sum(takewhile(bool, (self._alone(one, work) for one in alone)))

    def _worked(self, take: Take, work: Work) -> int:
        def once(connection: Connection) -> Done:
            taken = take(connection)
            return work(connection, self._maker, taken) if taken else Done()

        done = in_transaction(self._engine, once)
        firing.tell(self._maker, done)
        return done.schedules

    def _alone(self, take: Take, work: Work) -> int:
        """Works on one schedule; puts it off where that fails."""
        at_hand: list[Taken] = []

        def first(connection: Connection) -> Sequence[Taken]:
            at_hand[:] = take(connection)
            return at_hand

        try:
            return self._worked(first, work)
        except Exception as error:
            if _is_of_the_server(error) or not at_hand:
                raise
            schedule = at_hand[0].schedule
            logger.exception("schedule could not be worked on", extra={"schedule": schedule.name})
            in_transaction(self._engine, lambda connection: store.put_off(connection, schedule.id, PUT_OFF))
            return 1


def _renewed(one: Taken) -> Move:
    schedule, next_at = one.schedule, one.schedule.next_at
    if next_at is not None and next_at > one.now:
        # What is due already fires as it is; no time comes back that was dealt with.
        start = one.now if schedule.last_at is None else max(one.now, schedule.last_at)
        next_at = next_after(schedule.spec.timing, start)
    return Move(schedule.id, next_at, firing.due(schedule, next_at), None, None, schedule.buffered, 0, 0)


def _is_of_the_server(error: Exception) -> bool:
    return is_of_database(error) and trouble_of(error) in _OF_THE_SERVER
