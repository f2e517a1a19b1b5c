"""How many keys that are not good are looked at from one address."""

from __future__ import annotations

import pytest

from webapp.access import attempts, errors
from webapp.access.attempts import (
    MOST_ADDRESSES,
    MOST_ATTEMPTS,
    WINDOW,
    FailedAttempts,
    Window,
    counted,
    site_of,
    wait_of,
)
from webapp.access.errors import KeysUnknown, NoGoodKey, NotLetIn, TooManyAttempts
from webapp.infra.telemetry import metrics


class Now:
    """A clock that stands."""

    def __init__(self):
        self.seconds = 1_000.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def now():
    return Now()


@pytest.fixture
def failed(now):
    return FailedAttempts(now)


def fails(failed, address):
    """Makes an attempt with a key that is not good; gives the wait that it is answered with, None: it was looked at."""
    attempt = failed.attempt(address)
    try:
        attempt.__enter__()
    except TooManyAttempts as error:
        return error.retry_after
    attempt.__exit__(NoGoodKey, NoGoodKey(), None)
    return None


@pytest.mark.parametrize(
    ("known", "now", "wait"),
    [
        (None, 5.0, 0.0),
        (Window(0.0, 1), 0.0, 0.0),
        (Window(0.0, MOST_ATTEMPTS - 1), 1.0, 0.0),
        (Window(0.0, MOST_ATTEMPTS), 0.0, WINDOW),
        (Window(0.0, MOST_ATTEMPTS), WINDOW - 0.5, 0.5),
        (Window(0.0, MOST_ATTEMPTS), WINDOW, 0.0),
        (Window(0.0, MOST_ATTEMPTS + 5), WINDOW - 1, 1.0),
    ],
)
def test_an_address_waits_for_the_end_of_its_window(known, now, wait):
    assert wait_of(known, now) == wait


@pytest.mark.parametrize(
    ("known", "now", "window"),
    [
        (None, 5.0, Window(5.0, 1)),
        (Window(5.0, 1), 5.0, Window(5.0, 2)),
        (Window(5.0, 7), 4.9 + WINDOW, Window(5.0, 8)),
        (Window(5.0, 7), 5.0 + WINDOW, Window(5.0 + WINDOW, 1)),
    ],
)
def test_a_window_begins_with_the_first_attempt(known, now, window):
    assert counted(known, now) == window


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        (None, "", True),
        ("not an address", "nor this", False),
    ],
)
def test_an_ipv6_client_has_one_site_and_not_each_of_its_addresses(one, other, same):
    assert (site_of(one) == site_of(other)) is same


def test_the_wait_that_is_told_is_true(failed, now):
    assert [fails(failed, "10.0.0.1") for _ in range(MOST_ATTEMPTS)] == [None] * MOST_ATTEMPTS
    now.seconds += 12.3
    wait = fails(failed, "10.0.0.1")
    assert wait == 48
    now.seconds += wait - 1
    assert fails(failed, "10.0.0.1") == 1
    now.seconds += 1
    assert fails(failed, "10.0.0.1") is None


def test_what_does_not_fail_for_the_key_does_not_count(failed):
    for _ in range(3 * MOST_ATTEMPTS):
        with failed.attempt("10.0.0.1"):
            pass
        with pytest.raises(KeysUnknown), failed.attempt("10.0.0.1"):
            raise KeysUnknown
    assert not failed._windows
    assert fails(failed, "10.0.0.1") is None


def test_attempts_at_the_same_time_are_no_more_than_one_after_the_other(failed):
    under_way = [failed.attempt("10.0.0.1") for _ in range(MOST_ATTEMPTS)]
    for one in under_way:
        one.__enter__()
    with pytest.raises(TooManyAttempts), failed.attempt("10.0.0.1"):
        raise AssertionError("is looked at")
    under_way[0].__exit__(None, None, None)
    assert fails(failed, "10.0.0.1") is None


def test_a_fixed_number_of_addresses_is_kept_and_the_oldest_goes(failed, now, monkeypatch):
    assert MOST_ADDRESSES == 10_000
    monkeypatch.setattr(attempts, "MOST_ADDRESSES", 3)
    for last in (1, 2, 3):
        now.seconds += 1
        fails(failed, f"10.0.0.{last}")
    fails(failed, "10.0.0.1")
    fails(failed, "10.0.0.4")
    assert list(failed._windows) == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    now.seconds += WINDOW
    fails(failed, "10.0.0.2")
    fails(failed, "10.0.0.5")
    assert list(failed._windows) == ["10.0.0.4", "10.0.0.2", "10.0.0.5"]


def subclasses(kind):
    return {kind, *(found for one in kind.__subclasses__() for found in subclasses(one))}


def test_every_reason_of_a_refusal_has_its_series_from_the_start():
    assert errors.NoKey in subclasses(NotLetIn)
    reasons = {kind.reason for kind in subclasses(NotLetIn) - {NotLetIn}}
    assert {labels[0] for labels in metrics.auth_refusals._metrics} == reasons
