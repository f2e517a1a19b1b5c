"""How much a key may use, and what it may give of that."""

from __future__ import annotations

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from webapp.access.quotas import Quotas, beyond, given, quotas_of
from webapp.access.windows import MOST_KEPT, WINDOW, Refused, Verdict, Windows, decided


@pytest.mark.parametrize(
    ("found", "quotas"),
    [
        (None, None),
        ({}, None),
        ({"max_waiters": None}, None),
        ({"max_waiters": 3, "submit_per_minute": 60}, Quotas(max_waiters=3, submit_per_minute=60)),
        # By hand, or by a later release.
        ({"max_waiters": "3", "read_per_minute": True, "of_a_later_release": 1}, None),
    ],
)
def test_a_rows_quotas_are_those_that_are_numbers_and_known(found, quotas):
    assert quotas_of(found) == quotas
    assert quotas_of(given(quotas)) == quotas


@pytest.mark.parametrize(
    ("has", "wanted", "words"),
    [
        (None, None, []),
        (None, Quotas(max_waiters=1_000), []),
        (Quotas(max_waiters=3), Quotas(max_waiters=3), []),
        (Quotas(max_waiters=3), Quotas(max_waiters=2, read_per_minute=1), []),
        (Quotas(max_waiters=3), Quotas(max_waiters=4), ["max_waiters above 3"]),
        # None stands for as much as all others, which is more.
        (Quotas(submit_per_minute=1_000), None, ["submit_per_minute above 1,000"]),
        (Quotas(max_waiters=3), Quotas(read_per_minute=1), ["max_waiters above 3"]),
    ],
)
def test_a_key_gives_no_more_than_it_may_use(has, wanted, words):
    assert beyond(has, wanted) == words


@pytest.mark.parametrize(
    ("spent", "cost", "verdict"),
    [
        ({}, 1, Verdict(1, 0)),
        ({}, 60, Verdict(60, 0)),
        ({}, 61, Verdict(0, None)),
        ({1000: 59}, 1, Verdict(60, 0)),
        ({1000: 60}, 1, Verdict(60, WINDOW + 1)),
        # The end of the second in which it was used, and the minute behind that.
        ({1000 - WINDOW: 60}, 1, Verdict(60, 1)),
        ({1000 - WINDOW - 1: 60}, 60, Verdict(60, 0)),
        # As much must go as is needed, and not all.
        ({950: 20, 960: 20, 970: 20}, 20, Verdict(60, 11)),
        ({950: 20, 960: 20, 970: 20}, 21, Verdict(60, 21)),
        ({950: 20, 960: 20, 970: 20}, 60, Verdict(60, 31)),
        ({950: 20, 970: 20}, 21, Verdict(40, 11)),
    ],
)
def test_what_may_be_used_in_second_1000_of_60_a_minute(spent, cost, verdict):
    assert decided(spent, 1000, cost, 60) == verdict


class _Away:
    """A Redis that does not answer; how often it was asked."""

    def __init__(self):
        self.asked = 0

    def register_script(self, _script):
        return self._ask

    def _ask(self, **_):
        from redis.exceptions import ConnectionError as Gone  # noqa: PLC0415 - the builtin has its name

        self.asked += 1
        raise Gone


@pytest.fixture
def alone():
    """Windows of a process that has no Redis, their clock, and Redis."""
    redis, clock = _Away(), [1000.0]
    return Windows(redis, lambda: clock[0]), clock, redis


def test_without_redis_a_process_counts_for_itself(alone):
    windows, clock, _ = alone
    assert [windows.spend("a", 30, 60) for _ in range(3)] == [Verdict(30, 0), Verdict(60, 0), Verdict(60, 61)]
    assert windows.spend("b", 1, 60) == Verdict(1, 0)
    clock[0] += 61
    assert windows.spend("a", 60, 60) == Verdict(60, 0)


def test_without_redis_it_is_asked_once_a_second(alone):
    windows, clock, redis = alone
    for _ in range(10):
        windows.spend("a", 1, 60)
    assert redis.asked == 1
    clock[0] += 1.5
    windows.spend("a", 1, 60)
    assert redis.asked == 2


def test_what_a_process_keeps_is_bounded(alone):
    windows, _, _ = alone
    for number in range(MOST_KEPT + 10):
        windows.spend(str(number), 60, 60)
    assert len(windows._kept) == MOST_KEPT
    # What was used longest ago is forgotten.
    assert windows.spend("0", 1, 60).is_taken
    assert not windows.spend(str(MOST_KEPT), 1, 60).is_taken


@drawn(
    spent=st.dictionaries(st.integers(930, 1000), st.integers(1, 30), max_size=12),
    at=st.floats(1000, 1000.999),
    cost=st.integers(1, 60),
    later=st.floats(0, 70),
    more=st.integers(0, 20),
)
def test_what_is_refused_without_asking_would_be_refused(spent, at, cost, later, more):
    """Also when the others of its window have used nothing since, and with a true wait."""
    verdict = decided(spent, int(at), cost, 60)
    refused = Refused.by(verdict, at, cost, 60)
    if refused is None:
        return
    said = refused.says(at + later, cost + more, 60)
    if said is not None:
        asked = decided(spent, int(at + later), cost + more, 60)
        assert not asked.is_taken
        assert asked.wait is None or said.wait <= asked.wait + 1
