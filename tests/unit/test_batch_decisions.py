"""What follows when members of a batch end: pure decisions, as a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from webapp.batches import model
from webapp.batches.decisions import Decision, Standing, decide
from webapp.batches.explain import Unfinished, explain
from webapp.batches.model import BatchRow, Event, Pace, Status
from webapp.groups.model import Totals

ALL = frozenset(Event)
NOW = datetime(2030, 1, 1, tzinfo=UTC)
FAILURE, COMPLETE, SUCCESS = Event.FAILURE, Event.COMPLETE, Event.SUCCESS


def standing(status=Status.CLOSED, totals=(2, 0, 0, 0), wanted=ALL, **more):
    given = {"is_closed": status is not Status.OPEN, "is_cancelled": False, "has_notes": False} | more
    return Standing(status, Totals(*totals, 0), wanted=wanted, **given)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # Open: nothing but the first failure is told.
        (standing(Status.OPEN, (2, 2, 0, 0)), Decision(Status.OPEN)),
        (standing(Status.OPEN, (2, 0, 1, 0)), Decision(Status.OPEN, events=(FAILURE,))),
        (standing(Status.OPEN, (2, 0, 1, 0), ALL - {FAILURE}), Decision(Status.OPEN)),
        # Closed, and some have not ended.
        (standing(totals=(2, 1, 0, 0)), Decision(Status.CLOSED)),
        # Over, in each way.
        (standing(totals=(0, 0, 0, 0)), Decision(Status.COMPLETED, ends=True, events=(COMPLETE, SUCCESS))),
        (standing(totals=(2, 2, 0, 0)), Decision(Status.COMPLETED, ends=True, events=(COMPLETE, SUCCESS))),
        (standing(totals=(2, 1, 1, 0)), Decision(Status.FAILED, ends=True, events=(FAILURE, COMPLETE))),
        (standing(totals=(2, 0, 1, 1)), Decision(Status.FAILED, ends=True, events=(FAILURE, COMPLETE))),
        (standing(totals=(2, 1, 0, 1)), Decision(Status.CANCELLED, ends=True, events=(COMPLETE,))),
        (
            standing(totals=(2, 0, 1, 1), is_cancelled=True),
            Decision(Status.CANCELLED, ends=True, events=(FAILURE, COMPLETE)),
        ),
        (
            standing(totals=(2, 2, 0, 0), is_cancelled=True, wanted=frozenset()),
            Decision(Status.COMPLETED, ends=True),
        ),
        # Not said while ends are noted that are not counted.
        (standing(totals=(2, 2, 0, 0), has_notes=True), Decision(Status.CLOSED)),
        (standing(totals=(2, 1, 1, 0), has_notes=True), Decision(Status.CLOSED, events=(FAILURE,))),
        # Over already: once.
        (standing(Status.COMPLETED, (2, 2, 0, 0), frozenset()), Decision(Status.COMPLETED)),
        (standing(Status.FAILED, (2, 1, 1, 0), frozenset({SUCCESS})), Decision(Status.FAILED)),
        # It goes on, and ends anew; be it that both is found at once.
        (standing(Status.FAILED, (2, 1, 0, 0), frozenset({SUCCESS})), Decision(Status.CLOSED, reopens=True)),
        (
            standing(Status.FAILED, (2, 2, 0, 0), frozenset({SUCCESS})),
            Decision(Status.COMPLETED, reopens=True, ends=True, events=(SUCCESS,)),
        ),
        (standing(Status.FAILED, (2, 2, 0, 0), has_notes=True), Decision(Status.FAILED)),
    ],
)
def test_what_follows(before, after):
    assert decide(before) == after


def test_nothing_follows_twice():
    first = decide(standing(totals=(2, 1, 1, 0)))
    again = standing(first.status, (2, 1, 1, 0), ALL - set(first.events))
    assert decide(again).is_nothing


def test_a_rate_goes_by_the_last_while():
    pace = model.paced(None, NOW, 10)
    assert pace == Pace(NOW, 10, NOW, 10)
    assert Pace.of(pace.document()) == pace
    assert Pace.of(None) is None
    assert model.rate_of(pace, NOW + timedelta(seconds=0.5), 20) is None
    assert model.rate_of(pace, NOW + timedelta(seconds=10), 20) == 1
    assert model.paced(pace, NOW + timedelta(seconds=5), 20) is None
    later = model.paced(pace, NOW + timedelta(seconds=20), 60)
    assert model.rate_of(later, NOW + timedelta(seconds=30), 60) == pytest.approx(50 / 30)
    latest = model.paced(later, NOW + timedelta(seconds=40), 60)
    assert model.rate_of(latest, NOW + timedelta(seconds=50), 60) == 0


def batch(status=Status.CLOSED, totals=(4, 1, 0, 0), **more):
    """A batch as it stands."""
    empty = dict.fromkeys(BatchRow.__slots__)
    known = {"status": status, "totals": Totals(*totals, 0), "options": {}, "now": NOW, "tenant": "default"}
    known["closed_at"] = None if status is Status.OPEN else NOW
    return BatchRow(**(empty | known | more))


def test_the_expected_end_is_said_where_it_is_known():
    pace = Pace(NOW - timedelta(seconds=10), 0, NOW, 1)
    assert batch(pace=pace).rate == pytest.approx(0.1)
    assert batch(pace=pace).expected_at == NOW + timedelta(seconds=30)
    assert batch(Status.OPEN, pace=pace).expected_at is None, "more may come"
    assert batch(pace=Pace(NOW - timedelta(seconds=10), 1, NOW, 1)).expected_at is None, "nothing ends"
    assert batch().rate is None
    over = batch(Status.COMPLETED, (1, 1, 0, 0), pace=pace)
    assert (over.rate, over.expected_at) == (None, None)


@pytest.mark.parametrize(
    ("found", "workers", "state", "words"),
    [
        (batch(Status.FAILED, (4, 3, 1, 0)), 1, "final", "failed: 3 of 4 members completed, 1 failed"),
        (batch(), 1, "running", "3 of its 4 members have not ended: 2 wait, 1 run"),
        (batch(Status.OPEN), 1, "open", "takes jobs until it is closed"),
        (batch(Status.OPEN, (1, 1, 0, 0), deadline=NOW), 1, "open", "closes itself at 2030-01-01T00:00:00Z"),
        (batch(cancel_requested_at=NOW), 1, "cancelling", "it is being cancelled: 2 wait, 1 run"),
        (batch(totals=(1, 1, 0, 0)), 1, "counting", "within a second"),
        (batch(totals=(1, 1, 0, 0)), None, "counting", "within a second"),
        (batch(totals=(1, 1, 0, 0)), 0, "not_counted", "no maintenance worker"),
    ],
)
def test_why_a_batch_is_not_over(found, workers, state, words):
    told = explain(found, Unfinished(2, 1, 0, 0), lambda: workers)
    assert told.state == state
    assert words in told.sentence


def test_many_are_not_counted_one_by_one():
    told = explain(batch(totals=(20_002, 0, 0, 0)), Unfinished(10_001, 0, 1, 0), lambda: 1)
    assert "more than 10000 wait, 1 are batches" in told.sentence
