from __future__ import annotations

import dataclasses
import json
import threading

import pytest
from ending import end_last
from factories import (
    ERROR,
    WORKER,
    age,
    attempts_of,
    claimed,
    completed,
    dead_lettered,
    letters_of,
    queued,
    row_of,
    tables,
    waiting,
)

from tasks.presence import lost_jobs
from tasks.sweeps import dispatch, prune, recover
from webapp.infra.broker.publish import Broker
from webapp.jobs import store
from webapp.jobs.loss import LOST
from webapp.jobs.retry import RetryPolicy
from webapp.jobs.states import AttemptOutcome


@pytest.fixture
def parts(parts, engine):
    """Parts whose lease is shorter than this PostgreSQL is up."""
    with engine.connect() as connection:
        up = store.seconds_since_start(connection)
    short = parts.settings.model_copy(update={"stuck_job_threshold": min(60, int(up))})
    return dataclasses.replace(parts, settings=short)


def expire(engine, job_id=None):
    age(engine, "lease_expires_at", 1_000, job_id)


def test_a_job_whose_lease_ran_out_is_queued_again_at_once(parts, engine):
    claim, live = claimed(engine, dispatched=True), claimed(engine)
    expire(engine, claim.id)
    assert recover.run_recovery(parts) == 1
    row = row_of(engine, claim.id)
    assert (row.status, row.attempt, row.retry_count) == ("queued", 1, 1)
    assert row.run_at == row.updated_at
    assert row.dispatched_at is row.worker_id is None
    (attempt,) = attempts_of(engine, claim.id)
    assert (attempt["outcome"], attempt["worker_id"], attempt["error_type"]) == ("lost", WORKER, "djps.Lost")
    assert row_of(engine, live.id).status == "processing"
    assert recover.run_recovery(parts) == 0


def test_a_lost_attempt_without_retries_left_gets_a_dead_letter(parts, engine):
    claim = claimed(engine, max_retries=0)
    expire(engine)
    assert recover.run_recovery(parts) == 1
    row = row_of(engine, claim.id)
    assert (row.status, row.last_error) == ("failed", LOST.summary)
    assert [attempt["outcome"] for attempt in attempts_of(engine, claim.id)] == ["lost"]
    assert letters_of(engine, claim.id)[0]["reason"] == "exhausted"


def test_of_several_jobs_of_a_process_that_is_gone_none_is_taken_for_the_cause(parts, engine, redis):
    """No one knows which of them ran. Each comes back in a message of its own, so the next death tells."""
    claims = [claimed(engine, max_retries=0) for _ in range(3)]
    alone = claimed(engine, worker_id="other/1", max_retries=0)
    expire(engine)
    assert recover.run_recovery(parts) == 4
    for claim in claims:
        row = row_of(engine, claim.id)
        assert (row.status, row.retry_count) == ("queued", 0)
        assert row.dispatched_at is not None
    assert row_of(engine, alone.id).status == "failed"
    named = {json.loads(message)["headers"]["id"] for message in waiting(redis)}
    assert named == {str(claim.id) for claim in claims}


def test_jobs_that_cannot_be_sent_alone_are_left_to_the_dispatcher(parts, engine, closed_port, monkeypatch):
    claims = [claimed(engine) for _ in range(2)]
    expire(engine)
    away = Broker(f"redis://127.0.0.1:{closed_port}/0", buffer=10)
    monkeypatch.setattr(parts.dispatcher, "_broker", away)
    assert recover.run_recovery(parts) == 2
    assert {row_of(engine, claim.id).dispatched_at for claim in claims} == {None}


def test_a_burial_that_a_dead_worker_left_half_done_is_finished(parts, engine):
    claim = claimed(engine)
    with engine.begin() as connection:
        end_last(connection, claim, AttemptOutcome.FAILED, ERROR)
    expire(engine)
    assert recover.run_recovery(parts) == 1
    row = row_of(engine, claim.id)
    # Its end was on record, so it is not counted as lost and not run again.
    assert (row.status, row.retry_count, row.last_error) == ("failed", 0, "E: broken")
    assert [attempt["outcome"] for attempt in attempts_of(engine, claim.id)] == ["failed"]
    assert letters_of(engine, claim.id)[0]["error_message"] == "broken"


def test_a_job_is_lost_only_as_often_as_its_retries_allow(parts, engine):
    claim = claimed(engine, max_retries=2)
    for _ in range(3):
        expire(engine)
        assert recover.run_recovery(parts) == 1
        with engine.begin() as connection:
            store.claim(connection, [claim.id], worker_id=WORKER, lease=60)
    row = row_of(engine, claim.id)
    assert (row.status, row.attempt, row.retry_count) == ("failed", 3, 2)
    assert [attempt["outcome"] for attempt in attempts_of(engine, claim.id)] == ["lost"] * 3


def test_right_after_a_restart_of_the_database_nothing_is_taken_for_one_lease(parts, engine):
    claimed(engine)
    expire(engine)
    before = tables(engine)
    with engine.connect() as connection:
        longer = int(store.seconds_since_start(connection)) + 3_600
    restarted = parts.settings.model_copy(update={"stuck_job_threshold": longer})
    assert recover.run_recovery(dataclasses.replace(parts, settings=restarted)) == 0
    assert tables(engine) == before


def test_more_jobs_than_one_transaction_takes_are_all_recovered(parts, engine):
    claims = [claimed(engine) for _ in range(5)]
    expire(engine)
    assert recover.run_recovery(parts, batch=2) == 5
    assert {row_of(engine, claim.id).status for claim in claims} == {"queued"}


def test_sweepers_at_once_recover_every_job_once(parts, engine):
    claims = [claimed(engine, worker_id=f"host:1:boot/{number}") for number in range(20)]
    expire(engine)
    barrier, counts = threading.Barrier(3), []

    def sweep():
        barrier.wait(10)
        counts.append(recover.run_recovery(parts))

    threads = [threading.Thread(target=sweep) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sum(counts) == 20
    assert all(len(attempts_of(engine, claim.id)) == 1 for claim in claims)
    assert {row_of(engine, claim.id).retry_count for claim in claims} == {1}


def test_only_what_is_taken_is_settled_as_lost(engine):
    mine, theirs = claimed(engine), claimed(engine, worker_id="other/1")

    def take(connection):
        return store.take_held_by(connection, [WORKER])

    assert lost_jobs.settle(engine, RetryPolicy(), "child_died", take) == 1
    assert lost_jobs.settle(engine, RetryPolicy(), "child_died", take) == 0
    assert row_of(engine, mine.id).status == "queued"
    assert row_of(engine, theirs.id).status == "processing"


def test_old_final_jobs_are_pruned_in_batches(parts, engine):
    old = [completed(engine) for _ in range(4)] + [dead_lettered(engine)]
    age(engine, "finished_at", 31 * 86_400)
    kept = [completed(engine).id, claimed(engine).id, queued(engine).id]
    assert prune.run_prune(parts, window=10, batch=2) == len(old)
    assert {row["id"] for row in tables(engine) if "payload" in row} == set(kept)


def test_a_prune_pass_ends_with_its_window_and_leaves_the_rest(parts, engine):
    for _ in range(3):
        completed(engine)
    age(engine, "finished_at", 31 * 86_400)
    assert prune.run_prune(parts, window=-1, batch=1) == 1
    assert prune.run_prune(parts, window=10, batch=1) == 2


def test_a_retention_of_zero_keeps_everything(parts, engine):
    completed(engine)
    age(engine, "finished_at", 36_500 * 86_400)
    forever = dataclasses.replace(parts, settings=parts.settings.model_copy(update={"retention_days": 0}))
    assert prune.run_prune(forever, window=10) == 0
    assert len(tables(engine)) == 1


def test_the_beat_tasks_do_what_their_functions_do(engine, monkeypatch, parts):
    for module in (recover, dispatch, prune):
        monkeypatch.setattr(module, "runtime", lambda: parts)
    monkeypatch.setattr(dispatch, "PLAN", dataclasses.replace(dispatch.PLAN, seconds=0.0))
    lost, old, waiting = claimed(engine), completed(engine), queued(engine)
    expire(engine)
    age(engine, "finished_at", 31 * 86_400)
    recover.recover_stuck.run()
    dispatch.dispatch_due.run()
    prune.prune.run()
    assert row_of(engine, lost.id).status == "queued"
    assert row_of(engine, waiting.id).dispatched_at is not None
    assert all(row["id"] != old.id for row in tables(engine) if "payload" in row)
