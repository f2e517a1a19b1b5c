"""The front door of the dead letter queue: look, group, requeue, discard. Commits.

What matches may be a million letters, so it is dealt with in batches, each a transaction of its own, for a bounded time;
whoever asked sends the same request again for the rest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine

from webapp.dead_letters import store as dead_letters
from webapp.dead_letters.store import Group, Letter, LetterFilter, LetterState, Resolved
from webapp.infra.postgres.engine import in_one_trip
from webapp.infra.telemetry import metrics
from webapp.jobs import pages
from webapp.jobs.store import JobRow

logger = logging.getLogger(__name__)

#: Letters dealt with in one transaction.
BATCH = 1_000
#: How long one request goes on beginning batches, seconds.
WINDOW = 8.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What should become of the letters that match.

    Args:
        wanted: which.
        dry_run: only count them.
        rate: jobs that become due in a second; None: all at once.
        start_at: when the first is due; None: now.
        by: who asks.
        why: why.
    """

    wanted: LetterFilter
    dry_run: bool = False
    rate: float | None = None
    start_at: datetime | None = None
    by: str | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What became of them.

    Args:
        matched: letters that matched when the request came.
        changed: letters that were dealt with.
        more: whether the same request should be sent again to deal with the rest; never after a dry run.
        last_run_at: when the last requeued job is due.
        next_start_at: the `start_at` with which the same request goes on at the same rate.
    """

    matched: int
    changed: int
    more: bool
    last_run_at: datetime | None = None
    next_start_at: datetime | None = None


class Undertaker:
    """Deals with dead letters.

    Args:
        engine: the database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def jobs(
        self, wanted: LetterFilter, *, limit: int, offset: int, large: Collection[str] = pages.LARGE
    ) -> tuple[list[JobRow], bool]:
        """The jobs in the dead letter queue, the newest first, as many as fit into a page; and whether there may be more."""
        return in_one_trip(
            self._engine,
            lambda connection: dead_letters.jobs(connection, wanted, limit=limit, offset=offset, large=large),
        )

    def letters(self, wanted: LetterFilter, *, limit: int, before: int | None) -> tuple[list[Letter], int]:
        """A page of letters from the newest on, and how many match in all."""
        return in_one_trip(
            self._engine,
            lambda connection: (
                dead_letters.letters(connection, wanted, limit=limit, before=before),
                dead_letters.count(connection, wanted),
            ),
        )

    def groups(self, wanted: LetterFilter, *, limit: int) -> list[Group]:
        """Letters that died of the same, the largest group first."""
        return in_one_trip(
            self._engine, lambda connection: dead_letters.groups(connection, wanted, limit=limit)
        )

    def requeue(self, wish: Wish) -> Report:
        """Queues the jobs of open letters once more; attempts and letters are kept, the budget of retries is fresh.

        Their messages are sent by the dispatcher as they become due.
        """
        gap = 0.0 if wish.rate is None else 1.0 / wish.rate

        def batch(
            connection: Connection, wanted: LetterFilter, limit: int, last: datetime | None
        ) -> Resolved:
            first = wish.start_at if last is None else last + timedelta(seconds=gap)
            return dead_letters.requeue(
                connection, wanted, limit=limit, gap=gap, first=first, by=wish.by, why=wish.why
            )

        report = self._resolve(wish, batch, "dead letters were requeued")
        metrics.jobs_requeued.inc(report.changed)
        if report.last_run_at is None or wish.rate is None:
            return report
        return replace(report, next_start_at=report.last_run_at + timedelta(seconds=gap))

    def discard(self, wish: Wish) -> Report:
        """Puts open letters aside; their jobs stay failed, for final rows never change."""

        def batch(
            connection: Connection, wanted: LetterFilter, limit: int, last: datetime | None
        ) -> Resolved:
            return dead_letters.discard(connection, wanted, limit=limit, by=wish.by, why=wish.why)

        return self._resolve(wish, batch, "dead letters were discarded")

    def _resolve(
        self,
        wish: Wish,
        batch: Callable[[Connection, LetterFilter, int, datetime | None], Resolved],
        done: str,
    ) -> Report:
        wanted = replace(wish.wanted, state=LetterState.OPEN)
        matched = in_one_trip(self._engine, lambda connection: dead_letters.count(connection, wanted))
        if wish.dry_run:
            return Report(matched, 0, more=False)
        end = time.monotonic() + WINDOW
        changed, last = 0, None
        # What dies meanwhile is left alone: a job that fails at once would be requeued again and again.
        while changed < matched and (changed == 0 or time.monotonic() < end):
            limit = min(BATCH, matched - changed)
            with self._engine.begin() as connection:
                resolved = batch(connection, wanted, limit, last)
            changed += resolved.count
            last = resolved.last_run_at or last
            if resolved.count == 0:
                break
        if changed:
            logger.warning(done, extra={"letters": changed, "by": wish.by, "why": wish.why})
        return Report(matched, changed, more=changed < matched, last_run_at=last)
