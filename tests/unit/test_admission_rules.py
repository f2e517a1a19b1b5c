from __future__ import annotations

import pytest
from pydantic import ValidationError

from webapp.api.flow_schemas import QueueLimitsRequest
from webapp.flow.admission import (
    CONTINUOUS,
    LATEST,
    MOST_AGE,
    MOST_BEYOND,
    MOST_DEPTH,
    MOST_KEY_DEPTH,
    PERSISTENCE,
    SOONEST,
    Age,
    Bounds,
    Ends,
    Look,
    Refusal,
    Standing,
    counted_up_to,
    drain_of,
    next_age,
    seconds_until,
    windows,
)
from webapp.flow.limits import Limits, QueueLimits

#: The bound of the tables, seconds, and the moment of their looks.
BOUND, NOW = 60.0, 1_000.0
REFUSES = Age(NOW - 20, refuses=True)


@pytest.mark.parametrize(
    ("before", "oldest", "gap", "after"),
    [
        # Young, or none at all: whatever was before.
        (Age(), 0.0, 1.0, Age()),
        (REFUSES, 29.9, 1.0, Age()),
        # Between half of the bound and the bound nothing changes, and the time beyond it begins anew.
        (Age(), 45.0, 1.0, Age()),
        (Age(NOW - 3), 59.0, 1.0, Age()),
        (REFUSES, 30.0, 1.0, Age(None, refuses=True)),
        (REFUSES, 60.0, 1.0, Age(None, refuses=True)),
        # Beyond the bound: since when the job itself has been so, or since one before it was, if looks say so.
        (Age(), 60.5, 1.0, Age(NOW - 0.5)),
        (Age(NOW - 3), 60.5, 1.0, Age(NOW - 3)),
        (Age(NOW - 4.9), 60.5, CONTINUOUS, Age(NOW - 4.9)),
        (Age(NOW - 5.0), 60.5, 1.0, Age(NOW - 5.0, refuses=True)),
        (Age(NOW - 50.0), 60.5, CONTINUOUS + 0.1, Age(NOW - 0.5)),
        (Age(), 60.0 + PERSISTENCE, 900.0, Age(NOW - PERSISTENCE, refuses=True)),
        (Age(None, refuses=True), 60.5, 1.0, Age(NOW - 0.5, refuses=True)),
    ],
)
def test_an_age_trips_when_it_lasts_and_clears_below_half(before, oldest, gap, after):
    assert next_age(before, oldest, BOUND, now=NOW, gap=gap) == after


def test_without_a_bound_nothing_is_too_old():
    assert next_age(REFUSES, 1e6, None, now=NOW, gap=1.0) == Age()


def test_an_age_that_moves_about_its_bound_does_not_flap():
    """Once a second around the bound for a minute, then half of it: one change to refusing, one back."""
    age, refused = Age(), []
    ages = [61.0] * 10 + [59.0, 61.0] * 20 + [31.0] * 5 + [29.0] + [45.0] * 5
    for second, oldest in enumerate(ages):
        age = next_age(age, oldest, BOUND, now=NOW + second, gap=1.0)
        refused.append(age.refuses)
    assert refused == [False] * 4 + [True] * 51 + [False] * 6


@pytest.mark.parametrize(
    ("ends", "oldest", "drain"),
    [
        (Ends(0, 0), 40.0, 0.0),
        (Ends(60, 400), 400.0, 2.0),
        # Few of late: the longer time tells more.
        (Ends(3, 60), 400.0, 0.2),
        # The queue has had work for ten seconds: what was before counts for nothing.
        (Ends(40, 40), 10.0, 4.0),
        (Ends(7, 7), 0.1, 7.0),
        # More than are looked at: those that are cover five seconds.
        (Ends(10_000, 10_000, 5.0), 400.0, 2_000.0),
        (Ends(0, 10_000, 200.0), 400.0, 50.0),
    ],
)
def test_how_quickly_a_queue_drains(ends, oldest, drain):
    assert drain_of(ends, oldest) == pytest.approx(drain)


@pytest.mark.parametrize(
    ("surplus", "drain", "stands_for", "seconds"),
    [
        (1, 0.5, 0.0, 2),
        (100, 2.0, 0.0, 50),
        (101, 2.0, 0.0, 51),
        (1, 2_000.0, 0.0, SOONEST),
        (1_000_000, 1.0, 0.0, LATEST),
        # Nothing leaves: as long again as it stands.
        (1, 0.0, 0.0, SOONEST),
        (1, 0.0, 42.5, 43),
        (1_000, 0.0, 86_400.0, LATEST),
    ],
)
def test_when_a_client_is_told_to_come_again(surplus, drain, stands_for, seconds):
    assert seconds_until(surplus, drain, stands_for) == seconds


def test_what_is_counted_has_a_bound():
    assert counted_up_to(10, 0.0) == 10_010
    assert counted_up_to(10, 200.0) == 60_010
    assert counted_up_to(MOST_DEPTH, 1e9) == MOST_DEPTH + MOST_BEYOND
    assert windows(0.0) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("standing", "room"),
    [
        (Standing(Bounds(max_depth=10)), None),
        (Standing(Bounds(key_max_depth=10), Look(NOW)), None),
        (Standing(Bounds(max_depth=10), Look(NOW, depth=4)), 6),
        (Standing(Bounds(max_depth=10), Look(NOW, depth=4), created=5), 1),
        (Standing(Bounds(max_depth=10), Look(NOW, depth=4), created=9), 0),
        (Standing(Bounds(max_age=60.0), Look(NOW, depth=4)), None),
        (Standing(Bounds(max_age=60.0), Look(NOW, age=REFUSES)), 0),
        (Standing(Bounds(max_depth=10, max_age=60.0), Look(NOW, age=REFUSES)), 0),
        # The bound is gone, and what was found by it as well.
        (Standing(Bounds(max_depth=10), Look(NOW, age=REFUSES)), 10),
    ],
)
def test_what_room_there_is(standing, room):
    assert standing.room == room


def test_a_refusal_names_the_bound_that_takes_longer():
    look = Look(NOW, depth=110, oldest=70.0, age=REFUSES, full_since=NOW - 9, drain=2.0, surplus=40)
    both = Standing(Bounds(100, 60.0), look)
    assert both.refusal() == Refusal("max_age", 60.0, 20)
    assert Standing(Bounds(50, 60.0), look).refusal() == Refusal("max_depth", 50, 31)
    assert Standing(Bounds(100), look).refusal() == Refusal("max_depth", 100, 6)
    # The next of a batch come after those before it, and what has left since the look is not waited for.
    assert Standing(Bounds(100), look).refusal(more=9) == Refusal("max_depth", 100, 10)
    assert Standing(Bounds(100), look, age=3.0, created=8).refusal() == Refusal("max_depth", 100, 7)


def test_where_nothing_leaves_a_client_comes_after_as_long_again():
    paused = Look(NOW, depth=100, oldest=3.0, full_since=NOW - 40)
    assert Standing(Bounds(100), paused, age=0.5).refusal().retry_after == 41
    just_now = Look(NOW, depth=40)
    assert Standing(Bounds(100), just_now, created=60).refusal().retry_after == SOONEST


@pytest.mark.parametrize(
    ("body", "bounds"),
    [
        ({}, Bounds()),
        ({"max_depth": 100, "max_age": 60, "keys": {"max_depth": 5}}, Bounds(100, 60.0, 5)),
        ({"keys": {"max_depth": 5}}, Bounds(key_max_depth=5)),
    ],
)
def test_a_body_becomes_bounds_and_back(body, bounds):
    given = QueueLimitsRequest.model_validate(body).given()
    assert given == QueueLimits(bounds=bounds)
    assert QueueLimitsRequest.model_validate(given.document()).given() == given
    assert not given.hold_jobs
    assert QueueLimits(Limits(4), bounds=bounds).hold_jobs


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"max_depth": 0}, ("max_depth",)),
        ({"max_depth": MOST_DEPTH + 1}, ("max_depth",)),
        ({"max_depth": 1.5}, ("max_depth",)),
        ({"max_depth": True}, ("max_depth",)),
        ({"max_age": 0.5}, ("max_age",)),
        ({"max_age": MOST_AGE + 1}, ("max_age",)),
        ({"max_age": float("nan")}, ("max_age",)),
        ({"keys": {"max_depth": 0}}, ("keys", "max_depth")),
        ({"keys": {"max_depth": MOST_KEY_DEPTH + 1}}, ("keys", "max_depth")),
    ],
)
def test_a_bound_that_breaks_a_rule_is_named(body, field):
    with pytest.raises(ValidationError) as refused:
        QueueLimitsRequest.model_validate(body)
    assert [error["loc"] for error in refused.value.errors()] == [field]
