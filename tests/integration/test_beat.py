"""Beat's scheduler on a real Valkey: ticks are bounded, and Redis may be away."""

from __future__ import annotations

import gc
from itertools import pairwise
from uuid import UUID

import pytest
from celery import signals

from tasks import beat
from tasks.beat import MOST_WAITING, SPREAD, BoundedScheduler
from tasks.liveness import look
from webapp.infra.broker import heartbeats
from webapp.infra.broker.client import celery
from webapp.infra.broker.transport import lists_of
from webapp.infra.telemetry import metrics


@pytest.fixture
def scheduler(parts, settings):
    import tasks.celery  # noqa: F401, PLC0415 - in this process all queues are named

    made = BoundedScheduler(app=celery)
    yield made
    made.close()


def tick_of(scheduler, name="dispatch_due"):
    return scheduler.schedule[name]


def test_ticks_stop_when_no_one_takes_them(scheduler, redis, eventually):
    for _ in range(3 * MOST_WAITING):
        scheduler.apply_async(tick_of(scheduler), advance=False)
    # The length of a queue is measured each time, so the bound is exact.
    assert redis.llen("maintenance") == MOST_WAITING
    redis.delete("maintenance")
    scheduler.apply_async(tick_of(scheduler))
    assert redis.llen("maintenance") == 1
    redis.delete("maintenance")


def test_jobs_that_died_keep_no_tick_waiting(scheduler, redis, parts):
    for number in range(3 * MOST_WAITING):
        assert parts.broker.send_dead_letter(UUID(int=number), 1, "maintenance")
    scheduler.apply_async(tick_of(scheduler), advance=False)
    # Workers empty the lists in this order.
    first, *others = lists_of("maintenance")
    assert redis.llen(first) == 1
    assert sum(redis.llen(name) for name in others) == 3 * MOST_WAITING
    assert (parts.broker.room.most_urgent("maintenance"), parts.broker.room.length("maintenance")) == (1, 31)


def test_no_two_ticks_begin_at_the_same_moment(scheduler):
    began = sorted(entry.last_run_at for entry in scheduler.schedule.values())
    apart = [(later - earlier).total_seconds() for earlier, later in pairwise(began)]
    assert len(apart) == len(scheduler.schedule) - 1
    assert min(apart) > 0.9 * SPREAD / len(scheduler.schedule)
    assert (began[-1] - began[0]).total_seconds() < SPREAD


def test_without_redis_no_tick_is_sent_and_beat_goes_on(scheduler, parts, monkeypatch, closed_port):
    away = parts.settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{closed_port}"})
    monkeypatch.setattr(beat, "current", lambda: away)
    away_from_redis = BoundedScheduler(app=celery)
    assert away_from_redis.apply_async(tick_of(away_from_redis), advance=False) is None
    assert away_from_redis.apply_async(tick_of(away_from_redis)).name == "dispatch_due"
    assert away_from_redis.tick() >= 0
    assert not look(parts.settings.data_dir, "beat", ready=True)[0]
    assert look(parts.settings.data_dir, "beat", ready=False)[0]
    away_from_redis.close()


def test_beat_keeps_its_liveness_file_fresh_until_it_ends(scheduler, parts):
    assert scheduler.tick() <= 1
    assert look(parts.settings.data_dir, "beat", ready=True)[0]
    scheduler.close()
    assert not look(parts.settings.data_dir, "beat", ready=False)[0]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("a bug")])
def test_a_liveness_file_that_cannot_be_written_costs_no_tick(scheduler, redis, monkeypatch, error):
    def fail(**_):
        raise error

    before = metrics.background_failures.labels("beat", "liveness file")._value.get()
    with monkeypatch.context() as patched:
        patched.setattr(scheduler.liveness_file, "write", fail)
        assert scheduler.tick() >= 0
    assert heartbeats.tick_age(redis) < 5
    assert metrics.background_failures.labels("beat", "liveness file")._value.get() == before + 1


def test_what_beat_has_loaded_is_not_searched_for_garbage_while_it_ticks(scheduler, parts):
    before = gc.get_threshold()
    try:
        signals.beat_init.send(sender=None)
        for _ in range(3):
            scheduler.tick()
        assert gc.get_freeze_count() > 10 * len(gc.get_objects())
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
