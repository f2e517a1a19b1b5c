"""The front door of keys: their own limits, their share of the turns, their pause. Commits."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

from sqlalchemy import Connection, Engine

from webapp.flow import key_store
from webapp.flow.errors import NotInOrder, StaleVersion
from webapp.flow.model import KeyFigures, KeyRank, KeyState, KeyTarget, Kind, RankedKeys, Target
from webapp.flow.reach import Reach
from webapp.flow.service import Flow, fits
from webapp.infra.postgres.engine import in_one_trip, in_transaction

logger = logging.getLogger(__name__)

#: Up to where jobs of a key are counted.
MOST_COUNTED = 10_000
#: Up to where the jobs of a queue are counted that wait to be sent, those that were sent, and those that run, where its keys are ranked.
MOST_RANKED = 50_000


class Keys:
    """Limits and pauses of single keys, and answers for them; of a queue that a caller does not reach there are none.

    Args:
        engine: the database.
        flow: of their queues.
    """

    def __init__(self, engine: Engine, flow: Flow) -> None:
        self._engine = engine
        self._flow = flow

    def figures(self, target: KeyTarget, reach: Reach) -> KeyFigures:
        """How a key stands, and what waits and runs of it.

        Raises:
            UnknownTarget: there is no such queue, or it is not reached.
        """
        self._flow.state(Target(Kind.QUEUE, target.queue), reach)
        kept = target._replace(key=reach.kept(target.key))
        return in_one_trip(
            self._engine,
            lambda connection: KeyFigures(
                key_store.find(connection, kept).told(), *key_store.counts(connection, kept, MOST_COUNTED)
            ),
        )

    def page(self, queue: str, reach: Reach, *, after: str | None, limit: int) -> list[KeyState]:
        """Keys of a queue that have limits of their own, in their order.

        Args:
            after: the last key of the page before.

        Raises:
            UnknownTarget: there is no such queue, or it is not reached.
        """
        self._flow.state(Target(Kind.QUEUE, queue), reach)
        last = None if after is None else reach.kept(after)
        found = in_one_trip(
            self._engine,
            lambda connection: key_store.page(connection, queue, reach, after=last, limit=limit),
        )
        return [one.told() for one in found]

    def ranked(self, queue: str, order: KeyRank, reach: Reach, *, limit: int) -> RankedKeys:
        """The keys of which most waits or runs in a queue, with and without limits of their own; jobs without a key are left out.

        Args:
            order: what comes first.
            limit: most keys.

        Raises:
            UnknownTarget: there is no such queue, or it is not reached.
        """
        self._flow.state(Target(Kind.QUEUE, queue), reach)
        found = in_one_trip(
            self._engine,
            lambda connection: key_store.ranked(
                connection, queue, order, reach, limit=limit, most=MOST_RANKED
            ),
        )
        return found._replace(keys=[one._replace(state=one.state.told()) for one in found.keys])

    def put(
        self, wanted: KeyState, reach: Reach, *, by: str | None, why: str | None, expected: str | None
    ) -> KeyState:
        """Gives a key limits in the place of those it has, and has its queue's keys take turns.

        They hold from the return on, for whatever was submitted: of a key that is paused nothing starts.

        Args:
            wanted: of a pause only that there is one counts.
            by: who asks.
            why: kept with a pause and the record.
            expected: versions that may be changed, as in If-Match; None: any.

        Raises:
            UnknownTarget: there is no such queue, or it is not reached.
            StaleVersion: the key has another version by now; nothing was changed.
            NotInOrder: more than one of its jobs would run at once, and its queue's keys have an order; nothing was changed.
            OlderRelease: a worker is alive that knows no limits; nothing was changed.
        """
        return self._change(wanted, reach, by=by, why=why, expected=expected, forget=False)

    def forget(
        self, target: KeyTarget, reach: Reach, *, by: str | None, why: str | None, expected: str | None
    ) -> KeyState:
        """Makes a key like every key of its queue. Arguments and errors as for `put`."""
        return self._change(KeyState(*target), reach, by=by, why=why, expected=expected, forget=True)

    def _change(
        self,
        wanted: KeyState,
        reach: Reach,
        *,
        by: str | None,
        why: str | None,
        expected: str | None,
        forget: bool,
    ) -> KeyState:
        queue = Target(Kind.QUEUE, wanted.queue)
        if not forget:
            self._flow.check_workers()
        work = partial(
            self._change_once,
            wanted=wanted,
            reach=reach,
            by=by,
            why=why,
            expected=expected,
            forget=forget,
        )
        before, after = in_transaction(self._engine, work)
        target = KeyTarget(wanted.queue, wanted.key)
        self._flow.note(target, before.document(), after.document(), by=by, why=why)
        if not forget and (before.version == 0 or (before.pause is None) != (after.pause is None)):
            # Its queue may have had no limits before, and what was claimed a moment ago has begun by then.
            self._flow.settle(queue)
        return after.told()

    def _change_once(
        self,
        connection: Connection,
        *,
        wanted: KeyState,
        reach: Reach,
        by: str | None,
        why: str | None,
        expected: str | None,
        forget: bool,
    ) -> tuple[KeyState, KeyState]:
        """The change and its record; returns how the key stood and stands."""
        target = KeyTarget(wanted.queue, wanted.key)
        queue = self._flow.lock(connection, Target(Kind.QUEUE, wanted.queue), reach)
        kept = replace(wanted, key=reach.kept(wanted.key))
        before = key_store.find(connection, KeyTarget(kept.queue, kept.key))
        if not fits(expected, before.version):
            raise StaleVersion(target, expected or "", before.version)
        if wanted.document() == before.document() and forget == (before.version == 0):
            return before, before
        if queue.limits.key_order is not None and (wanted.concurrency or 1) > 1:
            raise NotInOrder(target, wanted.concurrency or 1)
        if forget:
            after = key_store.forget(connection, KeyTarget(kept.queue, kept.key))
        else:
            after = key_store.put(connection, kept, by=by, why=why)
        key_store.note_queue(connection, wanted.queue, queue.limits)
        self._flow.put_on_record(connection, target, before.document(), after.document(), by=by, why=why)
        return before, after
