"""What beat asks for is logged, counted, and goes on although a part of it fails."""

from __future__ import annotations

import logging
from dataclasses import replace
from unittest.mock import Mock

import psycopg2
import pytest
from billiard.exceptions import WorkerLostError
from celery import signals
from factories import age, claimed, completed, letters_of, queued, row_of, waiting
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from sqlalchemy.exc import DataError, OperationalError

import celeryconfig
from tasks.presence import lost_jobs
from tasks.sweeps import (
    base,
    count_ends,
    expire,
    fold_figures,
    keep_history,
    late_callbacks,
    prune,
    recover,
    repair_lanes,
    seal_audit,
)
from tasks.sweeps import callbacks as callbacks_sweep
from tasks.sweeps import dispatch as dispatch_sweep
from tasks.sweeps.base import Each, run_guarded
from webapp.infra.background import Step
from webapp.infra.broker.client import celery
from webapp.infra.telemetry import metrics
from webapp.jobs import callbacks, store


def runs(sweep, outcome):
    """How many runs this process has counted."""
    (family,) = metrics.sweep_runs.collect()
    return next(
        sample.value
        for sample in family.samples
        if sample.labels == {"sweep": sweep, "outcome": outcome} and sample.name == "sweep_runs_total"
    )


def test_beat_asks_for_nothing_else():
    asked = {line["task"].removeprefix("tasks.") for line in celeryconfig.beat_schedule.values()}
    assert asked | {"bury_job"} == set(metrics.SWEEPS)


SWEEPS = {
    "dispatch_due": (dispatch_sweep, "run_dispatch"),
    "recover_stuck": (recover, "run_recovery"),
    "expire": (expire, "run_expiry"),
    "prune": (prune, "run_prune"),
    "count_ends": (count_ends, "run_count"),
    "deliver_callbacks": (callbacks_sweep, "run_callbacks"),
    "late_callbacks": (late_callbacks.callbacks, "run_callbacks"),
    "fold_figures": (fold_figures, "run_fold"),
    "keep_history": (keep_history, "run_keep_history"),
    "seal_audit": (seal_audit, "run_seal"),
    "repair_lanes": (repair_lanes, "run_repair"),
}


def test_each_of_them_is_here():
    assert {*SWEEPS, "bury_job"} == set(metrics.SWEEPS)


@pytest.mark.parametrize("name", SWEEPS)
@pytest.mark.parametrize(
    "error",
    [ValueError("broken"), OperationalError("", {}, psycopg2.OperationalError("away")), MemoryError()],
)
def test_what_a_sweep_raises_is_logged_counted_and_goes_no_further(monkeypatch, caplog, name, error):
    where, function = SWEEPS[name]
    failed, well = runs(name, "failed"), runs(name, "completed")
    task = celery.tasks[f"tasks.{name}"]
    monkeypatch.setattr(dispatch_sweep, "PLAN", replace(dispatch_sweep.PLAN, seconds=0.0))
    with monkeypatch.context() as patched, caplog.at_level(logging.INFO):
        patched.setattr(where, function, Mock(side_effect=error))
        task()
    assert runs(name, "failed") == failed + 1
    (record,) = [one for one in caplog.records if one.message == "sweep failed"]
    assert (record.step, record.exc_info[1]) == (name, error)
    task()
    assert runs(name, "completed") == well + 1


def test_seals_are_looked_at_although_none_can_be_made(monkeypatch):
    failed = runs("seal_audit", "failed")
    looked = Mock(return_value=0)
    monkeypatch.setattr(seal_audit, "run_seal", Mock(side_effect=ValueError("broken")))
    monkeypatch.setattr(seal_audit, "run_look", looked)
    celery.tasks["tasks.seal_audit"]()
    assert looked.call_count == 1
    assert runs("seal_audit", "failed") == failed + 1


def test_what_was_counted_is_served(client):
    def served():
        families = text_string_to_metric_families(client.get("/metrics").text)
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
        }

    before = served()
    for name in SWEEPS:
        celery.tasks[f"tasks.{name}"]()
    after = served()
    for name in SWEEPS:
        for figure in (("sweep_runs_total", "completed", name), ("sweep_seconds_count", name)):
            assert after[figure] == before[figure] + 1, figure


def test_what_ends_a_process_is_counted_and_passed_on():
    failed = runs("expire", "failed")
    with pytest.raises(SystemExit):
        run_guarded(Step("expire", Mock(side_effect=SystemExit)))
    assert runs("expire", "failed") == failed + 1


@pytest.mark.parametrize("name", metrics.SWEEPS)
@pytest.mark.parametrize("error", [TypeError("too many arguments"), WorkerLostError("signal 9")])
def test_a_message_that_failed_outside_of_the_runner_is_counted_and_logged(caplog, name, error):
    failed = runs(name, "failed")
    sender = celery.tasks[f"tasks.{name}"]
    with caplog.at_level(logging.ERROR, base.logger.name):
        signals.task_failure.send(sender=sender, exception=error, traceback="as the parent knows it")
        signals.task_failure.send(sender=Mock(), exception=error)
    assert runs(name, "failed") == failed + 1
    (record,) = caplog.records
    assert (record.message, record.step, record.exc_info[1]) == ("sweep failed", name, error)


def test_a_queue_that_fails_does_not_stop_the_others(parts, engine, redis, monkeypatch, handle):
    for name in ("a", "b", "c"):
        queued(engine, task=handle(lambda payload, context: None, queue=name), queue=name)
    real = parts.dispatcher.dispatch
    asked = []

    def dispatch(name, **more):
        asked.append(name)
        if name == "b":
            raise ValueError("broken")
        return real(name, **more)

    monkeypatch.setattr(
        type(parts.dispatcher), "dispatch", lambda _self, name, **more: dispatch(name, **more)
    )
    with pytest.raises(ValueError, match="broken"):
        dispatch_sweep.run_dispatch(parts, 1.0)
    assert [len(waiting(redis, name)) for name in ("a", "b", "c")] == [1, 0, 1]
    assert asked.count("b") == 1, "it is not tried again within the pass"
    assert asked.count("c") > 1


def test_a_refill_that_fails_does_not_stop_dispatch(parts, engine, redis, monkeypatch):
    queued(engine)
    monkeypatch.setattr(type(parts.dispatcher), "refill", Mock(side_effect=ValueError("broken")))
    with pytest.raises(ValueError, match="broken"):
        dispatch_sweep.run_dispatch(parts)
    assert len(waiting(redis)) == 1


def test_with_postgresql_away_no_other_queue_is_tried(parts, monkeypatch):
    away = OperationalError("", {}, psycopg2.OperationalError("away"))
    dispatch = Mock(side_effect=away)
    monkeypatch.setattr(type(parts.dispatcher), "dispatch", dispatch)
    with pytest.raises(OperationalError):
        dispatch_sweep.run_dispatch(parts, 5.0)
    assert dispatch.call_count == 1


def test_one_kind_of_old_rows_that_cannot_be_pruned_does_not_keep_the_others(engine, parts, monkeypatch):
    old = completed(engine)
    age(engine, "finished_at", 86_400 * 365, old.id)
    monkeypatch.setattr(prune, "run_key_prune", Mock(side_effect=ValueError("broken")))
    failed = runs("prune", "failed")
    prune.prune()
    assert runs("prune", "failed") == failed + 1
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM jobs")).scalar() == 0


def test_a_job_that_cannot_be_recovered_does_not_keep_the_others(parts, engine, monkeypatch, client):
    rows = [claimed(engine, worker_id=f"host:1:boot/{number}") for number in range(4)]
    last = claimed(engine, max_retries=0, worker_id="host:1:boot/9")
    age(engine, "lease_expires_at", 1_000)
    monkeypatch.setattr(store, "seconds_since_start", lambda _: 1e9)
    real, broken = lost_jobs.end_lost, rows[1].id

    def end(connection, held, *more):
        if held.id == broken:
            connection.execute(text("SELECT 1 / 0"))
        return real(connection, held, *more)

    monkeypatch.setattr(lost_jobs, "end_lost", end)
    recovered = client.get("/metrics").text.partition('jobs_recovered_total{reason="lease_expired"} ')[2]
    with pytest.raises(DataError):
        recover.run_recovery(parts)
    after = client.get("/metrics").text.partition('jobs_recovered_total{reason="lease_expired"} ')[2]
    assert float(after.split("\n")[0]) - float(recovered.split("\n")[0]) == 4
    assert [row_of(engine, row.id).status for row in rows] == ["queued", "processing", "queued", "queued"]
    assert len(letters_of(engine, last.id)) == 1
    monkeypatch.setattr(lost_jobs, "end_lost", real)
    assert recover.run_recovery(parts) == 1
    assert row_of(engine, broken).status == "queued"


def test_an_end_that_cannot_be_told_of_does_not_keep_the_others(parts, engine, monkeypatch):
    rows = [completed(engine) for _ in range(4)]
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET callback_url = 'http://localhost/'"))
    real, broken = callbacks.payload_of, rows[1].id

    def payload_of(ending):
        if ending.id == broken:
            raise ValueError("broken")
        return real(ending)

    monkeypatch.setattr(callbacks, "payload_of", payload_of)
    for made in (3, 0):
        before = told(engine)
        with pytest.raises(ValueError, match="broken"):
            callbacks_sweep.run_callbacks(parts)
        assert told(engine) - before == made
    monkeypatch.setattr(callbacks, "payload_of", real)
    assert callbacks_sweep.run_callbacks(parts) == 1


def told(engine):
    with engine.connect() as connection:
        return connection.execute(
            text("SELECT count(*) FROM jobs WHERE callback_job_id IS NOT NULL")
        ).scalar_one()


def test_each_of_several_things_has_its_turn_once():
    calls: list[str] = []

    def broken():
        calls.append("b")
        raise ValueError("b")

    def do_all():
        with Each("part") as each:
            for name, work in (("a", lambda: 1), ("b", broken), ("b", broken), ("c", lambda: 3)):
                calls.append(f"{name}={each.do(name, work)}")

    with pytest.raises(ValueError, match="b"):
        do_all()
    assert calls == ["a=1", "b", "b=None", "b=None", "c=3"]
