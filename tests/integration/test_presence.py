from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest.mock import Mock
from uuid import UUID, uuid4

import pytest
from celery.worker import state
from clock import SettableClock
from ending import complete, end_last
from factories import ERROR, LEASE, age, attempts_of, claimed, letters_of, queued, row_of
from psycopg2 import extensions
from redis.exceptions import RedisError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from tasks.liveness import LivenessFile, look
from tasks.presence import cancel, hard_limit
from tasks.presence.context import BEATS_PER_TTL
from tasks.presence.drain import HURRY_PATIENCE
from tasks.presence.heartbeat import BEAT_AGAIN
from tasks.presence.leases import RENEWALS_PER_LEASE
from tasks.presence.running import busy_children, jobs_of, running_jobs
from tasks.presence.thread import Presence
from tasks.presence.watchdog import EXIT_CODE, PATIENCE
from tasks.processes import process_group, run_table
from tasks.processes.process_group import is_alive, is_child, kill
from tasks.runtime import child_name, worker_name
from webapp.infra import prefork
from webapp.infra.broker import heartbeats
from webapp.infra.broker.heartbeats import key_of
from webapp.infra.broker.messages import DEAD_LETTER_JOB, EXECUTE_DUE, EXECUTE_JOB, HARD_LIMIT_GRACE
from webapp.infra.postgres import database_errors
from webapp.infra.postgres.database_errors import Trouble
from webapp.jobs import loss, store
from webapp.jobs.control import ask_cancel
from webapp.jobs.model import Claim
from webapp.jobs.states import AttemptOutcome


@dataclass(frozen=True, eq=False)
class Accepted:
    """What Celery keeps of a message that a child has accepted: what presence reads of it."""

    args: list[object]
    worker_pid: int | None
    type: str = EXECUTE_JOB
    id: str = ""


@pytest.fixture
def clock() -> SettableClock:
    """The clock of `presence` and `listener`."""
    return SettableClock()


@pytest.fixture
def presence(settings, clock) -> Presence:
    return Presence(settings, role="worker@test", clock=clock)


@pytest.fixture
def child() -> Iterator[Callable[[], int]]:
    """Forks processes that wait to be ended; none is left behind."""
    pids: list[int] = []

    def fork() -> int:
        pid = os.fork()
        if pid == 0:  # pragma: no cover - another process, ended by a signal
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            while True:
                signal.pause()
        pids.append(pid)
        return pid

    yield fork
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            continue


@pytest.fixture
def accept() -> Iterator[Callable[..., None]]:
    """Says that a child runs a job, in the set where Celery's worker keeps what is active."""
    added: list[Accepted] = []

    def add(job_id: UUID, pid: int | None, type_: str = EXECUTE_JOB) -> None:
        added.append(Accepted([str(job_id)], pid, type_))
        state.active_requests.add(added[-1])

    yield add
    for one in added:
        state.active_requests.discard(one)


@pytest.fixture
def runs() -> Iterator[Callable[..., None]]:
    """Writes down that a child runs a job, as the child does itself."""
    table = run_table.current()
    taken: list[int] = []

    def begin(pid: int, claim: Claim, *, timeout: float = 300.0) -> None:
        table.next_slot()
        table.take(pid)
        taken.append(table._at)
        table.begin(claim.id, claim.attempt, timeout, time.monotonic())
        table._at = None

    yield begin
    for at in taken:
        table._memory[at : at + run_table._SLOT] = bytes(run_table._SLOT)


def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def held_by(engine, pid, **changes):
    return claimed(engine, worker_id=child_name(pid), **changes)


def test_the_heartbeat_says_who_lives_and_runs_out(presence, redis, settings, clock):
    presence.run_once()
    assert heartbeats.live_workers(redis) == [worker_name()]
    key = key_of(worker_name())
    described = json.loads(redis.get(key))
    assert (described["role"], described["pid"], described["running"]) == ("worker@test", os.getpid(), 0)
    (worker,) = heartbeats.workers(redis)
    assert (worker.name, worker.children) == (worker_name(), described["children"])
    assert (worker.busy, worker.idle) == (0, described["idle"])
    assert list(worker.queues) == described["queues"]
    assert 0 < redis.ttl(key) <= settings.worker_heartbeat_ttl
    redis.delete(key)
    presence.run_once()
    assert heartbeats.live_workers(redis) == [], "a heartbeat is due only three times in its life"
    clock.advance(settings.worker_heartbeat_ttl / BEATS_PER_TTL)
    presence.run_once()
    assert heartbeats.live_workers(redis) == [worker_name()]
    presence.stop()
    assert heartbeats.live_workers(redis) == []


def test_without_redis_leases_are_renewed_all_the_same(settings, engine, closed_port, runs, child):
    away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{closed_port}/0"})
    pid = child()
    claim = held_by(engine, pid)
    runs(pid, claim)
    before = row_of(engine, claim.id).lease_expires_at
    alone = Presence(away, role="w")
    alone.run_once()
    assert row_of(engine, claim.id).lease_expires_at > before
    alone.stop()


def test_busy_are_the_children_that_have_accepted_a_message_about_jobs(accept):
    accept(uuid4(), 1234)
    accept(uuid4(), None)
    accept(uuid4(), 1235, DEAD_LETTER_JOB)
    accept(uuid4(), 1236, EXECUTE_DUE)
    assert busy_children() == {1234, 1236}


def test_running_jobs_are_those_that_a_living_child_runs(engine, runs, child):
    alive, dead = child(), child()
    mine, gone = held_by(engine, alive), held_by(engine, dead)
    runs(alive, mine)
    runs(dead, gone)
    end(dead)
    assert running_jobs() == {mine.id: alive}


def test_the_set_may_change_while_it_is_read(monkeypatch):
    class Changing(list):
        tries = 0

        def __iter__(self):
            self.tries += 1
            if self.tries < 3:
                raise RuntimeError("Set changed size during iteration")
            return super().__iter__()

    monkeypatch.setattr(state, "active_requests", Changing([Accepted([str(uuid4())], 1)]))
    assert busy_children() == {1}


def test_leases_are_renewed_for_what_really_runs_and_for_nothing_else(presence, engine, runs, child):
    pid, confused = child(), child()
    running, waiting_in_chunk = held_by(engine, pid), held_by(engine, pid)
    elsewhere = claimed(engine, worker_id="other:1:x/9")
    runs(pid, running)
    runs(confused, elsewhere)
    age(engine, "lease_expires_at", 40)
    before = {one.id: row_of(engine, one.id) for one in (running, waiting_in_chunk, elsewhere)}
    presence.run_once()
    now = row_of(engine, running.id)
    assert (now.lease_expires_at - before[running.id].lease_expires_at).total_seconds() > 35
    assert row_of(engine, waiting_in_chunk.id) == before[waiting_in_chunk.id]
    assert row_of(engine, elsewhere.id) == before[elsewhere.id]
    presence.run_once()
    assert row_of(engine, running.id) == now, "a lease is renewed only three times in its life"


@pytest.mark.parametrize("max_retries", [0, 1, 3])
def test_a_child_that_died_costs_the_job_that_ran_and_no_other(presence, engine, runs, child, max_retries):
    dead, alive = child(), child()
    cause = held_by(engine, dead, max_retries=max_retries)
    ended, waiting = (held_by(engine, dead, max_retries=0) for _ in range(2))
    recorded, elsewhere = held_by(engine, dead), held_by(engine, alive)
    runs(dead, cause)
    with engine.begin() as connection:
        end_last(connection, recorded, AttemptOutcome.FAILED, ERROR)
    end(dead)
    presence.child_lost()
    presence.run_once()
    row = row_of(engine, cause.id)
    assert (row.status, row.retry_count) == (("queued", 1) if max_retries else ("failed", 0))
    assert [attempt["outcome"] for attempt in attempts_of(engine, cause.id)] == ["lost"]
    for innocent in (ended, waiting):
        row = row_of(engine, innocent.id)
        assert (row.status, row.retry_count, row.last_error, row.dispatched_at) == ("queued", 0, None, None)
        (attempt,) = attempts_of(engine, innocent.id)
        assert (attempt["outcome"], attempt["error_type"]) == ("released", "djps.ProcessDied")
    assert letters_of(engine, recorded.id)[0]["error_message"] == "broken"
    assert row_of(engine, elsewhere.id).status == "processing"


def test_a_child_that_died_between_two_jobs_costs_none_of_them_a_retry(presence, engine, runs, child):
    dead = child()
    settled, held = held_by(engine, dead), held_by(engine, dead, max_retries=0)
    runs(dead, settled)
    with engine.begin() as connection:
        assert complete(connection, settled, None)
    end(dead)
    presence.child_lost()
    presence.run_once()
    assert (row_of(engine, held.id).status, row_of(engine, held.id).retry_count) == ("queued", 0)


def test_a_job_whose_processes_die_although_they_do_not_run_it_is_spared_so_often_only(
    presence, engine, child
):
    """It may be what kills them all the same: its payload, when it is read, or its result, when it is written."""
    job_id = queued(engine, max_retries=0).id
    for _ in range(loss.MOST_SPARED + 1):
        pid = child()
        with engine.begin() as connection:
            assert store.claim(connection, [job_id], worker_id=child_name(pid), lease=LEASE)
        end(pid)
        presence.child_lost()
        presence.run_once()
    outcomes = [attempt["outcome"] for attempt in attempts_of(engine, job_id)]
    assert outcomes == ["released"] * loss.MOST_SPARED + ["lost"]
    assert row_of(engine, job_id).status == "failed"


def test_jobs_whose_message_was_lost_with_a_child_are_sent_again(presence, engine):
    lost = queued(engine, dispatched=True)
    assert lost.dispatched_at is not None
    presence.child_lost([lost.id, uuid4()])
    presence.run_once()
    assert row_of(engine, lost.id).dispatched_at is None
    assert not presence.dead_children.unclaimed


@pytest.mark.parametrize("max_retries", [0, 3])
def test_a_handler_that_ignores_its_time_limit_is_killed_and_its_attempt_has_failed(
    presence, engine, runs, child, max_retries
):
    pid = child()
    claim, innocent = held_by(engine, pid, max_retries=max_retries), held_by(engine, pid, max_retries=0)
    runs(pid, claim, timeout=-HARD_LIMIT_GRACE - 1)
    presence.run_once()
    assert not is_child(pid)
    row = row_of(engine, claim.id)
    (attempt,) = attempts_of(engine, claim.id)
    assert (attempt["outcome"], attempt["error_type"]) == ("failed", "webapp.jobs.errors.JobTimeout")
    if max_retries:
        assert (row.status, row.retry_count) == ("queued", 1)
        assert (row.run_at - row.updated_at).total_seconds() == pytest.approx(presence.worker.policy.delay(1))
    else:
        assert row.status == "failed"
    assert (row_of(engine, innocent.id).status, row_of(engine, innocent.id).retry_count) == ("queued", 0)


def test_a_handler_that_ended_at_the_last_moment_and_what_came_after_it_are_not_to_blame(
    presence, engine, runs, child, monkeypatch
):
    pid = child()
    late, after = held_by(engine, pid, max_retries=0), held_by(engine, pid, max_retries=0)
    runs(pid, late, timeout=-HARD_LIMIT_GRACE - 1)
    real = hard_limit.kill

    def kill_after_another_began(pids):
        runs(pid, after)
        real(pids)

    monkeypatch.setattr(hard_limit, "kill", kill_after_another_began)
    presence.run_once()
    assert not is_child(pid)
    for claim in (late, after):
        assert (row_of(engine, claim.id).status, row_of(engine, claim.id).retry_count) == ("queued", 0)
        assert [one["outcome"] for one in attempts_of(engine, claim.id)] == ["released"]


def test_a_job_that_is_being_settled_has_no_time_limit_and_keeps_its_lease(presence, engine, runs, child):
    pid = child()
    claim = held_by(engine, pid)
    runs(pid, claim, timeout=-HARD_LIMIT_GRACE - 1)
    table = run_table.current()
    table._at = table._slot * run_table._SLOT
    table.ended()
    table._at = None
    age(engine, "lease_expires_at", 40)
    before = row_of(engine, claim.id).lease_expires_at
    presence.run_once()
    assert is_child(pid)
    assert row_of(engine, claim.id).lease_expires_at > before


def test_a_child_that_dies_a_moment_later_is_not_forgotten(presence, engine, child):
    """Celery reports a child before it is gone: it is looked at until it is."""
    pid = child()
    claim = held_by(engine, pid)
    presence.child_lost()
    presence.run_once()
    assert row_of(engine, claim.id).status == "processing"
    assert presence.dead_children.suspicious
    end(pid)
    presence.run_once()
    assert row_of(engine, claim.id).status == "queued"
    presence.run_once()
    assert not presence.dead_children.suspicious


def statuses_after_its_death(presence, engine, pid, claim):
    """Those of the job of a child that is killed and told of: after the next turn, and after the one after it."""
    end(pid)
    presence.child_lost()
    seen = []
    for _ in range(2):
        presence.run_once()
        seen.append(row_of(engine, claim.id).status)
    return seen


def test_a_death_that_is_told_during_the_look_is_looked_at_in_the_next_turn(
    presence, engine, child, monkeypatch
):
    pid = child()
    claim, real = held_by(engine, pid), store.holders
    told = iter([True])

    def holders(*given):
        found = real(*given)
        if next(told, False):
            # After the holders were read: this look does not see it.
            found.remove(claim.worker_id)
            presence.child_lost()
        return found

    monkeypatch.setattr(store, "holders", holders)
    assert statuses_after_its_death(presence, engine, pid, claim) == ["processing", "queued"]


def test_a_look_that_failed_is_made_again(presence, engine, child, monkeypatch):
    pid = child()
    claim, real = held_by(engine, pid), store.holders
    failures = iter([OperationalError("holders", {}, Exception("away"))])

    def holders(*given):
        if (error := next(failures, None)) is not None:
            raise error
        return real(*given)

    monkeypatch.setattr(store, "holders", holders)
    assert statuses_after_its_death(presence, engine, pid, claim) == ["processing", "queued"]


def test_a_child_whose_job_does_not_stop_when_asked_is_killed_after_the_grace(
    presence, engine, accept, child
):
    pid = child()
    stubborn, other = held_by(engine, pid), held_by(engine, pid)
    accept(stubborn.id, pid)
    with engine.begin() as connection:
        ask_cancel(connection, stubborn.id, "enough")
    presence.run_once()
    assert is_child(pid), "it has CANCEL_GRACE to stop by itself"
    age(engine, "cancel_requested_at", presence.worker.settings.cancel_grace + 1, stubborn.id)
    presence.run_once()
    assert is_child(pid), "the next look is a second later"
    presence.worker.clock.advance(cancel.CANCELS_EVERY)
    presence.run_once()
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    row = row_of(engine, stubborn.id)
    assert (row.status, row.cancel_reason) == ("cancelled", "enough")
    (attempt,) = attempts_of(engine, stubborn.id)
    assert (attempt["outcome"], attempt["error_type"]) == ("cancelled", "djps.Killed")
    presence.run_once()
    assert row_of(engine, other.id).status == "queued"
    assert presence.cancel.stop_cancelled() == 0


def test_while_a_child_is_killed_for_its_job_it_cannot_begin_another(
    presence, engine, accept, child, monkeypatch
):
    """Between the look and the kill it could have ended that job, and would be running someone else's."""
    pid = child()
    stubborn = held_by(engine, pid)
    accept(stubborn.id, pid)
    with engine.begin() as connection:
        ask_cancel(connection, stubborn.id)
    age(engine, "cancel_requested_at", 1_000, stubborn.id)
    ends = []

    def kill_late(pids):
        with engine.connect() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '100ms'"))
            try:
                ends.append(complete(connection, stubborn, "1"))
            except DBAPIError as error:
                ends.append(database_errors.trouble_of(error))
        kill(pids)

    monkeypatch.setattr(cancel, "kill", kill_late)
    assert presence.cancel.stop_cancelled() == 1
    assert ends == [Trouble.BUSY]
    assert row_of(engine, stubborn.id).status == "cancelled"


def test_the_jobs_of_another_worker_are_not_touched(presence, engine):
    other = claimed(engine, worker_id=f"{worker_name()}0/4194303")
    presence.child_lost()
    presence.run_once()
    assert row_of(engine, other.id).status == "processing"


def test_a_job_whose_lease_cannot_be_renewed_is_stopped_before_the_sweeper_may_take_it(
    presence, engine, runs, child, clock
):
    pid = child()
    claim, held = held_by(engine, pid), held_by(engine, pid)
    runs(pid, claim)
    with engine.begin() as connection:
        # The row is someone else's by now, so the renewal does not reach it.
        connection.execute(text("UPDATE jobs SET worker_id = 'other/1' WHERE id = :id"), {"id": claim.id})
    presence.run_once()
    assert is_child(pid)
    clock.advance(LEASE * 0.76)
    presence.run_once()
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert row_of(engine, claim.id).worker_id == "other/1"
    assert (row_of(engine, held.id).status, row_of(engine, held.id).retry_count) == ("queued", 0)


def test_what_still_runs_after_the_grace_is_given_back_and_burns_no_retry(presence, engine, accept, child):
    pid = child()
    runs, recorded = held_by(engine, pid, dispatched=True), held_by(engine, pid)
    accept(runs.id, pid)
    with engine.begin() as connection:
        end_last(connection, recorded, AttemptOutcome.FAILED, ERROR)
    presence.drain()
    presence.worker.clock.advance(presence.worker.settings.shutdown_grace)
    presence.run_once()
    assert not is_child(pid)
    row = row_of(engine, runs.id)
    assert (row.status, row.attempt, row.retry_count, row.dispatched_at) == ("queued", 1, 0, None)
    assert [attempt["outcome"] for attempt in attempts_of(engine, runs.id)] == ["released"]
    assert row_of(engine, recorded.id).status == "processing"


def test_within_the_grace_nothing_is_stopped(presence, engine, accept, child):
    pid = child()
    claim = held_by(engine, pid)
    accept(claim.id, pid)
    presence.drain()
    presence.run_once()
    assert is_child(pid)
    assert row_of(engine, claim.id).status == "processing"


def test_a_drain_with_nothing_running_does_nothing(presence, accept):
    assert presence.drain_step.release_running() == 0
    accept(uuid4(), 4_194_303)
    assert presence.drain_step.release_running() == 0


def test_a_process_is_known_as_a_child_until_it_has_ended(child):
    pid = child()
    assert is_child(pid)
    assert is_alive(pid)
    kill([pid])
    # It is a zombie now, which runs nothing.
    assert not is_child(pid)
    os.waitpid(pid, 0)
    assert not is_alive(pid)
    kill([pid])
    assert is_alive(os.getpid())
    assert not is_child(os.getppid())
    assert not is_child(1)


def test_without_proc_a_process_is_asked_by_a_signal(child, monkeypatch, tmp_path):
    monkeypatch.setattr(process_group, "PROC", tmp_path / "none")
    pid = child()
    assert is_child(pid)
    end(pid)
    assert not is_child(pid)


def test_a_heartbeat_that_could_not_be_written_is_tried_again_soon(presence, redis, settings, clock):
    real, presence.worker.redis = presence.worker.redis, heartbeats.connect("redis://127.0.0.1:1/0", 0.2)
    presence.run_once()
    presence.worker.redis = real
    assert settings.worker_heartbeat_ttl / BEATS_PER_TTL / 2 > BEAT_AGAIN
    clock.advance(BEAT_AGAIN)
    presence.run_once()
    assert heartbeats.live_workers(redis) == [worker_name()]


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), RedisError("away"), OSError(28, "No space left on device")]
)
def test_the_thread_goes_on_through_everything_and_ends_when_told(settings, redis, eventually, error):
    thread = Presence(settings, role="w")
    for name in ("renewal", "watchdog", "claims"):
        thread.steps[name].work = thread.steps[name].when = Mock(side_effect=error)
    thread.start()
    try:
        eventually(lambda: thread.wake() or heartbeats.live_workers(redis))
    finally:
        thread.stop()
        thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_a_thread_that_dies_takes_its_process_along(settings, exits, error):
    thread = Presence(settings, role="w")
    thread.steps["claims"].work = Mock(side_effect=error)
    thread.run()
    assert exits == [EXIT_CODE]


def test_a_liveness_file_that_cannot_be_written_costs_nothing_but_itself(
    presence, engine, runs, child, tmp_path
):
    presence.liveness_file = LivenessFile(tmp_path, "w")
    folder = tmp_path / "run" / "w.alive"
    folder.mkdir(parents=True)
    pid = child()
    claim = held_by(engine, pid)
    runs(pid, claim)
    for _ in range(2):
        age(engine, "lease_expires_at", 40)
        presence.worker.clock.advance(LEASE / RENEWALS_PER_LEASE)
        before = row_of(engine, claim.id).lease_expires_at
        presence.run_once()
        assert row_of(engine, claim.id).lease_expires_at > before
    assert presence.steps["heartbeat"].due_at > presence.worker.clock()
    assert not look(tmp_path, "w", ready=False)[0], "it must not say alive"
    folder.rmdir()
    presence.run_once()
    assert look(tmp_path, "w", ready=True)[0]


def test_without_postgresql_the_heartbeat_is_written_and_a_drain_ends(
    presence, accept, child, redis, closed_port
):
    presence.worker.engine = create_engine(
        f"postgresql+psycopg2://x@127.0.0.1:{closed_port}/x", poolclass=NullPool
    )
    pid = child()
    accept(uuid4(), pid)
    presence.run_once()
    assert heartbeats.live_workers(redis) == [worker_name()]
    assert {name for name, _ in presence.steps.failing()} == {"renewal", "cancels"}
    assert look(presence.worker.settings.data_dir, "worker@test", ready=False)[0]
    assert look(presence.worker.settings.data_dir, "worker@test", ready=True)[1].endswith(
        "a server could not be reached (OperationalError)"
    )
    presence.drain()
    presence.worker.clock.advance(presence.worker.settings.shutdown_grace)
    presence.run_once()
    assert not is_child(pid)


def test_no_child_is_born_while_presence_is_in_a_library(presence):
    """It would inherit a lock of the database's driver that no one will ever release, and hang in its first connect."""
    held: list[bool] = []
    presence.steps["heartbeat"].work = lambda: held.append(prefork._local.holds)
    presence.run_once()
    assert held == [True]
    assert not prefork._local.holds


@pytest.fixture
def listener(settings, clock) -> Presence:
    """A worker with one child that takes messages from `default`."""
    return Presence(settings, role="worker@test", queues=("default",), capacity=1, clock=clock)


@pytest.fixture
def exits(monkeypatch) -> list[int]:
    """The exit codes with which this process would have ended."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


def look_twice(listener: Presence, clock: SettableClock) -> None:
    """Looks that are further apart than the watchdog's patience."""
    for _ in range(3):
        listener.watchdog.look()
        clock.advance(PATIENCE)


def test_a_worker_that_takes_no_message_while_messages_wait_ends(listener, clock, exits, redis):
    redis.lpush("default", "a message")
    look_twice(listener, clock)
    assert exits == [EXIT_CODE]


def test_a_worker_whose_children_are_all_busy_is_not_deaf(listener, clock, exits, redis, engine):
    redis.lpush("default", "a message")
    claimed(engine, worker_id=child_name())
    look_twice(listener, clock)
    assert exits == []


def test_a_worker_without_messages_is_not_deaf(listener, clock, exits):
    look_twice(listener, clock)
    assert exits == []


def test_presence_keeps_its_liveness_file_fresh_and_says_what_is_wrong(settings, closed_port, eventually):
    away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{closed_port}/0"})
    waits_before = extensions.get_wait_callback()
    started = Presence(away, role="worker@liveness", queues=("default",), capacity=1)
    started.start()
    try:
        eventually(lambda: look(settings.data_dir, "worker@liveness", ready=False)[0])
        eventually(
            lambda: "could not be reached" in look(settings.data_dir, "worker@liveness", ready=True)[1]
        )
    finally:
        started.stop()
        started.join(10)
        extensions.set_wait_callback(waits_before)


@pytest.mark.parametrize("args", [["no uuid"], [], [["a", "b"]], [None], None, ["default", "noop", 300.0]])
def test_a_ticket_and_a_forged_message_name_no_job(args):
    assert jobs_of(args) == []


def test_a_message_names_one_job_or_several():
    ids = [uuid4(), uuid4()]
    assert jobs_of([str(ids[0])]) == ids[:1]
    assert jobs_of([[str(one) for one in ids]]) == ids


def test_a_job_that_is_settled_and_still_in_the_table_costs_its_child_nothing(
    presence, runs, child, engine, clock
):
    pid = child()
    claim = claimed(engine, worker_id=child_name(pid))
    with engine.begin() as connection:
        assert complete(connection, claim, None)
    runs(pid, claim)
    for _ in range(3):
        presence.run_once()
        assert clock() - presence.leases.renewed_at[claim.id] < 1
        clock.advance(LEASE * 0.7)
    assert is_child(pid)


def test_being_told_to_end_again_makes_the_grace_no_longer(presence, settings, clock):
    presence.drain()
    first = presence.drain_step.stop_at
    clock.advance(settings.shutdown_grace / 2)
    presence.drain()
    assert presence.drain_step.stop_at == first
    assert not presence.drain_step.grace_is_over
    presence.hurry()
    assert presence.drain_step.stop_at < first
    assert presence.drain_step.grace_is_over
    presence.drain()
    assert presence.drain_step.grace_is_over


def test_in_a_hurry_jobs_are_released_that_celery_has_not_heard_of(presence, engine, child):
    pid = child()
    claim = held_by(engine, pid)
    presence.hurry()
    presence.run_once()
    assert not is_child(pid)
    assert row_of(engine, claim.id).status == "queued"
    assert [(one.outcome, one.attempt) for one in attempts_of(engine, claim.id)] == [("released", 1)]
    assert row_of(engine, claim.id).retry_count == 0


def test_a_worker_in_a_hurry_is_ended_when_it_does_not_end_by_itself(presence, exits, clock):
    presence.hurry()
    presence.run_once()
    assert exits == []
    clock.advance(HURRY_PATIENCE)
    presence.run_once()
    assert exits == [1]
