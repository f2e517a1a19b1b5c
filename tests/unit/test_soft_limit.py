from __future__ import annotations

import math
import signal
import threading
import time

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from tasks.attempt.soft_limit import SoftLimit


def busy(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_a_job_that_runs_past_its_time_is_stopped_and_the_next_one_is_not():
    with SoftLimit() as limit:
        limit.begin(0.05)
        began = time.monotonic()
        with pytest.raises(SoftTimeLimitExceeded):
            busy(5)
        assert 0.04 < time.monotonic() - began < 1
        limit.end()
        limit.begin(5)
        busy(0.1)
        limit.end()


def test_the_timer_that_was_set_for_an_earlier_job_stops_a_later_one_at_its_own_time():
    with SoftLimit() as limit:
        limit.begin(0.1)
        limit.end()
        busy(0.06)
        began = time.monotonic()
        limit.begin(0.15)
        with pytest.raises(SoftTimeLimitExceeded):
            busy(5)
        assert 0.14 < time.monotonic() - began < 1


def test_a_job_with_less_time_than_the_one_before_moves_the_timer():
    with SoftLimit() as limit:
        limit.begin(60)
        limit.end()
        limit.begin(0.05)
        began = time.monotonic()
        with pytest.raises(SoftTimeLimitExceeded):
            busy(5)
        assert time.monotonic() - began < 1


def test_between_jobs_no_one_is_stopped():
    with SoftLimit() as limit:
        limit.begin(0.02)
        limit.end()
        busy(0.1)
        assert limit._rings_at == math.inf


def test_hundreds_of_jobs_set_the_timer_once(monkeypatch):
    real, calls = signal.setitimer, []
    monkeypatch.setattr(signal, "setitimer", lambda *given: calls.append(given) or real(*given))
    with SoftLimit() as limit:
        for _ in range(300):
            limit.begin(30)
            limit.end()
        assert len(calls) == 1
    assert calls[-1] == (signal.ITIMER_REAL, 0)


def test_what_had_the_alarm_before_has_it_again():
    before = signal.getsignal(signal.SIGALRM)
    with SoftLimit():
        assert signal.getsignal(signal.SIGALRM) != before
    assert signal.getsignal(signal.SIGALRM) == before


def test_in_another_thread_than_the_main_one_there_is_no_limit():
    ended = []

    def work():
        with SoftLimit() as limit:
            limit.begin(0.01)
            busy(0.05)
            limit.end()
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended == [True]


@pytest.mark.parametrize(
    "use",
    [
        lambda: signal.alarm(60),
        lambda: signal.alarm(0),
        lambda: signal.signal(signal.SIGALRM, signal.SIG_IGN),
        lambda: (signal.signal(signal.SIGALRM, signal.SIG_DFL), signal.setitimer(signal.ITIMER_REAL, 60)),
    ],
    ids=["a later alarm", "no alarm", "ignored", "both"],
)
def test_a_job_that_uses_the_alarm_takes_the_limit_from_no_other(use):
    with SoftLimit() as limit:
        limit.begin(0.1)
        use()
        limit.end()
        limit.take_back()
        limit.begin(0.05)
        with pytest.raises(SoftTimeLimitExceeded):
            time.sleep(5)
        limit.end()
