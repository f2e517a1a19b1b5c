"""Beat's scheduler on a real Valkey: ticks are bounded, and Redis may be away."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tasks import clock
from tasks.beacon import look
from tasks.clock import MOST_WAITING, SPREAD, Clock
from webapp import heartbeats, metrics
from webapp.broker import celery


@pytest.fixture
def beat(parts, settings):
    import tasks.celery  # noqa: F401, PLC0415 - the composition root of beat

    made = Clock(app=celery)
    yield made
    made.close()


def tick_of(beat, name="dispatch_due"):
    return beat.schedule[name]


def test_ticks_stop_when_nobody_takes_them(beat, redis, eventually):
    for _ in range(3 * MOST_WAITING):
        beat.apply_async(tick_of(beat), advance=False)
    # The length of a queue is measured each time, so the bound is exact.
    assert redis.llen("maintenance") == MOST_WAITING
    redis.delete("maintenance")
    beat.apply_async(tick_of(beat))
    assert redis.llen("maintenance") == 1
    redis.delete("maintenance")


def test_no_two_ticks_begin_at_the_same_moment(beat):
    began = sorted(entry.last_run_at for entry in beat.schedule.values())
    apart = [(later - earlier).total_seconds() for earlier, later in pairwise(began)]
    assert len(apart) == len(beat.schedule) - 1
    assert min(apart) > 0.9 * SPREAD / len(beat.schedule)
    assert (began[-1] - began[0]).total_seconds() < SPREAD


def test_without_redis_no_tick_is_sent_and_beat_goes_on(beat, parts, monkeypatch, closed_port):
    away = type(parts.broker)(f"redis://127.0.0.1:{closed_port}", buffer=1)
    monkeypatch.setattr(
        clock, "runtime", lambda: type(parts)(parts.settings, parts.engine, away, parts.queue, parts.policy)
    )
    assert beat.apply_async(tick_of(beat), advance=False) is None
    assert beat.apply_async(tick_of(beat)).name == "dispatch_due"
    assert beat.tick() >= 0
    assert not look(parts.settings.data_dir, "beat", ready=True)[0]
    assert look(parts.settings.data_dir, "beat", ready=False)[0]


def test_beat_keeps_its_beacon_lit_until_it_ends(beat, parts):
    assert beat.tick() <= 1
    assert look(parts.settings.data_dir, "beat", ready=True)[0]
    beat.close()
    assert not look(parts.settings.data_dir, "beat", ready=False)[0]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("a bug")])
def test_a_liveness_file_that_cannot_be_written_costs_no_tick(beat, redis, monkeypatch, error):
    def fail(**_):
        raise error

    before = metrics.background_failures.labels("beat", "liveness file")._value.get()
    with monkeypatch.context() as patched:
        patched.setattr(beat._beacon, "light", fail)
        assert beat.tick() >= 0
    assert heartbeats.tick_age(redis) < 5
    assert metrics.background_failures.labels("beat", "liveness file")._value.get() == before + 1
