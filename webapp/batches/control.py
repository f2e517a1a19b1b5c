"""What is done to batches as a whole: cancels them, queues their failed members again, closes those that were open for too long. Commits.

A batch may have a million members, so a request does a first portion, and a sweep the rest: what is asked is kept with the batch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine

from webapp.audit.model import Act, Event, Named
from webapp.audit.service import AuditRecord
from webapp.batches import control_store as statements
from webapp.batches import course, store
from webapp.batches.control_store import Cancelled, Retried
from webapp.batches.course import CallbackTerms, Followed
from webapp.batches.errors import BatchEnded
from webapp.batches.model import FINAL, BatchRow, Status
from webapp.batches.service import Batches
from webapp.flow.book import FlowBook
from webapp.flow.reach import Reach
from webapp.infra.postgres.engine import in_one_trip, in_transaction
from webapp.infra.telemetry import metrics
from webapp.jobs import control

logger = logging.getLogger(__name__)

#: Members that a request deals with itself.
AT_ONCE = 1_000
#: Members in a transaction of the sweep.
PORTION = 5_000
#: Members that are looked at in one transaction for those that have failed: in a request, and in the sweep.
LOOKED_AT_ONCE, LOOKED_AT = 10_000, 20_000
#: How long the sweep goes on with each kind of work, seconds.
WINDOW = 0.4
#: Batches that are read at once.
BATCH = 100
#: Why a batch is closed that was open for as long as it may.
TOO_LONG = "it was open for as long as its open_for says"


class Cancelling(NamedTuple):
    """What became of the request to cancel a batch; counts are of what the request itself has done."""

    batch: BatchRow
    cancelled: int
    asked: int
    more: bool


class Retrying(NamedTuple):
    """What became of the request to queue failed members again."""

    batch: BatchRow
    requeued: int
    more: bool


class Control:
    """Steers the batches that a caller reaches.

    Args:
        engine: the database.
        batches: looks them up.
        audit: notes who steers them.
    """

    def __init__(self, engine: Engine, batches: Batches, keeper: Keeper, audit: AuditRecord) -> None:
        self._engine = engine
        self._batches = batches
        self._keeper = keeper
        self._audit = audit

    def cancel(self, batch_id: UUID, reach: Reach, reason: str | None = None) -> Cancelling:
        """Closes a batch, cancels members that wait and asks those that run to stop: a first portion now, the rest by the sweep.

        Raises:
            UnknownBatch, BatchGone: there is none within reach.
            BatchEnded: it is over, and was not cancelled.
        """
        found = self._batches.get(batch_id, reach)
        if found.status in FINAL:
            if found.status is not Status.CANCELLED:
                raise BatchEnded(batch_id, found.status.value)
            return Cancelling(found, 0, 0, more=False)
        why = reason or control.REQUESTED

        def ask(connection: Connection) -> Followed:
            if not statements.ask_cancel(connection, batch_id, why):
                return Followed()
            self._audit.note(
                connection, Act(Event.BATCH_CANCEL, Named("batch", str(batch_id)), reason=reason)
            )
            return self._keeper.judged(connection, [batch_id])

        course.tell(in_transaction(self._engine, ask))
        done = self._keeper.cancel_portion(batch_id, why, AT_ONCE)
        return Cancelling(self._batches.get(batch_id, reach), done.cancelled, done.asked, done.more)

    def retry(self, batch_id: UUID, reach: Reach, reason: str | None = None) -> Retrying:
        """Queues the members again that have failed by now: a first portion at once, the rest by the sweep.

        Raises:
            UnknownBatch, BatchGone: there is none within reach.
        """
        self._batches.get(batch_id, reach)

        def once(connection: Connection) -> tuple[Retried, Followed]:
            statements.ask_retry(connection, batch_id)
            done, followed = self._keeper.retried(connection, batch_id, LOOKED_AT_ONCE, why=reason)
            act = Act(Event.BATCH_RETRY, Named("batch", str(batch_id)), changed=done.requeued, reason=reason)
            self._audit.note(connection, act)
            return done, followed

        done, followed = in_transaction(self._engine, once)
        course.tell(followed)
        metrics.jobs_requeued.inc(done.requeued)
        return Retrying(self._batches.get(batch_id, reach), done.requeued, done.more)


class Keeper:
    """Goes on with what was asked of batches; what the sweep calls, for all tenants.

    Args:
        engine: the database.
        book: knows which queues and tasks have limits.
        callbacks: how callbacks are stored.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        engine: Engine,
        book: FlowBook,
        callbacks: CallbackTerms,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._book = book
        self._callbacks = callbacks
        self._clock = clock

    def judged(self, connection: Connection, ids: Sequence[UUID]) -> Followed:
        """Does what follows for batches that the transaction has locked; `course.tell` counts it after the commit."""
        return course.judge(connection, ids, self._book.rules(), self._callbacks)

    def close_late(self) -> int:
        """Closes batches that were open for as long as they may; returns how many."""

        def once(connection: Connection) -> tuple[int, Followed]:
            ids = store.close_late(connection, TOO_LONG, BATCH)
            return len(ids), self.judged(connection, ids)

        closed, followed = in_transaction(self._engine, once)
        course.tell(followed)
        if closed:
            logger.warning(
                "batches were open for as long as they may, and are closed", extra={"batches": closed}
            )
        return closed

    def cancel_portion(self, batch_id: UUID, reason: str, limit: int) -> Cancelled:
        """Cancels some members of a batch that is being cancelled."""

        def once(connection: Connection) -> tuple[Cancelled, Followed]:
            done = statements.cancel_members(connection, batch_id, reason, limit)
            return done, self.judged(connection, done.children)

        done, followed = in_transaction(self._engine, once)
        course.tell(followed)
        metrics.jobs_cancelled.inc(done.cancelled)
        return done

    def go_on_cancelling(self) -> int:
        """Cancels members of batches that are being cancelled, for a bounded time; returns how many."""
        end, after, total = self._clock() + WINDOW, statements.FIRST, 0
        while found := in_one_trip(self._engine, partial(statements.to_cancel, after=after, limit=BATCH)):
            for batch_id, reason in found:
                after = batch_id
                while True:
                    done = self.cancel_portion(batch_id, reason, PORTION)
                    total += done.cancelled
                    if self._clock() > end:
                        return total
                    if not done.more:
                        break
        return total

    def retried(
        self, connection: Connection, batch_id: UUID, limit: int, *, why: str | None = None
    ) -> tuple[Retried, Followed]:
        """Queues some failed members of a batch again; with the last of them it is judged, which was put off meanwhile."""
        done = statements.retry_members(connection, batch_id, limit, why=why)
        return done, self.judged(connection, [batch_id]) if done.is_last else Followed()

    def go_on_retrying(self) -> int:
        """Queues failed members again of batches of which that was asked, for a bounded time; returns how many."""
        end, after, total = self._clock() + WINDOW, statements.FIRST, 0
        while found := in_one_trip(self._engine, partial(statements.to_retry, after=after, limit=BATCH)):
            for batch_id in found:
                after = batch_id
                while True:
                    retry = partial(self.retried, batch_id=batch_id, limit=LOOKED_AT)
                    done, followed = in_transaction(self._engine, retry)
                    course.tell(followed)
                    metrics.jobs_requeued.inc(done.requeued)
                    total += done.requeued
                    if self._clock() > end:
                        return total
                    if not done.more:
                        break
        return total
