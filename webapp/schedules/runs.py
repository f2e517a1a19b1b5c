"""Runs of schedules that someone asks for: one now, and times that are filled in later. Commits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from sqlalchemy import Connection, Engine

from webapp.audit.model import Act, Event, Named
from webapp.audit.service import AuditRecord
from webapp.flow.reach import Reach
from webapp.infra.jsontext import iso
from webapp.infra.postgres.engine import in_transaction
from webapp.schedules import firing, listing, store
from webapp.schedules.decisions import Standing, decide_now
from webapp.schedules.errors import FieldRefused, FiringsPruned, UnknownSchedule
from webapp.schedules.firing import Done, Plan
from webapp.schedules.making import JobMaker
from webapp.schedules.model import Firing, FiringRow, Kind, Outcome, Overlap
from webapp.schedules.store import Taken
from webapp.schedules.timetable import between

logger = logging.getLogger(__name__)

#: Most times that one request fills in, and how many of them in a transaction.
MOST_TIMES, BATCH = 10_000, 250
#: Seconds after which a request leaves the rest to the next one.
WINDOW = 2.5


@dataclass(frozen=True, slots=True)
class Backfill:
    """Which times are to be filled in.

    Args:
        first, last: from when until when, both included.
        again: also those that have fired.
        rate: so many jobs become due in a second; None: all at once.
        dry_run: says what would be done, and does nothing.
        by, why: who asks, and why, for the record.
    """

    first: datetime
    last: datetime
    again: bool = False
    rate: float | None = None
    dry_run: bool = False
    by: str | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Filled:
    """What was filled in.

    Args:
        matched: times that there are.
        fired: those whose job was stored now; with `dry_run` those whose job would be.
        existing: those that had fired, or wait for their turn.
        refused: those whose job could not be stored.
        next_from: where the next request goes on; None: there is no more.
    """

    matched: int = 0
    fired: int = 0
    existing: int = 0
    refused: int = 0
    next_from: datetime | None = None

    @property
    def more(self) -> bool:
        """True if another request has to go on."""
        return self.next_from is not None


class Runs:
    """Fires by hand. What a caller does not reach is not there.

    Args:
        engine: the database.
        maker: makes the jobs.
        audit: notes who asks.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        engine: Engine,
        maker: JobMaker,
        audit: AuditRecord | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._maker = maker
        self._audit = audit or AuditRecord(engine)
        self._clock = clock

    def run(
        self, name: str, reach: Reach, *, overlap: Overlap | None, by: str | None, why: str | None
    ) -> FiringRow:
        """Has a schedule fire now, paused or not; returns what became of it.

        Args:
            overlap: in the place of the schedule's own, for this run.

        Raises:
            UnknownSchedule: there is none of this name within reach.
        """
        asked: list[datetime] = []

        def once(connection: Connection) -> tuple[FiringRow, Done]:
            found = _locked(connection, name, reach)
            # Where the answer to a first try was lost, its firing is found again.
            asked.append(found.now)
            spec = found.schedule.spec
            schedule = replace(found.schedule, spec=replace(spec, overlap=overlap or spec.overlap))
            still_open = store.open_jobs(connection, [schedule.open_job_id])
            standing = Standing(found.now, is_open=bool(still_open), buffered=schedule.buffered)
            decision = decide_now(schedule.spec, standing, asked[0])
            plan = replace(Plan.of(schedule, decision), next_at=schedule.next_at, newest=None)
            done = firing.carry_out(connection, self._maker, [plan])
            if done.entries:
                self._note(connection, Event.SCHEDULE_RUN, name, by=by, why=why)
            (row,) = listing.firings(connection, schedule.id, outcome=None, before=(asked[0], 1), limit=1)
            return row, done

        row, done = in_transaction(self._engine, once)
        firing.tell(self._maker, done)
        return row

    def backfill(self, name: str, wanted: Backfill, reach: Reach) -> Filled:
        """Fires times that have passed, each once, however often it is asked.

        Args:
            wanted: which times; those that have fired are left alone unless it says again.

        Raises:
            UnknownSchedule: there is none of this name within reach.
            FieldRefused: the times have not passed, or it is not known any more what was fired.
        """
        end = self._clock() + WINDOW
        filled = self._step(name, wanted, reach, 0)
        while filled.more and not wanted.dry_run and self._clock() < end and filled.matched < MOST_TIMES:
            following = replace(wanted, first=filled.next_from or wanted.first)
            step = self._step(name, following, reach, filled.matched)
            filled = Filled(
                filled.matched + step.matched,
                filled.fired + step.fired,
                filled.existing + step.existing,
                filled.refused + step.refused,
                step.next_from,
            )
        if filled.fired and not wanted.dry_run:
            logger.warning(
                "schedule was filled in",
                extra={"schedule": name, "jobs": filled.fired, "by": wanted.by, "why": wanted.why},
            )
        return filled

    def _step(self, name: str, wanted: Backfill, reach: Reach, before: int) -> Filled:
        """Fires the first of the times, in one transaction.

        Args:
            before: times that this request has dealt with.
        """
        most = MOST_TIMES if wanted.dry_run else BATCH

        def once(connection: Connection) -> tuple[Filled, Done]:
            found = _locked(connection, name, reach)
            _check(found, wanted)
            times = list(islice(between(found.schedule.spec.timing, wanted.first, wanted.last), most + 1))
            next_from = times[most] if len(times) > most else None
            times = times[:most]
            known = listing.fired_among(connection, found.schedule.id, times)
            has_fired = {at for at, (_, is_so) in known.items() if is_so}
            fresh = times if wanted.again else [at for at in times if at not in has_fired]
            if wanted.dry_run:
                existing = len(times) - len(fresh)
                return Filled(len(times), len(fresh), existing, 0, next_from), Done()
            plans = _plans(found, wanted, times, fresh, known if wanted.again else {}, before=before)
            done = Done()
            for plan in plans:
                part = firing.carry_out(connection, self._maker, [plan], fills=True)
                done = Done([*done.entries, *part.entries], [*done.jobs, *part.jobs])
            fired = sum(one.firing.outcome is Outcome.FIRED for one in done.entries)
            refused = sum(one.firing.outcome is Outcome.REFUSED for one in done.entries)
            if fired:
                self._note(
                    connection,
                    Event.SCHEDULE_BACKFILL,
                    name,
                    by=wanted.by,
                    why=wanted.why,
                    matched=len(times),
                    changed=fired,
                    first=iso(times[0]),
                    last=iso(times[-1]),
                )
            existing = len(times) - len(done.entries)
            return Filled(len(times), fired, existing, refused, next_from), done

        filled, done = in_transaction(self._engine, once)
        firing.tell(self._maker, done)
        return filled

    def _note(
        self,
        connection: Connection,
        event: Event,
        name: str,
        *,
        by: str | None,
        why: str | None,
        matched: int | None = None,
        changed: int | None = None,
        **details: str,
    ) -> None:
        act = Act(
            event,
            Named("schedule", name),
            matched=matched,
            changed=changed,
            reason=why,
            on_behalf_of=by,
            details=details,
        )
        self._audit.note(connection, act)


def _locked(connection: Connection, name: str, reach: Reach) -> Taken:
    listing.lock(connection, name)
    found = listing.find(connection, name, reach)
    if found is None:
        raise UnknownSchedule(name)
    return found


def _check(found: Taken, wanted: Backfill) -> None:
    schedule = found.schedule
    if wanted.last > found.now:
        raise FieldRefused("to", f"must not be after {iso(found.now)}: it has not come yet", iso(wanted.last))
    if schedule.pruned_until is not None and wanted.first <= schedule.pruned_until and not wanted.again:
        raise FiringsPruned(wanted.first, schedule.pruned_until)


def _plans(
    found: Taken,
    wanted: Backfill,
    times: Sequence[datetime],
    fresh: Sequence[datetime],
    rounds: dict[datetime, tuple[int, bool]],
    *,
    before: int,
) -> list[Plan]:
    """What is fired, a plan for each round: the first, and the next one of each time that is fired again."""
    schedule = found.schedule
    numbers = {at: number for number, at in enumerate(times, start=before)}
    by_round: dict[int, list[datetime]] = {}
    for at in fresh:
        last, has_fired = rounds.get(at, (0, False))
        by_round.setdefault(last + 1 if has_fired else last, []).append(at)
    return [
        Plan(
            schedule,
            [Firing(at, Kind.BACKFILL, Outcome.FIRED) for at in ats],
            schedule.next_at,
            round=number,
            run_ats={}
            if wanted.rate is None
            else {at: found.now + timedelta(seconds=numbers[at] / wanted.rate) for at in ats},
        )
        for number, ats in by_round.items()
    ]
