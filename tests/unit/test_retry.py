from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.jobs.errors import Discard, JobTimeout, Retry, Snooze
from webapp.jobs.retry import ComeBack, DeathReason, GiveUp, RetryPolicy, TryAgain

EXHAUSTED = GiveUp(DeathReason.EXHAUSTED)
DISCARDED = GiveUp(DeathReason.DISCARDED)


@pytest.mark.parametrize(
    ("base", "cap", "retry", "wait"),
    [
        (2.0, 60.0, 1, 2.0),
        (2.0, 60.0, 2, 4.0),
        (2.0, 60.0, 3, 8.0),
        (2.0, 60.0, 5, 32.0),
        (2.0, 60.0, 6, 60.0),
        (2.0, 60.0, 100_000, 60.0),
        (1.0, 60.0, 9, 1.0),
        (3.0, 0.0, 1, 0.0),
        (100.0, 86_400.0, 2, 10_000.0),
    ],
)
def test_the_wait_grows_by_the_base_up_to_the_cap(base, cap, retry, wait):
    assert RetryPolicy(base, cap).delay(retry) == wait


@pytest.mark.parametrize(("chance", "wait"), [(0.0, 8.0), (0.5, 6.0), (1.0, 4.0)])
def test_jitter_takes_off_its_share_of_the_wait(chance, wait):
    assert RetryPolicy(2, 60, jitter=0.5).delay(3, chance=lambda: chance) == wait


@pytest.mark.parametrize(
    ("error", "used", "allowed", "decision"),
    [
        (ValueError("x"), 0, 3, TryAgain(2.0)),
        (ValueError("x"), 1, 3, TryAgain(4.0)),
        (ValueError("x"), 2, 3, TryAgain(8.0)),
        (ValueError("x"), 3, 3, EXHAUSTED),
        (ValueError("x"), 9, 3, EXHAUSTED),
        (ValueError("x"), 0, 0, EXHAUSTED),
        (JobTimeout(1), 0, 3, TryAgain(2.0)),
        (Discard("no use"), 0, 3, DISCARDED),
        (Discard("no use"), 3, 3, DISCARDED),
        (Retry(after=0), 0, 3, TryAgain(0.0)),
        (Retry(after=500), 0, 3, TryAgain(500.0)),
        (Retry("later"), 1, 3, TryAgain(4.0)),
        (Retry(after=1), 3, 3, EXHAUSTED),
        (Snooze(5), 0, 3, ComeBack(5.0)),
        (Snooze(0), 3, 3, ComeBack(0.0)),
    ],
    ids=repr,
)
def test_a_failure_leads_to_another_try_or_to_the_dead_letters(error, used, allowed, decision):
    assert RetryPolicy().after_failure(error, retry_count=used, max_retries=allowed) == decision


@pytest.mark.parametrize(
    ("used", "allowed", "decision"), [(0, 3, TryAgain(0.0)), (2, 3, TryAgain(0.0)), (3, 3, EXHAUSTED)]
)
def test_a_lost_attempt_is_tried_again_at_once_within_the_budget(used, allowed, decision):
    assert RetryPolicy().after_loss(retry_count=used, max_retries=allowed) == decision


def test_a_job_that_always_fails_runs_at_0_2_6_and_14_seconds():
    policy, at, starts, used = RetryPolicy(), 0.0, [0.0], 0
    while isinstance(
        decision := policy.after_failure(ValueError(), retry_count=used, max_retries=3), TryAgain
    ):
        at, used = at + decision.delay, used + 1
        starts.append(at)
    assert starts == [0.0, 2.0, 6.0, 14.0]


@given(base=st.floats(1, 100), cap=st.floats(0, 86_400), jitter=st.floats(0, 1), retry=st.integers(1, 10_000))
def test_no_wait_is_negative_or_above_the_cap(base, cap, jitter, retry):
    assert 0 <= RetryPolicy(base, cap, jitter).delay(retry) <= cap


@given(base=st.floats(1, 100), cap=st.floats(0, 86_400))
def test_without_jitter_no_wait_is_shorter_than_the_one_before(base, cap):
    waits = [RetryPolicy(base, cap).delay(retry) for retry in range(1, 40)]
    assert all(early <= late for early, late in pairwise(waits))


@pytest.mark.parametrize("after", [-1, -0.1, float("nan"), float("inf"), float("-inf")])
def test_a_handler_cannot_ask_for_an_impossible_wait(after):
    with pytest.raises(ValueError, match=rf"after must be a number from 0 to .*{after!r}"):
        Retry(after=after)


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [
        (None, [2.0, 4.0, 8.0, 16.0]),
        ({}, [2.0, 4.0, 8.0, 16.0]),
        ({"base": 3}, [3.0, 9.0, 27.0, 60.0]),
        ({"max": 5}, [2.0, 4.0, 5.0, 5.0]),
        ({"base": 10, "max": 300}, [10.0, 100.0, 300.0, 300.0]),
        ([7], [7.0, 7.0, 7.0, 7.0]),
        ([1, 10, 60], [1.0, 10.0, 60.0, 60.0]),
        ([0, 0.5], [0.0, 0.5, 0.5, 0.5]),
    ],
    ids=repr,
)
def test_a_jobs_own_backoff_comes_before_the_settings(backoff, waits):
    policy = RetryPolicy(base=2, cap=60).of_job(backoff)
    assert [policy.delay(retry) for retry in (1, 2, 3, 4)] == waits


def test_a_jobs_own_jitter_comes_before_the_settings():
    assert RetryPolicy(jitter=0).of_job({"jitter": 0.5}).delay(3, chance=lambda: 1.0) == 4.0
    assert RetryPolicy(jitter=0.5).of_job({"base": 2}).delay(3, chance=lambda: 1.0) == 4.0
    assert RetryPolicy(jitter=0.5).of_job([8]).delay(3, chance=lambda: 1.0) == 8.0


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_no_snooze_is_endless_or_in_the_past(seconds):
    with pytest.raises(ValueError, match="seconds must be a number from 0 to"):
        Snooze(seconds)
