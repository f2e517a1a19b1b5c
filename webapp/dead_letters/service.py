"""The front door of the dead letter queue: look, group, requeue, discard. Commits.

A million dead letters may match, so they are dealt with in batches, each a transaction of its own, for a bounded time;
the caller sends the same request again for the rest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, Engine

from webapp.audit.model import Event
from webapp.audit.service import AuditRecord
from webapp.dead_letters import store, tallies
from webapp.dead_letters.model import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetterState,
    Group,
    Report,
    Resolved,
    ResolveRequest,
    act_of,
)
from webapp.dead_letters.tallies import Hour
from webapp.flow.reach import Reach
from webapp.infra.postgres.engine import Read, in_one_trip, in_transaction
from webapp.infra.telemetry import metrics
from webapp.jobs import pages
from webapp.jobs.model import JobRow

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Dead letters dealt with in one transaction.
BATCH = 1_000
#: How long one request goes on beginning batches, seconds.
WINDOW = 8.0


class DeadLetters:
    """Looks at dead letters, and deals with them: those of the queues that a caller reaches.

    Args:
        engine: the database.
        clock: seconds that only grow.
        audit: notes who deals with them; None: DJPS itself does.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], float] = time.monotonic,
        audit: AuditRecord | None = None,
    ) -> None:
        self._engine = engine
        self._audit = audit or AuditRecord(engine)
        self._clock = clock

    def jobs(
        self,
        wanted: DeadLetterFilter,
        reach: Reach,
        *,
        limit: int,
        offset: int,
        large: Collection[str] = pages.LARGE,
        read: Read | None = None,
    ) -> tuple[list[JobRow], bool]:
        """The jobs in the dead letter queue, the newest first, as many as fit into a page; and whether there may be more.

        Args:
            read: reads them; None: from the primary.
        """
        within = wanted.within(reach)
        return self._read(
            read, lambda connection: store.jobs(connection, within, limit=limit, offset=offset, large=large)
        )

    def page(
        self,
        wanted: DeadLetterFilter,
        reach: Reach,
        *,
        limit: int,
        before: int | None,
        read: Read | None = None,
    ) -> tuple[list[DeadLetter], int]:
        """A page of dead letters from the newest on, and how many match in all.

        Args:
            read: reads them; None: from the primary.
        """
        within = wanted.within(reach)
        return self._read(
            read,
            lambda connection: (
                store.page(connection, within, limit=limit, before=before),
                store.count(connection, within),
            ),
        )

    def groups(
        self, wanted: DeadLetterFilter, reach: Reach, *, limit: int, read: Read | None = None
    ) -> list[Group]:
        """Dead letters of the same error, the largest group first.

        Args:
            read: reads them; None: from the primary.
        """
        within = wanted.within(reach)
        return self._read(read, lambda connection: store.groups(connection, within, limit=limit))

    def history(
        self, wanted: DeadLetterFilter, reach: Reach, *, read: Read | None = None
    ) -> tuple[int, list[Hour]]:
        """How many open letters match, and how many came and went in each hour of the last day.

        Args:
            wanted: what makes letters alike, and nothing else.
            read: reads them; None: from the primary.
        """
        within = wanted.within(reach)

        def look(connection: Connection) -> tuple[int, list[Hour]]:
            found = tallies.history(connection, within)
            return tallies.total(connection, within), tallies.each_hour(found, datetime.now(UTC))

        return self._read(read, look)

    def _read(self, read: Read | None, work: Callable[[Connection], T]) -> T:
        return in_one_trip(self._engine, work) if read is None else read(work)

    def requeue(self, request: ResolveRequest, reach: Reach) -> Report:
        """Queues the jobs of open dead letters again; their attempts are kept, the budget of retries is fresh.

        Their messages are sent by the dispatcher as they become due.
        """

        def batch(
            wanted: ResolveRequest, limit: int, last: datetime | None, connection: Connection
        ) -> Resolved:
            first = wanted.start_at if last is None else last + timedelta(seconds=wanted.gap)
            return store.requeue(connection, wanted, limit=limit, first=first)

        report = self._resolve(request, reach, batch, Event.DLQ_REQUEUE, "dead letters were requeued")
        metrics.jobs_requeued.inc(report.changed)
        if report.last_run_at is None or request.rate is None:
            return report
        return replace(report, next_start_at=report.last_run_at + timedelta(seconds=request.gap))

    def discard(self, request: ResolveRequest, reach: Reach) -> Report:
        """Puts open dead letters aside; their jobs stay failed, for final rows never change."""

        def batch(
            wanted: ResolveRequest, limit: int, _last: datetime | None, connection: Connection
        ) -> Resolved:
            return store.discard(connection, wanted, limit=limit)

        return self._resolve(request, reach, batch, Event.DLQ_DISCARD, "dead letters were discarded")

    def _resolve(
        self,
        request: ResolveRequest,
        reach: Reach,
        batch: Callable[[ResolveRequest, int, datetime | None, Connection], Resolved],
        event: Event,
        done: str,
    ) -> Report:
        """Deals with what matches now, batch after batch. Each batch is a transaction, which has its line in the record.

        Args:
            batch: deals with so many; it is told when the last job of the batch before is due.
            event: what goes on record.
            done: what is logged.
        """
        request = replace(request, wanted=replace(request.wanted.within(reach), state=DeadLetterState.OPEN))
        matched = in_one_trip(self._engine, lambda connection: store.count(connection, request.wanted))
        if request.dry_run:
            return Report(matched, 0, more=False)

        def once(connection: Connection, *, limit: int, last: datetime | None) -> Resolved:
            resolved = batch(request, limit, last, connection)
            if resolved.count:
                self._audit.note(connection, act_of(event, request, matched, resolved.count))
            return resolved

        end = self._clock() + WINDOW
        changed, last = 0, None
        # What dies meanwhile is left alone: a job that fails at once would be requeued again and again.
        while changed < matched and (changed == 0 or self._clock() < end):
            limit = min(BATCH, matched - changed)
            resolved = in_transaction(self._engine, partial(once, limit=limit, last=last))
            changed += resolved.count
            last = resolved.last_run_at or last
            if resolved.count == 0:
                break
        if changed:
            logger.warning(done, extra={"letters": changed, "by": request.by, "why": request.why})
        return Report(matched, changed, more=changed < matched, last_run_at=last)
