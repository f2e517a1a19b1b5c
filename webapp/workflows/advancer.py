"""Moves workflows on, round after round: a worker right after it ended a job of one, and the dispatcher of jobs before each of its looks. Commits.

Where there are no workflows a turn is one look at an empty table of notes, and one at an index of deadlines.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Engine

from webapp.infra.postgres.database_errors import Trouble, is_of_database, trouble_of
from webapp.infra.postgres.engine import in_one_trip, in_transaction
from webapp.workflows import store
from webapp.workflows.advancing import Advance
from webapp.workflows.means import Done, Means, tell

logger = logging.getLogger(__name__)

#: Rounds of one workflow in a row: each takes what was noted meanwhile; then others have their turn.
MOST_ROUNDS: Final = 50
#: Groups with notes that are looked at in one turn, and workflows past their deadline.
BATCH: Final = 500
#: Longest that a turn goes on, seconds: what it has stored wants to be dispatched.
LONGEST_TURN: Final = 0.5
#: Groups that are no workflows of which a process keeps that in mind.
KEPT_IN_MIND: Final = 1_000
#: Before every id.
FIRST: Final = UUID(int=0)
#: Why a workflow is cancelled that did not end in time.
OVERDUE: Final = "its deadline has passed"
#: Troubles that are the database's and not a workflow's.
_OF_THE_SERVER = frozenset(
    {Trouble.AWAY, Trouble.NO_CONNECTION, Trouble.READ_ONLY, Trouble.FULL, Trouble.REFUSED}
)


class Advancer:
    """Moves workflows on.

    Args:
        engine: the database.
        means: what they are moved on with.
        clock: seconds that only grow.
    """

    def __init__(self, engine: Engine, means: Means, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._means = means
        self._clock = clock
        self._others: OrderedDict[UUID, None] = OrderedDict()
        #: The last group that was looked at of those that have notes.
        self._after = FIRST

    def after(self, groups: Iterable[UUID]) -> None:
        """Moves those of these groups on that are workflows, after jobs of theirs ended. What goes wrong is left to the next turn."""
        for group_id in set(groups) - self._others.keys():
            try:
                self.advance(group_id)
            except Exception as error:  # noqa: BLE001 - the job has ended, and its note is there
                logger.warning(
                    "workflow could not be moved on after a job",
                    extra={"workflow_id": str(group_id), "error_type": type(error).__name__},
                )

    def advance(self, workflow_id: UUID, *, looks_at_all: bool = False) -> bool:
        """Moves a workflow on while something of it is noted; False where another session does, or it is none.

        Args:
            looks_at_all: at all of its jobs that run, and not only at those of which something is noted.
        """
        moved = False
        for _ in range(MOST_ROUNDS):
            done = in_transaction(
                self._engine, partial(self._once, workflow_id=workflow_id, looks_at_all=looks_at_all)
            )
            if done is None:
                return moved
            moved = True
            tell(self._means, done)
            if done.has_ended and done.parent_id is not None:
                self.advance(done.parent_id)
            # An end that was noted meanwhile found the workflow locked, and went away: it counts on this look.
            if not self._has_notes(workflow_id):
                break
        return moved

    def _has_notes(self, workflow_id: UUID) -> bool:
        return in_one_trip(self._engine, partial(store.has_notes, workflow_id=workflow_id))

    def _once(self, connection: Connection, workflow_id: UUID, *, looks_at_all: bool) -> Done | None:
        workflow = store.try_lock(connection, workflow_id)
        if workflow is None:
            self._keep_in_mind(connection, workflow_id)
            return None
        return Advance(connection, self._means, workflow).run(looks_at_all=looks_at_all)

    def _keep_in_mind(self, connection: Connection, group_id: UUID) -> None:
        """Notes of a group that is not locked that it is no workflow."""
        if store.find(connection, group_id) is None:
            self._others[group_id] = None
            while len(self._others) > KEPT_IN_MIND:
                self._others.popitem(last=False)

    def turn(self) -> int:
        """Moves workflows on that have notes or are past their deadline; returns how many. Goes on where the last turn ended."""
        is_noted, is_overdue = in_one_trip(self._engine, store.look)
        moved = 0
        end = self._clock() + LONGEST_TURN
        late = in_one_trip(self._engine, partial(store.overdue, limit=BATCH)) if is_overdue else ()
        for workflow_id in late:
            moved += self._guarded(workflow_id, partial(self._cancel_overdue, workflow_id))
        if not is_noted:
            self._after = FIRST
            return moved
        noted = in_one_trip(self._engine, partial(store.noted, after=self._after, limit=BATCH))
        self._after = noted[-1][0] if len(noted) == BATCH else FIRST
        for group_id, is_due in noted:
            if is_due:
                moved += self._guarded(group_id, partial(self.advance, group_id))
            if self._clock() > end:
                self._after = group_id
                break
        return moved

    def _cancel_overdue(self, workflow_id: UUID) -> bool:
        def once(connection: Connection) -> Done | None:
            if store.try_lock(connection, workflow_id) is None:
                return None
            store.ask_cancel(connection, workflow_id, OVERDUE)
            workflow = store.try_lock(connection, workflow_id)
            return None if workflow is None else Advance(connection, self._means, workflow).run()

        done = in_transaction(self._engine, once)
        if done is None:
            return False
        tell(self._means, done)
        logger.warning("workflow is past its deadline", extra={"workflow_id": str(workflow_id)})
        return True

    @staticmethod
    def _guarded(workflow_id: UUID, work: Callable[[], bool]) -> bool:
        """Does it; one workflow that raises costs the others nothing."""
        try:
            return work()
        except Exception as error:
            if is_of_database(error) and trouble_of(error) in _OF_THE_SERVER:
                raise
            logger.exception("workflow could not be moved on", extra={"workflow_id": str(workflow_id)})
            return False
