"""Fires what is due: decides, puts on record, stores the jobs and moves the schedules on, in one transaction.

There is no leader and no lease. Any number of processes may do this at once: each takes schedules that no other one has locked, and
should one die, nothing of its transaction has happened.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection

from webapp.flow.reach import EVERYTHING
from webapp.infra.telemetry import metrics
from webapp.jobs import control
from webapp.jobs import store as job_store
from webapp.jobs.model import CancelAnswer
from webapp.jobs.submission import NewJob
from webapp.schedules import store
from webapp.schedules.course import newest_passed
from webapp.schedules.decisions import NEWER, Decision, Standing, decide
from webapp.schedules.making import JobMaker, Wanted, why_not
from webapp.schedules.model import ITSELF, Firing, Kind, Outcome, Overlap, Schedule, shift_by
from webapp.schedules.store import Entry, Move, Taken
from webapp.schedules.timetable import next_after

logger = logging.getLogger(__name__)

#: Firings after which a transaction leaves the other schedules to the next one.
MOST_FIRINGS = 2_000
#: Seconds after which a schedule is looked at again that cannot be worked on.
PUT_OFF = 60.0
#: Why a time did not fire.
WHILE_PAUSED = "it was paused"
#: Kinds of firings that `max_firings` counts.
COUNTED = frozenset({Kind.SCHEDULED, Kind.CAUGHT_UP})
#: Why a job is cancelled by the next time of its schedule.
OVERTAKEN = "the next time of its schedule came, and its overlap is {overlap}"


@dataclass(slots=True)
class Done:
    """What a transaction did.

    Args:
        entries: what was put on record.
        jobs: those that were stored.
        lags: seconds from due to fired.
        schedules: how many schedules were worked on.
        cancelled: how many jobs were cancelled that had not begun.
    """

    entries: list[Entry] = field(default_factory=list)
    jobs: list[NewJob] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    schedules: int = 0
    cancelled: int = 0


@dataclass(slots=True)
class Plan:
    """What is to be done with a schedule that is locked.

    Args:
        next_at, newest: as in `Decision`; `newest` None: the schedule does not go forward.
    """

    schedule: Schedule
    firings: Sequence[Firing]
    next_at: datetime | None
    newest: datetime | None = None
    stops: bool = False
    drops: bool = False
    round: int = 0
    run_ats: dict[datetime, datetime] = field(default_factory=dict)

    @classmethod
    def of(cls, schedule: Schedule, decision: Decision) -> Plan:
        """What a decision comes to."""
        return cls(
            schedule,
            decision.firings,
            decision.next_at,
            decision.newest,
            decision.stops,
            decision.drops,
        )


def tell(maker: JobMaker, done: Done) -> None:
    """Counts what a transaction did, once it is committed."""
    maker.note(done.jobs)
    for outcome, number in store.outcome_counts(done.entries).items():
        metrics.schedule_firings.labels(outcome.value).inc(number)
    if done.cancelled:
        metrics.jobs_cancelled.inc(done.cancelled)
    for lag in done.lags:
        metrics.schedule_lag.observe(max(0.0, lag))
    if done.jobs:
        logger.info("schedules fired", extra={"schedules": done.schedules, "jobs": len(done.jobs)})


def shift(schedule: Schedule) -> timedelta:
    """What a schedule's jitter puts its times off."""
    return shift_by(schedule.id, schedule.spec)


def due(schedule: Schedule, next_at: datetime | None) -> datetime | None:
    """When a nominal time is due."""
    return None if next_at is None else next_at + shift(schedule)


def fire_due(connection: Connection, maker: JobMaker, taken: Sequence[Taken]) -> Done:
    """Does what is due of schedules that are locked."""
    overlapping = [one.schedule for one in taken if one.schedule.spec.overlap is not Overlap.ALLOW_ALL]
    still_open = store.open_jobs(connection, [one.open_job_id for one in overlapping])
    plans: list[Plan] = []
    worked = firings = 0
    for one in taken:
        worked += 1
        if (plan := _plan(connection, one, still_open)) is not None:
            plans.append(plan)
            firings += len(plan.firings)
        if firings >= MOST_FIRINGS:
            # The others are still due.
            break
    done = carry_out(connection, maker, plans)
    done.schedules = worked
    now = {one.schedule.id: one.now for one in taken}
    done.lags = [
        (now[one.schedule.id] - one.firing.at - shift(one.schedule)).total_seconds()
        for one in done.entries
        if one.firing.kind is Kind.SCHEDULED and one.firing.outcome is Outcome.FIRED
    ]
    return done


def _plan(connection: Connection, one: Taken, still_open: set[UUID]) -> Plan | None:
    schedule = one.schedule
    if schedule.next_at is None:
        return None
    if (note := _reason_to_pause(connection, schedule)) is not None:
        store.pause(connection, schedule.id, ITSELF, note)
        logger.warning("schedule was paused", extra={"schedule": schedule.name, "why": note})
        return None
    standing = Standing(
        schedule.next_at, schedule.fired, schedule.open_job_id in still_open, schedule.buffered
    )
    try:
        decision = decide(schedule.spec, standing, one.now - shift(schedule))
    except Exception:
        logger.exception("schedule could not be looked at", extra={"schedule": schedule.name})
        store.put_off(connection, schedule.id, PUT_OFF)
        return None
    if decision is None:
        # By new rules of its zone there is no such time.
        return Plan(schedule, (), next_after(schedule.spec.timing, one.now - shift(schedule)))
    return Plan.of(schedule, decision)


def _reason_to_pause(connection: Connection, schedule: Schedule) -> str | None:
    """Why a schedule pauses itself: its last jobs have failed; None where they have not."""
    most = schedule.spec.pause_after_failures
    if most is None:
        return None
    ids = store.last_jobs(connection, schedule.id, schedule.resumed_at, most + 1)
    still_open = store.open_jobs(connection, ids)
    ended = [job_id for job_id in ids if job_id not in still_open][:most]
    if len(ended) < most:
        return None
    found = [job_store.find(connection, job_id, EVERYTHING) for job_id in ended]
    if all(job is not None and job.status == "failed" for job in found):
        return f"its last {most} jobs failed, and pause_after_failures is {most}"
    return None


def carry_out(connection: Connection, maker: JobMaker, plans: Sequence[Plan], *, fills: bool = False) -> Done:
    """Puts firings on record, stores the jobs of those that were not there before, and moves their schedules on.

    Args:
        fills: times that were passed over or refused may fire after all.
    """
    cancelled = sum(_stop(connection, plan.schedule) for plan in plans if plan.stops)
    store.drop_waiting(connection, [plan.schedule.id for plan in plans if plan.drops], NEWER)
    entries, jobs = _made(maker, plans)
    new = store.record(connection, entries, fills=fills)
    entries = [one for one in entries if one.key in new]
    jobs = {key: job for key, job in jobs.items() if key in new}
    entries, created = _stored(connection, maker, entries, jobs)
    by_schedule: dict[UUID, list[Entry]] = {}
    for one in entries:
        by_schedule.setdefault(one.schedule.id, []).append(one)
    store.move(connection, [_move(plan, by_schedule.get(plan.schedule.id, [])) for plan in plans])
    return Done(entries, created, schedules=len(plans), cancelled=cancelled)


def _made(
    maker: JobMaker, plans: Iterable[Plan]
) -> tuple[list[Entry], dict[tuple[UUID, datetime, int], NewJob]]:
    """The entries of plans, and the jobs of those that fire; one whose job cannot be made is refused."""
    entries: list[Entry] = []
    wanted: dict[int, Wanted] = {}
    for plan in plans:
        spec, queue = plan.schedule.spec, plan.schedule.queue
        for firing in plan.firings:
            if firing.outcome is Outcome.FIRED:
                wanted[len(entries)] = Wanted(spec, queue, firing.at, plan.run_ats.get(firing.at))
            entries.append(Entry(plan.schedule, firing, round=plan.round if firing.until is None else -1))
    jobs: dict[tuple[UUID, datetime, int], NewJob] = {}
    for number, made in zip(wanted, maker.make(list(wanted.values())) if wanted else [], strict=True):
        one = entries[number]
        if isinstance(made, str):
            entries[number] = one._replace(firing=_refused(one.firing, made))
        else:
            entries[number] = one._replace(job_id=made.id)
            jobs[one.key] = made
    return entries, jobs


def _refused(firing: Firing, reason: str) -> Firing:
    return firing._replace(outcome=Outcome.REFUSED, reason=reason)


def _stored(
    connection: Connection,
    maker: JobMaker,
    entries: Sequence[Entry],
    jobs: dict[tuple[UUID, datetime, int], NewJob],
) -> tuple[list[Entry], list[NewJob]]:
    """Stores the jobs of entries that are on record, and puts right those whose job was not stored; the jobs that were."""
    batch = maker.store(connection, list(jobs.values()))
    if len(batch.created) == len(jobs):
        return list(entries), list(jobs.values())
    kept: list[Entry] = []
    changed: list[Entry] = []
    for one in entries:
        job = jobs.get(one.key)
        if job is None or job.id in batch.created:
            kept.append(one)
            continue
        reason, job_id, is_fine = why_not(batch.answer(job))
        outcome = Outcome.REFUSED if not is_fine else Outcome.FIRED if reason is None else Outcome.SKIPPED
        changed.append(
            one._replace(firing=one.firing._replace(outcome=outcome, reason=reason), job_id=job_id)
        )
    store.settle(connection, changed)
    return [*kept, *changed], [job for job in jobs.values() if job.id in batch.created]


def _move(plan: Plan, entries: Sequence[Entry]) -> Move:
    """How a schedule goes on after what was put on record."""
    counts = store.outcome_counts(entries)
    fired = [one for one in entries if one.firing.outcome is Outcome.FIRED]
    # What is filled in later is no reason for a later time to wait.
    live = [one for one in fired if one.firing.kind is not Kind.BACKFILL]
    last = max(live, key=lambda one: one.firing.at, default=None)
    return Move(
        plan.schedule.id,
        plan.next_at,
        due(plan.schedule, plan.next_at),
        plan.newest,
        None if last is None else last.job_id,
        (0 if plan.drops else plan.schedule.buffered) + counts.get(Outcome.BUFFERED, 0),
        sum(one.firing.kind in COUNTED for one in fired),
        counts.get(Outcome.SKIPPED, 0),
    )


def _stop(connection: Connection, schedule: Schedule) -> bool:
    """Ends the job of the last firing, as the overlap of its schedule says; True if it is cancelled by that."""
    if schedule.open_job_id is None:
        return False
    reason = OVERTAKEN.format(overlap=schedule.spec.overlap.value)
    asked = control.cancel(connection, schedule.open_job_id, reason)
    if schedule.spec.overlap is Overlap.TERMINATE_OTHER:
        control.kill(connection, schedule.open_job_id)
    return asked.answer is CancelAnswer.CANCELLED


def note_passed(connection: Connection, found: Taken) -> datetime | None:
    """Puts on record what came while a schedule was paused; returns the newest of these times, None: none did."""
    schedule, newest = found.schedule, newest_passed(found)
    if schedule.paused_at is not None and newest is not None and schedule.next_at is not None:
        passed = Firing(schedule.next_at, Kind.SCHEDULED, Outcome.PAUSED, WHILE_PAUSED, newest)
        store.record(connection, [Entry(schedule, passed, round=-1)])
    return newest


def release(connection: Connection, maker: JobMaker, taken: Sequence[Taken]) -> Done:
    """Lets the oldest waiting time of each schedule fire whose job has ended; the schedules are locked."""
    still_open = store.open_jobs(connection, [one.schedule.open_job_id for one in taken])
    free = {one.schedule.id: one.schedule for one in taken if one.schedule.open_job_id not in still_open}
    if not free:
        return Done()
    oldest = store.oldest_waiting(connection, free)
    entries = [
        Entry(free[schedule_id], Firing(at, kind, Outcome.FIRED), round=number)
        for schedule_id, (at, number, kind) in oldest.items()
    ]
    made = maker.make([Wanted(one.schedule.spec, one.schedule.queue, one.firing.at) for one in entries])
    jobs: dict[tuple[UUID, datetime, int], NewJob] = {}
    for number, (one, job) in enumerate(zip(list(entries), made, strict=True)):
        if isinstance(job, str):
            entries[number] = one._replace(firing=_refused(one.firing, job))
        else:
            entries[number] = one._replace(job_id=job.id)
            jobs[one.key] = job
    store.settle(connection, entries)
    entries, created = _stored(connection, maker, entries, jobs)
    moves = [_released(one) for one in entries]
    # One that says that something waits, and has nothing.
    moves += [_nothing_waits(one) for key, one in free.items() if key not in oldest]
    store.move(connection, moves)
    return Done(entries, created, schedules=len(free))


def _released(one: Entry) -> Move:
    schedule, is_fired = one.schedule, one.firing.outcome is Outcome.FIRED
    return Move(
        schedule.id,
        schedule.next_at,
        schedule.due_at,
        None,
        one.job_id if is_fired else None,
        schedule.buffered - 1,
        int(is_fired and one.firing.kind in COUNTED),
        int(one.firing.outcome is Outcome.SKIPPED),
    )


def _nothing_waits(schedule: Schedule) -> Move:
    return Move(schedule.id, schedule.next_at, schedule.due_at, None, None, 0, 0, 0)
