"""A state machine over the store: two connections with open transactions, and a model that predicts every answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import pytest
from factories import LEASE, end_lost, new_job
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from job_model import (
    CANCELLED,
    ENDS,
    LOST,
    MANY,
    PROCESSING,
    QUEUED,
    RETENTION_DAYS,
    SWEEPS,
    Known,
)
from psycopg2.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import OperationalError
from uuid_utils.compat import uuid7

from webapp.dead_letters.model import NewDeadLetter
from webapp.flow.reach import EVERYTHING
from webapp.jobs import control, insert, store
from webapp.jobs.model import CancelAnswer, Claim
from webapp.jobs.states import FINAL, AttemptOutcome, JobStatus
from webapp.queues import store as queue_store

#: Longest a statement waits for the other connection's row, milliseconds.
LOCK_TIMEOUT_MS = 15
#: Sequences of steps, and steps in each.
SEQUENCES, STEPS = 100, 50
#: Jobs that exist at a time.
SLOTS = 3
#: Moves a time far enough into the past to make a lease late and a message silent, seconds.
LONG_AGO = 1_000.0
#: What of a final row nothing but a requeue may change.
KEPT = ("status", "attempt", "retry_count", "result", "last_error", "updated_at", "cancel_requested_at")

_TIME_PASSES = text("""
    UPDATE jobs SET lease_expires_at = lease_expires_at - make_interval(secs => :seconds),
           dispatched_at = dispatched_at - make_interval(secs => :seconds),
           finished_at = finished_at - make_interval(days => :days)
     WHERE id = :id""")


@dataclass
class Side:
    """A connection, and what its open transaction has written."""

    connection: Connection
    rows: dict[UUID, Known | None] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    #: The idempotency keys it has taken or looked at, which locks them, and whose they are.
    keys: dict[str, UUID] = field(default_factory=dict)
    #: Number of its transaction, 0 when none is open; `now()` is the time a transaction began.
    tick: int = 0
    hold: bool = False

    def end(self) -> None:
        self.rows, self.claims, self.keys, self.tick = {}, [], {}, 0


class Blocked(Exception):
    """The other connection's transaction has written a row that this statement needs."""


Rows = dict[UUID, Known]
Guard = Callable[[Known], bool]

sides = st.integers(0, 1)
slots = st.integers(0, SLOTS - 1)
#: Which claim, counted from the newest.
backs = st.integers(0, 2)
keys = st.sampled_from([None, "a", "b"])
budgets = st.integers(0, 2)


def waits_or_runs(row: Known) -> bool:
    return not row.is_final


def is_unasked(row: Known) -> bool:
    return row.runs and not row.asked


def is_requeueable(row: Known) -> bool:
    return row.status in {JobStatus.FAILED, CANCELLED}


class StoreMachine(RuleBasedStateMachine):
    """Every answer of the store is predicted exactly, and every committed row is compared after each step.

    A step works on one of the connections, `index`, and is committed at once unless it is told to `hold`.
    """

    def __init__(self, engine: Engine, connections: tuple[Connection, Connection]) -> None:
        super().__init__()
        self.engine = engine
        self.sides = tuple(Side(connection) for connection in connections)
        self.rows: Rows = {}
        self.ids = [uuid7() for _ in range(SLOTS)]
        self.pruned: set[UUID] = set()
        self.owners: dict[str, UUID] = {}
        self.ticks = 0
        self.claims: list[Claim] = []
        self.before: dict[UUID, Any] = {}
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM jobs"))
            connection.execute(text("DELETE FROM job_attempts"))
            connection.execute(text("DELETE FROM dead_letters"))
            connection.execute(text("DELETE FROM idempotency_keys"))

    def teardown(self) -> None:
        for side in self.sides:
            side.connection.rollback()

    # What each connection sees and may touch.

    def other(self, side: Side) -> Side:
        return self.sides[self.sides[0] is side]

    def seen_by(self, side: Side) -> Rows:
        return {job: row for job, row in {**self.rows, **side.rows}.items() if row is not None}

    def free(self, side: Side, guard: Guard) -> Rows:
        """What a statement with SKIP LOCKED takes."""
        held = self.other(side).rows
        return {job: row for job, row in self.seen_by(side).items() if guard(row) and job not in held}

    def reach(self, side: Side, jobs: set[UUID], guard: Guard) -> Rows:
        """What a plain statement takes; it waits when the row as it was committed fits and is being changed."""
        fit = {job: row for job, row in self.seen_by(side).items() if job in jobs and guard(row)}
        if fit.keys() & self.other(side).rows.keys():
            raise Blocked
        return fit

    def open(self, index: int, *, hold: bool) -> Side:
        side = self.sides[index]
        side.hold = hold
        if side.tick == 0:
            self.ticks += 1
            side.tick = self.ticks
        return side

    def pick(self, side: Side, slot: int, guard: Guard) -> UUID:
        """A job that a statement can change, when there is one: most random jobs would be refused."""
        fit = [job for job, row in self.seen_by(side).items() if guard(row)]
        return fit[slot % len(fit)] if fit else self.ids[slot]

    def step(self, side: Side, run: Callable[[Connection], Any], plan: Callable[[], tuple[Any, Any]]) -> None:
        """Runs a statement and compares its answer with the plan, which gives the answer and the new rows."""
        try:
            expected, changes, blocked = *plan(), False
        except Blocked:
            expected, changes, blocked = None, {}, True
        try:
            seen = run(side.connection)
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
            # Without an open transaction on the other side it is the server that has business with the table.
            if not blocked and self.other(side).tick:
                raise AssertionError("it waited for a row that no session holds") from error
            self.undo(side)
            return
        assert not blocked, f"it answered {seen!r} and should have waited"
        assert seen == expected
        side.rows |= changes
        if not side.hold:
            self.keep(side)

    def keep(self, side: Side) -> None:
        side.connection.commit()
        for job, row in side.rows.items():
            if row is None:
                self.rows.pop(job, None)
                self.pruned.add(job)
            else:
                self.rows[job] = row
        self.claims += side.claims
        self.owners |= side.keys
        side.end()

    def undo(self, side: Side) -> None:
        side.connection.rollback()
        side.end()

    @rule(index=sides, keep=st.booleans())
    def end(self, index: int, keep: bool) -> None:
        (self.keep if keep else self.undo)(self.sides[index])

    # Clients and operators.

    @initialize(first=budgets, second=budgets)
    def begin(self, first: int, second: int) -> None:
        for slot, key, budget in ((0, "a", first), (1, None, second)):
            self.submit(index=0, hold=False, slot=slot, key=key, budget=budget)
        self.claim(index=0, hold=False, wanted={0, 1})

    @rule(index=sides, hold=st.booleans(), slot=slots, key=keys, budget=budgets)
    def submit(self, index: int, *, hold: bool, slot: int, key: str | None, budget: int) -> None:
        if self.ids[slot] in self.pruned:
            self.ids[slot] = uuid7()
        job = self.ids[slot]
        if any(job in rows for rows in (self.rows, self.sides[0].rows, self.sides[1].rows)):
            return
        side = self.open(index, hold=hold)
        sent = budget > 0

        def run(connection: Connection) -> UUID:
            new = new_job(id=job, idempotency_key=key, max_retries=budget)
            row = insert.insert_once(connection, new, dispatched=sent)
            return row.id if row else insert.find_by_key(connection, str(key)).job_id

        def plan() -> tuple[UUID, Rows]:
            if key:
                if key in self.other(side).keys:
                    raise Blocked
                owner = (self.owners | side.keys).get(key)
                side.keys[key] = owner or job
                if owner:
                    # Its key outlives a job that was pruned.
                    return owner, {}
            return job, {job: Known(key=key, max_retries=budget, due=side.tick, dispatched=sent)}

        self.step(side, run, plan)

    @rule(index=sides, hold=st.booleans(), slot=slots, how=st.sampled_from(["ask_cancel", "requeue"]))
    def steer(self, index: int, *, hold: bool, slot: int, how: str) -> None:
        side = self.open(index, hold=hold)
        fits = waits_or_runs if how == "ask_cancel" else is_requeueable
        job = self.pick(side, slot, is_unasked if how == "ask_cancel" else fits)

        def ask() -> tuple[CancelAnswer, Rows]:
            fit = self.reach(side, {job}, fits)
            if not fit:
                return CancelAnswer.NOTHING, {}
            if fit[job].runs and fit[job].recorded:
                # Nothing changes, and the row is locked until the transaction ends.
                return CancelAnswer.NOTHING, {job: fit[job]}
            if fit[job].status is QUEUED:
                return CancelAnswer.CANCELLED, {job: fit[job].final(CANCELLED)}
            return CancelAnswer.ASKED, {job: replace(fit[job], asked=True)}

        def requeue() -> tuple[bool, Rows]:
            fit = self.reach(side, {job}, fits)
            return bool(fit), {id_: row.requeued(side.tick) for id_, row in fit.items()}

        plan = ask if how == "ask_cancel" else requeue
        self.step(side, lambda connection: getattr(control, how)(connection, job), plan)

    # Workers.

    @rule(index=sides, hold=st.booleans(), wanted=st.sets(slots, min_size=1))
    def claim(self, index: int, *, hold: bool, wanted: set[int]) -> None:
        side = self.open(index, hold=hold)
        jobs = {self.pick(side, slot, lambda row: row.status is QUEUED) for slot in wanted}
        worker = f"host:1:boot/{len(self.claims) + len(side.claims)}/{index}"

        def run(connection: Connection) -> set[tuple[UUID, int]]:
            made = store.claim(connection, sorted(jobs), worker_id=worker, lease=LEASE)
            side.claims += made
            return {(claim.id, claim.attempt) for claim in made}

        def plan() -> tuple[set[tuple[UUID, int]], Rows]:
            fit = self.reach(side, jobs, lambda row: row.status is QUEUED and row.due <= side.tick)
            changed = {job: row.claimed(worker) for job, row in fit.items()}
            return {(job, row.attempt) for job, row in changed.items()}, changed

        self.step(side, run, plan)

    @rule(index=sides, hold=st.booleans(), back=backs, how=st.sampled_from(sorted(ENDS)), aimed=st.booleans())
    def settle(self, index: int, *, hold: bool, back: int, how: str, aimed: bool) -> None:
        """The holder of one of the newest claims, superseded or not, writes the attempt's end."""
        if not self.claims:
            return
        side = self.open(index, hold=hold)
        statement, guard, change = ENDS[how]
        seen = self.seen_by(side)
        fit = [
            one
            for one in self.claims
            if one.id in seen and seen[one.id].holds(one.attempt) and guard(seen[one.id])
        ]
        among = fit if aimed and fit else self.claims
        claim = among[-1 - back % len(among)]

        def plan() -> tuple[bool, dict[UUID, Known | None]]:
            fit = self.reach(side, {claim.id}, lambda row: row.holds(claim.attempt) and guard(row))
            return bool(fit), {job: change(row, side.tick) for job, row in fit.items()}

        self.step(side, lambda connection: statement(connection, claim), plan)

    @rule(index=sides, hold=st.booleans(), back=backs)
    def renew(self, index: int, *, hold: bool, back: int) -> None:
        if not self.claims:
            return
        side, worker = self.open(index, hold=hold), self.claims[-1 - back % len(self.claims)].worker_id
        jobs = set(self.ids)

        def plan() -> tuple[set[UUID], Rows]:
            fit = self.reach(side, jobs, lambda row: row.worker == worker)
            return set(fit), {job: replace(row, late=False) for job, row in fit.items()}

        self.step(
            side,
            lambda connection: store.renew(connection, sorted(jobs), workers=[worker], lease=LEASE),
            plan,
        )

    # Beat.

    @rule(index=sides, hold=st.booleans(), aged=slots)
    def recover(self, index: int, *, hold: bool, aged: int) -> None:
        self.time_passes(aged, lambda row: row.runs)
        side = self.open(index, hold=hold)

        def run(connection: Connection) -> set[tuple[UUID, bool, bool]]:
            taken = store.take_stuck(connection, MANY)
            ended = [(held, end_lost(connection, held)) for held in taken]
            return {(held.id, held.recorded, isinstance(end, NewDeadLetter)) for held, end in ended}

        def plan() -> tuple[set[tuple[UUID, bool, bool]], Rows]:
            answer: set[tuple[UUID, bool, bool]] = set()
            changes: Rows = {}
            for job, row in self.free(side, lambda row: row.runs and row.late).items():
                again = not row.recorded and row.retries < row.max_retries
                withdrawn = row.asked and not row.recorded and not again
                if again:
                    changes[job] = row.again(LOST, side.tick)
                elif withdrawn:
                    changes[job] = row.record(AttemptOutcome.CANCELLED).final(JobStatus.CANCELLED)
                else:
                    changes[job] = (row if row.recorded else row.record(LOST)).dead_lettered()
                answer.add((job, row.recorded, not again and not withdrawn))
            return answer, changes

        self.step(side, run, plan)

    @rule(index=sides, hold=st.booleans(), aged=slots, how=st.sampled_from(["due", "unclaimed", "prune"]))
    def sweep(self, index: int, *, hold: bool, aged: int, how: str) -> None:
        if how != "due":
            self.time_passes(aged, lambda row: row.is_final or (how == "unclaimed" and row.status is QUEUED))
        side = self.open(index, hold=hold)
        statement, guard = SWEEPS[how]

        def plan() -> tuple[set[UUID], dict[UUID, Known | None]]:
            fit = self.free(side, lambda row: guard(row) and (row.is_final or row.due <= side.tick))
            sent = {job: replace(row, dispatched=True, silent=False) for job, row in fit.items()}
            return set(fit), dict.fromkeys(fit) if how == "prune" else sent

        def run(connection: Connection) -> set[UUID]:
            if how != "prune":
                return {hint.id for hint in statement(connection)}
            before = set(self.seen_by(side))
            count = statement(connection)
            left = {job for job in before if store.find(connection, job, EVERYTHING)}
            assert count == len(before - left)
            return before - left

        self.step(side, run, plan)

    @rule(index=sides, hold=st.booleans(), slot=slots)
    def mark_undispatched(self, index: int, *, hold: bool, slot: int) -> None:
        side = self.open(index, hold=hold)
        job = self.pick(side, slot, lambda row: row.status is QUEUED)

        def plan() -> tuple[int, Rows]:
            fit = self.reach(side, {job}, lambda row: row.status is QUEUED)
            return len(fit), {id_: replace(row, dispatched=False, silent=False) for id_, row in fit.items()}

        self.step(side, lambda connection: queue_store.mark_undispatched(connection, [job]), plan)

    def time_passes(self, slot: int, guard: Guard) -> None:
        """For a job that no one is changing: its lease runs out, its message is lost, it is final for long."""
        held = {job for side in self.sides for job in side.rows}
        fit = [job for job, row in self.rows.items() if job not in held and guard(row)]
        if not fit:
            return
        job = fit[slot % len(fit)]
        row = self.rows[job]
        with self.engine.begin() as connection:
            connection.execute(_TIME_PASSES, {"id": job, "seconds": LONG_AGO, "days": RETENTION_DAYS + 1})
        self.rows[job] = replace(row, late=row.runs, silent=row.dispatched, old=row.is_final)

    # What holds of the committed rows, whatever is open.

    @invariant()
    def committed_rows_are_as_predicted(self) -> None:
        with self.engine.connect() as connection:
            jobs = {row["id"]: row for row in connection.execute(text("SELECT * FROM jobs")).mappings()}
            ends = connection.execute(text("SELECT * FROM attempts ORDER BY job_id, attempt")).all()
            letters = connection.execute(text("SELECT job_id, requeued_at FROM dead_letters")).all()
        assert jobs.keys() == self.rows.keys()
        assert {row.job_id for row in (*ends, *letters)} <= jobs.keys(), "a pruned job left something behind"
        for job, row in jobs.items():
            known = self.rows[job]
            own = [letter for letter in letters if letter.job_id == job]
            assert (
                Known(
                    key=row["idempotency_key"],
                    max_retries=row["max_retries"],
                    due=known.due,
                    dispatched=row["dispatched_at"] is not None,
                    status=JobStatus(row["status"]),
                    attempt=row["attempt"],
                    retries=row["retry_count"],
                    worker=row["worker_id"],
                    asked=row["cancel_requested_at"] is not None,
                    late=known.late,
                    silent=known.silent,
                    old=known.old,
                    ends=tuple(
                        (end.attempt, end.outcome, end.worker_id) for end in ends if end.job_id == job
                    ),
                    letters=len(own),
                    in_dlq=any(letter.requeued_at is None for letter in own),
                    generation=known.generation,
                )
                == known
            )
        self.check_moves(jobs)
        self.check_ends(jobs, ends)

    def check_moves(self, jobs: dict[UUID, Any]) -> None:
        """Attempts only grow, and a final row never changes but by a requeue; keys are unique."""
        keys_in_use = [row["idempotency_key"] for row in jobs.values() if row["idempotency_key"]]
        assert len(keys_in_use) == len(set(keys_in_use))
        for job, row in jobs.items():
            before, generation = self.before.get(job, (row, self.rows[job].generation))
            assert row["attempt"] >= before["attempt"]
            if before["status"] in FINAL and generation == self.rows[job].generation:
                assert [row[column] for column in KEPT] == [before[column] for column in KEPT]
        assert self.before.keys() - jobs.keys() <= self.pruned
        self.before = {job: (row, self.rows[job].generation) for job, row in jobs.items()}

    def check_ends(self, jobs: dict[UUID, Any], ends: list[Any]) -> None:
        """Each attempt ended at most once, by the hand that claimed it; only the newest may be without an end."""
        claimed = {(claim.id, claim.attempt): claim.worker_id for claim in self.claims}
        for end in ends:
            assert end.worker_id == claimed[end.job_id, end.attempt]
        for job, row in jobs.items():
            ended = [end.attempt for end in ends if end.job_id == job]
            assert ended in (list(range(1, row["attempt"] + 1)), list(range(1, row["attempt"])))
            if row["status"] != PROCESSING:
                assert len(ended) == row["attempt"]


@pytest.fixture
def connections(engine: Engine) -> Iterator[tuple[Connection, Connection]]:
    options = f"-c lock_timeout={LOCK_TIMEOUT_MS} -c timezone=UTC"
    impatient = create_engine(engine.url, poolclass=NullPool, connect_args={"options": options})
    with impatient.connect() as one, impatient.connect() as two:
        yield one, two


def test_any_interleaving_of_two_connections_is_as_the_model_says(engine, connections):
    run_state_machine_as_test(
        lambda: StoreMachine(engine, connections),
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=STEPS,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
