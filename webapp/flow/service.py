"""The front door of flow control: pause and resume queues and tasks, say how they stand, and what was changed. Commits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine

from webapp.audit.model import Act, Event, Named
from webapp.audit.service import AuditRecord
from webapp.flow import key_store, lanes, look_store, store
from webapp.flow.book import LONGEST_AGE, FlowBook
from webapp.flow.errors import (
    NotInOrder,
    OlderRelease,
    Shared,
    StaleVersion,
    TasksOutOfReach,
    UnknownTarget,
    WorkersUnknown,
)
from webapp.flow.limits import QueueLimits
from webapp.flow.model import FlowChange, FlowState, KeyTarget, Kind, Target, is_own
from webapp.flow.reach import Reach
from webapp.infra.postgres.engine import in_one_trip, in_transaction

logger = logging.getLogger(__name__)

#: Longest a claim is on its way that was begun by rules that were still young enough, seconds.
ON_ITS_WAY = 0.25
#: If-Match that every version fits.
ANY_VERSION = "*"


def tag_of(version: int) -> str:
    """The ETag of a version.

    Example:
        >>> tag_of(3)
        '"3"'
    """
    return f'"{version}"'


def fits(expected: str | None, version: int) -> bool:
    """True if a version is among those that If-Match names; None names all.

    Example:
        >>> fits('"1", "2"', 2), fits('"1"', 2), fits(None, 2)
        (True, False, True)
    """
    if expected is None:
        return True
    named = [one.strip() for one in expected.split(",")]
    return ANY_VERSION in named or tag_of(version) in named


class Flow:
    """Pauses and resumes, and answers for it. A queue that a caller does not reach is not there; a task is for all to see.

    Args:
        engine: the database.
        book: of this process.
        known: the names of a kind that there are.
        older_workers: names the live workers that know no limits; None while that cannot be said.
        audit: notes who changes what; None: DJPS itself does.
    """

    def __init__(
        self,
        engine: Engine,
        book: FlowBook,
        known: Callable[[Kind], Iterable[str]],
        older_workers: Callable[[], Sequence[str] | None],
        audit: AuditRecord | None = None,
    ) -> None:
        self._engine = engine
        self._book = book
        self._known = known
        self._older_workers = older_workers
        self._audit = audit or AuditRecord(engine)

    def state(self, target: Target, reach: Reach) -> FlowState:
        """How a target stands.

        Raises:
            UnknownTarget: there is none of this name, or it is not reached.
        """
        return _seen(
            in_one_trip(self._engine, lambda connection: self._found(connection, target, reach)),
            target.kind,
            reach,
        )

    def states(self, kind: Kind, reach: Reach) -> dict[str, FlowState]:
        """How all of a kind stand, by name: those that are known, and those that were ever changed; queues as far as they are reached."""
        changed = in_one_trip(self._engine, lambda connection: store.changed(connection, kind))
        names = sorted({*self._known(kind), *changed})
        return {
            name: _seen(changed.get(name, FlowState(name)), kind, reach)
            for name in names
            if _sees(kind, name, reach)
        }

    def pause(
        self, target: Target, reach: Reach, *, by: str | None, why: str | None, expected: str | None = None
    ) -> FlowState:
        """Pauses a target: from a second after this returns on, none of its jobs starts; those that run go on.

        One that is paused stays as it is, with the first reason.

        Args:
            by: who asks.
            why: kept with the pause and the record.
            expected: versions that may be changed, as in If-Match; None: any.

        Raises:
            UnknownTarget: there is none of this name, or it is not reached.
            TasksOutOfReach: it is a task, and not all queues are reached.
            Shared: tenants share it, and the caller's is not the default one.
            StaleVersion: it has another version by now; nothing was changed.
        """
        return self._turn(target, reach, paused=True, by=by, why=why, expected=expected)

    def resume(
        self, target: Target, reach: Reach, *, by: str | None, why: str | None, expected: str | None = None
    ) -> FlowState:
        """Lets the jobs of a target start again; one that is not paused stays as it is. Arguments and errors as for `pause`."""
        return self._turn(target, reach, paused=False, by=by, why=why, expected=expected)

    def limit(
        self,
        target: Target,
        limits: QueueLimits,
        reach: Reach,
        *,
        by: str | None,
        why: str | None,
        expected: str | None = None,
    ) -> FlowState:
        """Gives a target limits in the place of those it has; `NO_LIMITS` takes them away. Arguments and errors as for `pause`.

        They hold from the return on: no job starts beyond them, whenever it was submitted. What runs goes on, and counts.
        Bounds of submissions hold as soon where there were none, else within a second.

        Raises:
            NotInOrder: its keys shall have an order, and of one several jobs may run at once; nothing was changed.
            OlderRelease: a worker is alive that knows no limits; nothing was changed.
        """
        if limits.hold_jobs:
            self.check_workers()
        work = partial(
            self._limit_once, target=target, limits=limits, reach=reach, by=by, why=why, expected=expected
        )
        before, state = in_transaction(self._engine, work)
        self.note(target, before.limits.document(), limits.document(), by=by, why=why)
        if not before.limits.hold_jobs and limits.hold_jobs:
            self.settle(target)
        elif before.limits.bounds.is_none and not limits.bounds.is_none:
            self.wait_for_books()
        return state

    def check_workers(self) -> None:
        """Sees to it that every worker knows limits.

        Raises:
            OlderRelease: one does not.
            WorkersUnknown: it is not known which there are.
        """
        older = self._older_workers()
        if older is None:
            raise WorkersUnknown
        if older:
            raise OlderRelease(older)

    def note(
        self,
        target: Target | KeyTarget,
        old: Mapping[str, Any],
        new: Mapping[str, Any],
        *,
        by: str | None,
        why: str | None,
    ) -> None:
        """Has this process read the rules anew after a change of limits, and logs it."""
        self._book.forget()
        if old != new:
            logger.warning(
                "limits were changed",
                extra={"target": str(target), "limits": dict(new), "by": by, "why": why},
            )

    def put_on_record(
        self,
        connection: Connection,
        target: Target | KeyTarget,
        old: Mapping[str, Any],
        new: Mapping[str, Any],
        *,
        by: str | None,
        why: str | None,
    ) -> None:
        """Puts a change on record, in its transaction: what was changed, by whom in their words, and who they are."""
        store.note_change(connection, target, who=by, old=old, new=new, why=why)
        details = {"old": dict(old), "new": dict(new)}
        named = Named("flow", str(target))
        self._audit.note(
            connection, Act(Event.FLOW_CHANGE, named, reason=why, on_behalf_of=by, details=details)
        )

    @staticmethod
    def wait_for_books() -> None:
        """Waits until every process goes by what has just been changed."""
        time.sleep(LONGEST_AGE + ON_ITS_WAY)

    def settle(self, target: Target) -> None:
        """Waits until every process goes by new limits, and has what runs by the old ones count."""
        self.wait_for_books()
        queues, tasks = ([target.name], []) if target.kind is Kind.QUEUE else ([], [target.name])
        in_transaction(self._engine, lambda connection: lanes.file_running(connection, queues, tasks))

    def lock(self, connection: Connection, target: Target, reach: Reach) -> FlowState:
        """How a target stands that is to be changed; until the transaction ends no one else changes it, and no job is claimed from its lanes.

        Raises:
            UnknownTarget: there is none of this name, or it is not reached.
            TasksOutOfReach: it is a task, and not all queues are reached.
            Shared: tenants share it, and the caller's is not the default one.
        """
        if target.kind is Kind.TASK and reach.queues is not None:
            raise TasksOutOfReach(target, reach.queues)
        self._found(connection, target, reach)
        if not is_own(target, reach):
            raise Shared(target, reach.home.slug)
        return store.lock(connection, target)

    def _limit_once(
        self,
        connection: Connection,
        *,
        target: Target,
        limits: QueueLimits,
        reach: Reach,
        by: str | None,
        why: str | None,
        expected: str | None,
    ) -> tuple[FlowState, FlowState]:
        """The change and its record; returns how the target stood and stands."""
        before = self.lock(connection, target, reach)
        if not fits(expected, before.version):
            raise StaleVersion(target, expected or "", before.version)
        if limits == before.limits:
            return before, before
        if limits.key_order is not None and (found := key_store.wide(connection, target.name)):
            raise NotInOrder(*found)
        after = store.set_limits(connection, target, limits)
        if limits.bounds != before.limits.bounds:
            look_store.forget(connection, target.name)
        old, new = before.limits.document(), limits.document()
        self.put_on_record(connection, target, old, new, by=by, why=why)
        return before, after

    def changes(
        self, target: str | None, reach: Reach, *, before: int | None, limit: int
    ) -> list[FlowChange]:
        """The changes on record, the newest first; to queues and their keys as far as they are reached, to tasks where everything is.

        Args:
            target: only those of this one, such as `queues/default`.
            before: only those with a smaller id.
        """
        return in_one_trip(
            self._engine,
            lambda connection: store.changes(connection, target, reach, before=before, limit=limit),
        )

    def _turn(
        self,
        target: Target,
        reach: Reach,
        *,
        paused: bool,
        by: str | None,
        why: str | None,
        expected: str | None,
    ) -> FlowState:
        work = partial(
            self._turn_once, target=target, reach=reach, paused=paused, by=by, why=why, expected=expected
        )
        state, is_new = in_transaction(self._engine, work)
        self._book.forget()
        if is_new:
            logger.warning(
                "flow was paused" if paused else "flow was resumed",
                extra={"target": str(target), "by": by, "why": why},
            )
        return state

    def _turn_once(
        self,
        connection: Connection,
        *,
        target: Target,
        reach: Reach,
        paused: bool,
        by: str | None,
        why: str | None,
        expected: str | None,
    ) -> tuple[FlowState, bool]:
        """The change and its record; returns how the target stands, and whether that is new."""
        before = self.lock(connection, target, reach)
        if not fits(expected, before.version):
            raise StaleVersion(target, expected or "", before.version)
        if paused == (before.pause is not None):
            return before, False
        after = store.set_pause(
            connection, target, paused=paused, by=by if paused else None, why=why if paused else None
        )
        old, new = {"paused": not paused}, {"paused": paused}
        self.put_on_record(connection, target, old, new, by=by, why=why)
        return after, True

    def _found(self, connection: Connection, target: Target, reach: Reach) -> FlowState:
        state = store.find(connection, target) if _sees(target.kind, target.name, reach) else None
        if state is not None:
            return state
        known = tuple(name for name in self._known(target.kind) if _sees(target.kind, name, reach))
        if target.name not in known:
            raise UnknownTarget(target, known)
        return FlowState(target.name)


def _sees(kind: Kind, name: str, reach: Reach) -> bool:
    """True if a target may be looked at: a queue that is reached, and every task."""
    return kind is Kind.TASK or reach.has(name)


def _seen(state: FlowState, kind: Kind, reach: Reach) -> FlowState:
    """How a target stands, as a caller sees it: of what tenants share, not who has paused it."""
    return state if is_own(Target(kind, state.name), reach) else state.unsigned()
