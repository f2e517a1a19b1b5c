from __future__ import annotations

import pytest

from webapp.infra.broker.client import celery
from webapp.infra.broker.messages import DEAD_LETTER_JOB, EXECUTE_JOB
from webapp.settings import Settings


@pytest.fixture(scope="module", autouse=True)
def configured():
    import tasks.celery  # noqa: F401, PLC0415 - the composition root of the workers


def test_every_task_that_beat_names_is_registered():
    assert {entry["task"] for entry in celery.conf.beat_schedule.values()} <= set(celery.tasks)


def test_every_queue_that_beat_names_exists():
    assert {entry["options"]["queue"] for entry in celery.conf.beat_schedule.values()} == {"maintenance"}
    assert "maintenance" in celery.amqp.queues


def test_every_task_that_the_broker_sends_by_name_is_registered():
    assert {EXECUTE_JOB, DEAD_LETTER_JOB} <= set(celery.tasks)


def test_dispatch_runs_every_second_and_recovery_as_often_as_the_setting_says():
    schedule = {name: entry["schedule"] for name, entry in celery.conf.beat_schedule.items()}
    assert schedule["dispatch_due"] == 1.0
    assert schedule["recover_stuck"] == Settings().stuck_check_interval
    assert schedule["deliver_callbacks"] == 1.0
    assert set(schedule) == {
        *("dispatch_due", "deliver_callbacks", "late_callbacks", "recover_stuck", "expire", "prune"),
        *("keep_history", "seal_audit", "repair_lanes", "count_ends", "fold_figures"),
    }


def test_no_tick_is_judged_by_two_machines_clocks():
    assert not any("expires" in entry["options"] for entry in celery.conf.beat_schedule.values())


def test_flower_hears_of_jobs_and_not_of_ticks():
    ticks = {entry["task"] for entry in celery.conf.beat_schedule.values()}
    ours = {name for name in celery.tasks if name.startswith("tasks.")}
    assert {name for name in ours if not celery.tasks[name].send_events} == ticks
