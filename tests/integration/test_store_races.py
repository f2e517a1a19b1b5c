"""Every two moves that can meet on a job, made by two threads at once: the second comes while the first is open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import product
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from ending import complete, end_again, end_cancelled, end_last
from factories import (
    ERROR,
    LEASE,
    age,
    attempts_of,
    claimed,
    dead_lettered,
    end_lost,
    letters_of,
    new_job,
    queued,
)
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from webapp.dead_letters.store import move_to_dead_letters
from webapp.flow.reach import EVERYTHING
from webapp.infra.postgres.database_errors import met_a_moved_row
from webapp.jobs import control, ends, insert, retention, store
from webapp.jobs.model import CancelAnswer, Claim
from webapp.jobs.states import AttemptOutcome
from webapp.queues import store as queue_store

#: How long the second move may take to wait for a lock or to return, seconds.
PATIENCE = 10.0
#: Pause between two looks at PostgreSQL's list of who waits, seconds.
GLANCE = 0.002
#: A lease that ran out, seconds; a message and an end that are older than every limit, seconds.
LATE, ANCIENT = 1_000.0, 40 * 86_400.0
CLIENTS, CONNECTIONS = 100, 20
MANY = 100


@dataclass(frozen=True)
class Case:
    """A job in a known state, and the claim under which it was last held, if ever."""

    id: UUID
    held: Claim | None = None


Move = Callable[[Connection, Case], bool]


def recover(connection: Connection, case: Case) -> bool:
    taken = store.take_stuck(connection, MANY)
    for held in taken:
        end_lost(connection, held)
    return case.id in {held.id for held in taken}


def settle(outcome: AttemptOutcome) -> Move:
    return lambda connection, case: bool(end_again(connection, case.held, outcome, ERROR, delay=0))


#: Each says whether it changed the case's job.
MOVES: dict[str, Move] = {
    "claim": lambda connection, case: bool(store.claim(connection, [case.id], worker_id="w/2", lease=LEASE)),
    "settle_completed": lambda connection, case: complete(connection, case.held, "1"),
    "complete": lambda connection, case: (
        ends.complete_many(connection, [ends.completed(case.held, "1")]) == 1
    ),
    "settle_again": settle(AttemptOutcome.FAILED),
    "release": settle(AttemptOutcome.RELEASED),
    "dead-letter": lambda connection, case: (
        move_to_dead_letters(connection, case.id, case.held.attempt) is not None
    ),
    "recover": recover,
    "ask_cancel": lambda connection, case: (
        control.ask_cancel(connection, case.id) is not CancelAnswer.NOTHING
    ),
    "settle_cancelled": lambda connection, case: end_cancelled(connection, case.held),
    "requeue": lambda connection, case: control.requeue(connection, case.id),
    "renew": lambda connection, case: bool(
        store.renew(connection, [case.id], workers=[case.held.worker_id], lease=LEASE)
    ),
    "prune": lambda connection, case: (
        retention.prune(connection, days=30, limit=MANY) > 0
        and store.find(connection, case.id, EVERYTHING) is None
    ),
    "take_due": lambda connection, case: (
        case.id in {hint.id for hint in queue_store.take_due(connection, "default", MANY)}
    ),
}
#: They take rows with SKIP LOCKED, so they never wait.
SKIPPERS = {"recover", "prune", "take_due"}


def waiting(engine: Engine) -> Case:
    return Case(queued(engine).id)


def running(engine: Engine) -> Case:
    claim = claimed(engine)
    age(engine, "lease_expires_at", LATE, claim.id)
    return Case(claim.id, claim)


def asked(engine: Engine) -> Case:
    case = running(engine)
    with engine.begin() as connection:
        assert control.ask_cancel(connection, case.id) is CancelAnswer.ASKED
    return case


def recorded(engine: Engine) -> Case:
    case = running(engine)
    with engine.begin() as connection:
        assert end_last(connection, case.held, AttemptOutcome.FAILED, ERROR)
    return case


def dead(engine: Engine) -> Case:
    claim = dead_lettered(engine)
    age(engine, "finished_at", ANCIENT, claim.id)
    return Case(claim.id, claim)


def dead_today(engine: Engine) -> Case:
    claim = dead_lettered(engine)
    return Case(claim.id, claim)


def withdrawn(engine: Engine) -> Case:
    case = asked(engine)
    with engine.begin() as connection:
        assert end_cancelled(connection, case.held)
    age(engine, "finished_at", ANCIENT, case.id)
    return case


@dataclass(frozen=True)
class Stage:
    """A state, and the moves that can be made in it: those that leave it, and those that do not."""

    arrange: Callable[[Engine], Case]
    leaving: frozenset[str]
    staying: frozenset[str]
    #: Moves that are made all the same after one that left: (first, second).
    also: frozenset[tuple[str, str]] = frozenset()
    #: Moves that are not made here and wait for nothing, but would be made after another: (first, second).
    too_early: frozenset[tuple[str, str]] = frozenset()


BACK = frozenset({"settle_again", "release", "recover"})
STAGES = {
    "waiting": Stage(
        waiting,
        leaving=frozenset({"claim", "ask_cancel"}),
        staying=frozenset({"take_due"}),
        # The attempt that was claimed first is asked to stop.
        also=frozenset({("claim", "ask_cancel")}),
        too_early=frozenset({("ask_cancel", "requeue")}),
    ),
    "running": Stage(
        running,
        leaving=BACK | {"settle_completed", "complete"},
        staying=frozenset({"ask_cancel", "renew"}),
        # The job that waits again is cancelled.
        also=frozenset((first, "ask_cancel") for first in BACK),
        too_early=frozenset(product(BACK, ("claim", "take_due"))) | {("ask_cancel", "settle_cancelled")},
    ),
    "asked": Stage(
        asked,
        leaving=BACK | {"settle_completed", "complete", "settle_cancelled"},
        staying=frozenset({"ask_cancel", "renew"}),
        too_early=frozenset(product(BACK | {"settle_cancelled"}, ("requeue", "claim"))),
    ),
    "recorded": Stage(
        recorded,
        leaving=frozenset({"dead-letter", "recover"}),
        staying=frozenset({"renew"}),
        too_early=frozenset(product(("recover",), ("requeue", "settle_completed", "complete")))
        | frozenset(
            product(("dead-letter",), ("requeue", "settle_completed", "complete", "settle_again", "release"))
        ),
    ),
    "dead": Stage(
        dead,
        leaving=frozenset({"requeue", "prune"}),
        staying=frozenset(),
        too_early=frozenset(product(("requeue",), ("claim", "take_due", "ask_cancel"))),
    ),
    "dead today": Stage(
        dead_today,
        leaving=frozenset({"requeue"}),
        staying=frozenset(),
        too_early=frozenset(product(("requeue",), ("claim", "take_due", "ask_cancel"))),
    ),
    "withdrawn": Stage(
        withdrawn,
        leaving=frozenset({"requeue", "prune"}),
        staying=frozenset(),
        too_early=frozenset(product(("requeue",), ("claim", "take_due", "ask_cancel"))),
    ),
}


@dataclass(frozen=True)
class Meeting:
    """Two moves on one job: whether the second waits for the first, and whether it is made then."""

    stage: str
    first: str
    second: str
    waits: bool
    made: bool

    def __str__(self) -> str:
        return f"{self.stage}: {self.first}, {self.second}"


def meetings() -> Iterator[Meeting]:
    """Both orders of every pair."""
    for name, stage in STAGES.items():
        able = sorted(stage.leaving | stage.staying)
        for first, second in product(able, able):
            waits = second not in SKIPPERS
            made = waits and (first in stage.staying or (first, second) in stage.also)
            yield Meeting(name, first, second, waits, made)
        for first, second in sorted(stage.too_early):
            yield Meeting(name, first, second, waits=False, made=False)


@pytest.fixture(scope="module")
def crowd(engine: Engine) -> Iterator[Engine]:
    """Connections enough for many threads; a thread waits for its turn."""
    made = create_engine(engine.url, pool_size=CONNECTIONS, max_overflow=0, pool_timeout=PATIENCE)
    yield made
    made.dispose()


def shape_of(engine: Engine, case: Case) -> dict[str, Any] | None:
    """All that a race may change of a job, without its times; None when it is gone."""
    statement = text("""
        SELECT status, attempt, retry_count, worker_id, result, last_error, finished_at IS NOT NULL AS ended,
               cancel_requested_at IS NOT NULL AS asked, dispatched_at IS NOT NULL AS sent,
               lease_expires_at > now() AS leased
          FROM jobs WHERE id = :id""")
    with engine.connect() as connection:
        row = connection.execute(statement, {"id": case.id}).mappings().first()
    return row and {
        **row,
        "attempts": [
            (end["attempt"], end["outcome"], end["worker_id"]) for end in attempts_of(engine, case.id)
        ],
        "letters": [letter["requeued_at"] is None for letter in letters_of(engine, case.id)],
    }


def see_waiting(engine: Engine, pid: int, second: Future[bool]) -> bool:
    """Returns as soon as a backend is seen waiting for a lock (True), or its move has returned (False)."""
    statement = text("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = :pid")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for _ in range(int(PATIENCE / GLANCE)):
            if wait([second], timeout=GLANCE).done:
                return False
            if connection.execute(statement, {"pid": pid}).scalar():
                return True
    raise AssertionError(f"the second move neither waited nor returned within {PATIENCE:g} s")


def record_last(connection: Connection, case: Case) -> bool:
    return end_last(connection, case.held, AttemptOutcome.FAILED, ERROR) == "processing"


@pytest.mark.parametrize(
    ("first", "second"), [(record_last, MOVES["ask_cancel"]), (MOVES["ask_cancel"], record_last)]
)
def test_of_a_cancel_and_a_last_failure_one_is_written(crowd, first, second):
    """A cancel that is answered 202 is never followed by `failed`: each of the two looks for the other."""
    case = running(crowd)
    with ThreadPoolExecutor(1) as thread, crowd.connect() as one, crowd.connect() as two:
        pid = two.execute(text("SELECT pg_backend_pid()")).scalar_one()
        two.rollback()
        assert first(one, case)
        late = thread.submit(to_the_end, two, second, case)
        assert see_waiting(crowd, pid, late)
        one.commit()
        assert not late.result()


def to_the_end(connection: Connection, move: Move, case: Case) -> bool:
    """Makes a move and commits; again where the job has moved to its day of history meanwhile, as every caller does."""
    while True:
        try:
            changed = move(connection, case)
            connection.commit()
        except DBAPIError as error:
            connection.rollback()
            if not met_a_moved_row(error):
                raise
        else:
            return changed


@pytest.mark.parametrize("completion", ["settle_completed", "complete"], ids=["alone", "in a chunk"])
def test_a_last_end_that_is_written_meanwhile_is_seen_by_a_completion(crowd, completion):
    """Both find the job processing, and the records of attempts that the second looks at are those of before."""
    case = running(crowd)
    with ThreadPoolExecutor(1) as thread, crowd.connect() as one, crowd.connect() as two:
        pid = two.execute(text("SELECT pg_backend_pid()")).scalar_one()
        two.rollback()
        assert record_last(one, case)
        late = thread.submit(to_the_end, two, MOVES[completion], case)
        assert see_waiting(crowd, pid, late)
        one.commit()
        assert not late.result()
    assert shape_of(crowd, case)["status"] == "processing"
    assert [end["outcome"] for end in attempts_of(crowd, case.id)] == ["failed"]


def make(crowd: Engine, move: str, case: Case) -> bool:
    with crowd.begin() as connection:
        return MOVES[move](connection, case)


@pytest.mark.parametrize("meeting", list(meetings()), ids=str)
def test_two_moves_at_once_end_like_one_after_the_other(crowd, meeting):
    arrange, first, second = STAGES[meeting.stage].arrange, meeting.first, meeting.second
    case = arrange(crowd)
    with ThreadPoolExecutor(1) as thread, crowd.connect() as one, crowd.connect() as two:
        pid = two.execute(text("SELECT pg_backend_pid()")).scalar_one()
        two.rollback()

        assert MOVES[first](one, case)
        coming = thread.submit(to_the_end, two, MOVES[second], case)
        waited = see_waiting(crowd, pid, coming)
        one.commit()
        assert coming.result(PATIENCE) is meeting.made
    assert waited is meeting.waits
    alone = arrange(crowd)
    for move in (first, second) if meeting.made else (first,):
        assert make(crowd, move, alone)
    assert shape_of(crowd, case) == shape_of(crowd, alone)


def test_every_move_meets_another():
    assert {move for meeting in meetings() for move in (meeting.first, meeting.second)} == set(MOVES)


@pytest.mark.parametrize("before", ["a key that is new", "a key that ran out"])
def test_a_hundred_clients_with_one_key_make_one_job(crowd, before):
    if before == "a key that ran out":
        with crowd.begin() as connection:
            assert insert.insert_once(connection, new_job(idempotency_key="k"), dispatched=False)
            connection.execute(text("UPDATE idempotency_keys SET expires_at = now()"))
            connection.execute(text("DELETE FROM jobs"))
    together = Barrier(CLIENTS)

    def post() -> tuple[bool, UUID]:
        job = new_job(idempotency_key="k")
        together.wait(PATIENCE)
        with crowd.begin() as connection:
            row = insert.insert_once(connection, job, dispatched=False)
            if row is not None:
                return True, row.id
            return False, insert.find_by_key(connection, "k").job_id

    with ThreadPoolExecutor(CLIENTS) as threads:
        answers = [future.result() for future in [threads.submit(post) for _ in range(CLIENTS)]]
    assert [created for created, _ in answers].count(True) == 1
    assert len({job for _, job in answers}) == 1
    with crowd.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM jobs")).scalar_one() == 1


def test_batches_that_share_keys_which_ran_out_make_one_job_to_a_key(crowd):
    names = [f"k{number}" for number in range(20)]
    with crowd.begin() as connection:
        insert.insert_many(connection, [new_job(idempotency_key=name) for name in names], dispatched=False)
        connection.execute(text("UPDATE idempotency_keys SET expires_at = now()"))
        connection.execute(text("DELETE FROM jobs"))
    together = Barrier(10)

    def post(number: int) -> int:
        order = names[number:] + names[:number]
        jobs = [new_job(idempotency_key=name) for name in order]
        together.wait(PATIENCE)
        with crowd.begin() as connection:
            return len(insert.insert_many(connection, jobs, dispatched=False))

    with ThreadPoolExecutor(10) as threads:
        stored = list(threads.map(post, range(10)))
    assert sum(stored) == len(names)
    with crowd.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM jobs")).scalar_one() == len(names)
