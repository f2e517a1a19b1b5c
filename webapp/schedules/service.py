"""The front door of schedules: make, change, delete, pause and resume them, and look at them. Commits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Connection, Engine
from uuid_utils.compat import uuid7

from webapp.audit.model import Act, Event, Named
from webapp.audit.service import AuditRecord
from webapp.flow.reach import EVERYTHING, Reach
from webapp.flow.service import fits
from webapp.infra.postgres.engine import in_one_trip, in_transaction
from webapp.jobs.unseen import check_reached
from webapp.schedules import firing, listing, store
from webapp.schedules.course import first_times, is_due, times_to_come
from webapp.schedules.errors import (
    NameTaken,
    ScheduleExists,
    ScheduleMissing,
    StaleSchedule,
    UnknownSchedule,
)
from webapp.schedules.explain import Explanation, Situation, explain
from webapp.schedules.firing import Done
from webapp.schedules.making import JobMaker
from webapp.schedules.model import FiringRow, Outcome, Schedule, Spec, State, Timing, Version
from webapp.schedules.store import Taken

logger = logging.getLogger(__name__)

#: Times before and after that are shown with a schedule.
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Shown:
    """A schedule, with its next times and its last firings.

    Args:
        now: when it was looked at.
    """

    schedule: Schedule
    now: datetime
    upcoming: list[datetime]
    last: list[FiringRow]


class Put(NamedTuple):
    """What a schedule is after it was put.

    Args:
        is_new: there was none before.
        is_changed: it has a new version.
    """

    shown: Shown
    is_new: bool
    is_changed: bool


class Schedules:
    """Takes schedules in, and answers for them. One whose queue a caller does not reach is not there.

    Args:
        engine: the database.
        maker: makes the jobs.
        audit: notes who changes what; None: DJPS itself does.
    """

    def __init__(self, engine: Engine, maker: JobMaker, audit: AuditRecord | None = None) -> None:
        self._engine = engine
        self._maker = maker
        self._audit = audit or AuditRecord(engine)

    def put(
        self,
        name: str,
        spec: Spec,
        reach: Reach,
        *,
        by: str | None = None,
        why: str | None = None,
        expected: str | None = None,
        only_new: bool = False,
    ) -> Put:
        """Makes a schedule, or has it be what is asked. One that is that already stays as it is.

        Args:
            by, why: who asks, and why, for the record.
            expected: versions that may be changed, as in If-Match; None: any, and none.
            only_new: there must be none.

        Raises:
            UnknownTask, OptionRefused, PayloadRefused: its job would be refused.
            OutOfReach: its queue is not within reach.
            NameTaken: the name is another's.
            StaleSchedule, ScheduleMissing, ScheduleExists: it is not as the request says; nothing was changed.
        """
        check_reached(spec.job.get("queue"), reach)
        queue = self._maker.check(spec, datetime.now(UTC)).queue
        check_reached(queue, reach)

        def once(connection: Connection) -> tuple[Put, Done]:
            if not listing.lock(connection, name):
                if expected is not None:
                    raise ScheduleMissing(name, expected)
                if (made := self._made(connection, name, spec, queue, by=by, why=why)) is not None:
                    return made, Done()
                # Another request was quicker.
                listing.lock(connection, name)
            found = self._locked(connection, name)
            if not reach.has(found.schedule.queue):
                raise NameTaken(name)
            if only_new:
                raise ScheduleExists(name, found.schedule.version)
            _check_version(found.schedule, expected)
            if _is_same(found.schedule, spec, queue):
                return Put(self._shown(connection, found), is_new=False, is_changed=False), Done()
            return self._changed(connection, found, spec, queue, by=by, why=why)

        put, done = in_transaction(self._engine, once)
        firing.tell(self._maker, done)
        if put.is_new or put.is_changed:
            logger.info(
                "schedule was put",
                extra={"schedule": name, "version": put.shown.schedule.version, "by": by, "why": why},
            )
        return put

    def _made(
        self,
        connection: Connection,
        name: str,
        spec: Spec,
        queue: str,
        *,
        by: str | None,
        why: str | None,
    ) -> Put | None:
        """Makes a schedule; None where one of its name was made meanwhile."""
        schedule_id = uuid7()
        times = first_times(schedule_id, spec, listing.moment(connection), fired=0)
        if not listing.make(connection, schedule_id, name, queue, times):
            return None
        listing.add_version(connection, schedule_id, 1, spec, by=by, why=why)
        self._note(connection, Event.SCHEDULE_PUT, name, by=by, why=why, version=1)
        shown = self._shown(connection, self._locked(connection, name))
        return Put(shown, is_new=True, is_changed=True)

    def _changed(
        self,
        connection: Connection,
        found: Taken,
        spec: Spec,
        queue: str,
        *,
        by: str | None,
        why: str | None,
    ) -> tuple[Put, Done]:
        """Gives a schedule that is locked another version; what is due by the one before fires by that."""
        done = Done()
        if found.schedule.paused_at is None and is_due(found):
            done = firing.fire_due(connection, self._maker, [found])
            found = self._locked(connection, found.schedule.name)
        else:
            firing.note_passed(connection, found)
        schedule = found.schedule
        start = found.now if schedule.last_at is None else max(found.now, schedule.last_at)
        times = first_times(schedule.id, spec, start, fired=schedule.fired)
        version = schedule.version + 1
        listing.change(connection, schedule.id, queue, version, times)
        listing.add_version(connection, schedule.id, version, spec, by=by, why=why)
        self._note(connection, Event.SCHEDULE_PUT, schedule.name, by=by, why=why, version=version)
        shown = self._shown(connection, self._locked(connection, schedule.name))
        return Put(shown, is_new=False, is_changed=True), done

    def get(self, name: str, reach: Reach) -> Shown:
        """A schedule, with its next times and its last firings.

        Raises:
            UnknownSchedule: there is none of this name within reach.
        """
        return in_one_trip(
            self._engine,
            lambda connection: self._shown(connection, self._found(connection, name, reach)),
        )

    def page(self, reach: Reach, *, state: State | None, after: str, limit: int) -> list[Taken]:
        """Schedules by name.

        Args:
            state: only those that stand so.
            after: only those behind this name.
        """
        return in_one_trip(
            self._engine,
            lambda connection: listing.page(connection, reach, state=state, after=after, limit=limit),
        )

    def delete(self, name: str, reach: Reach, *, by: str | None = None, expected: str | None = None) -> None:
        """Deletes a schedule with its history; jobs that it has made stay.

        Raises:
            UnknownSchedule: there is none of this name within reach.
            StaleSchedule: it has another version by now.
        """

        def work(connection: Connection, found: Taken) -> None:
            listing.delete(connection, found.schedule.id)
            version = found.schedule.version
            self._note(connection, Event.SCHEDULE_DELETE, name, by=by, version=version)

        self._change(name, reach, expected, work)
        logger.warning("schedule was deleted", extra={"schedule": name, "by": by})

    def pause(
        self,
        name: str,
        reach: Reach,
        *,
        by: str | None = None,
        note: str | None = None,
        expected: str | None = None,
    ) -> Shown:
        """Pauses a schedule: nothing of it fires until it is resumed. One that is paused stays as it is, with the first note.

        Raises:
            UnknownSchedule, StaleSchedule: as for `delete`.
        """

        def work(connection: Connection, found: Taken) -> None:
            if found.schedule.paused_at is None:
                listing.pause(connection, found.schedule.id, by, note)
                self._note(connection, Event.SCHEDULE_PAUSE, name, by=by, why=note)

        return self._change(name, reach, expected, work)

    def resume(
        self,
        name: str,
        reach: Reach,
        *,
        by: str | None = None,
        note: str | None = None,
        expected: str | None = None,
    ) -> Shown:
        """Lets a schedule go on from now; what came while it was paused is one line of its history. Errors as for `pause`."""

        def work(connection: Connection, found: Taken) -> None:
            schedule = found.schedule
            if schedule.paused_at is None:
                return
            newest = firing.note_passed(connection, found)
            start = newest or schedule.last_at or found.now
            times = first_times(schedule.id, schedule.spec, max(start, found.now), fired=schedule.fired)
            listing.resume(connection, schedule.id, times, newest)
            self._note(connection, Event.SCHEDULE_RESUME, name, by=by, why=note)

        return self._change(name, reach, expected, work)

    def firings(
        self,
        name: str,
        reach: Reach,
        *,
        outcome: Outcome | None,
        before: tuple[datetime, int] | None,
        limit: int,
    ) -> list[FiringRow]:
        """What became of the times of a schedule, the newest first.

        Raises:
            UnknownSchedule: there is none of this name within reach.
        """

        def look(connection: Connection) -> list[FiringRow]:
            found = self._found(connection, name, reach).schedule
            return listing.firings(connection, found.id, outcome=outcome, before=before, limit=limit)

        return in_one_trip(self._engine, look)

    def versions(self, name: str, reach: Reach) -> list[Version]:
        """The versions of a schedule that are kept, the newest first.

        Raises:
            UnknownSchedule: there is none of this name within reach.
        """

        def look(connection: Connection) -> list[Version]:
            return listing.versions(connection, self._found(connection, name, reach).schedule.id)

        return in_one_trip(self._engine, look)

    def next_times(self, name: str, reach: Reach, count: int) -> tuple[Timing, list[datetime]]:
        """What a schedule goes by, and its next so many times.

        Raises:
            UnknownSchedule: there is none of this name within reach.
        """
        found = in_one_trip(self._engine, lambda connection: self._found(connection, name, reach))
        return found.schedule.spec.timing, times_to_come(found, count)

    def moment(self) -> datetime:
        """PostgreSQL's clock."""
        return in_one_trip(self._engine, listing.moment)

    def explain(self, name: str, reach: Reach, workers: Callable[[], int | None]) -> Explanation:
        """Why a schedule does not fire now.

        Args:
            workers: how many live workers do what beat asks for; None when that is not known.

        Raises:
            UnknownSchedule: there is none of this name within reach.
        """

        def look(connection: Connection) -> Situation:
            found = self._found(connection, name, reach)
            still_open = store.open_jobs(connection, [found.schedule.open_job_id])
            last = listing.firings(connection, found.schedule.id, outcome=None, before=None, limit=1)
            return Situation(
                found.schedule, found.now, bool(still_open), last[0] if last else None, workers()
            )

        return explain(in_one_trip(self._engine, look))

    def _change(
        self,
        name: str,
        reach: Reach,
        expected: str | None,
        work: Callable[[Connection, Taken], None],
    ) -> Shown:
        """Does something with a schedule that is locked; returns how it stands then."""

        def once(connection: Connection) -> Shown:
            listing.lock(connection, name)
            found = self._found(connection, name, reach)
            _check_version(found.schedule, expected)
            work(connection, found)
            after = listing.find(connection, name, reach)
            return self._shown(connection, after or found)

        return in_transaction(self._engine, once)

    @staticmethod
    def _locked(connection: Connection, name: str) -> Taken:
        found = listing.find(connection, name, EVERYTHING)
        if found is None:
            # It was deleted between two statements.
            raise UnknownSchedule(name)
        return found

    @staticmethod
    def _found(connection: Connection, name: str, reach: Reach) -> Taken:
        found = listing.find(connection, name, reach)
        if found is None:
            raise UnknownSchedule(name)
        return found

    @staticmethod
    def _shown(connection: Connection, found: Taken) -> Shown:
        last = listing.firings(connection, found.schedule.id, outcome=None, before=None, limit=SHOWN)
        return Shown(found.schedule, found.now, times_to_come(found, SHOWN), last)

    def _note(
        self,
        connection: Connection,
        event: Event,
        name: str,
        *,
        by: str | None,
        why: str | None = None,
        version: int | None = None,
    ) -> None:
        """Puts an act on record, in its transaction."""
        details = {} if version is None else {"version": version}
        act = Act(event, Named("schedule", name), reason=why, on_behalf_of=by, details=details)
        self._audit.note(connection, act)


def _check_version(schedule: Schedule, expected: str | None) -> None:
    if not fits(expected, schedule.version):
        raise StaleSchedule(schedule.name, expected or "", schedule.version)


def _is_same(schedule: Schedule, spec: Spec, queue: str) -> bool:
    return schedule.queue == queue and schedule.spec.document() == spec.document()
