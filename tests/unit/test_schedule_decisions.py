"""What becomes of the times of a schedule: caught up, in turns, or passed over."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from webapp.schedules.decisions import AT_ONCE, Standing, decide, decide_now
from webapp.schedules.model import CatchUp, Kind, Outcome, Overlap, Spec, Timing, shift_of

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTELY = Spec(Timing(cron="* * * * *"), {"payload": {"task": "noop"}}, overlap=Overlap.ALLOW_ALL)


def later(**by):
    return NOON + timedelta(**by)


def told(decision):
    """The firings as short texts: the time, its kind, what became of it."""
    return [
        f"{one.at:%H:%M:%S} {one.kind} {one.outcome}" + (f" to {one.until:%H:%M:%S}" if one.until else "")
        for one in decision.firings
    ]


def test_what_is_not_due_is_left():
    assert decide(MINUTELY, Standing(later(minutes=1)), NOON) is None


def test_what_is_due_fires_and_the_next_time_follows_from_it():
    decision = decide(MINUTELY, Standing(NOON), later(seconds=20))
    assert told(decision) == ["12:00:00 scheduled fired"]
    assert (decision.newest, decision.next_at) == (NOON, later(minutes=1))


@pytest.mark.parametrize(
    ("catch_up", "firings"),
    [
        (CatchUp.SKIP, ["12:00:00 scheduled missed to 12:09:00", "12:10:00 scheduled fired"]),
        (
            CatchUp.LAST,
            [
                "12:00:00 scheduled missed to 12:08:00",
                "12:09:00 caught_up fired",
                "12:10:00 scheduled fired",
            ],
        ),
        (
            CatchUp.ALL,
            [*(f"12:{one:02}:00 caught_up fired" for one in range(10)), "12:10:00 scheduled fired"],
        ),
    ],
)
def test_what_was_missed_is_caught_up_as_asked(catch_up, firings):
    decision = decide(replace(MINUTELY, catch_up=catch_up), Standing(NOON), later(minutes=10, seconds=30))
    assert told(decision) == firings
    assert decision.next_at == later(minutes=11)


def test_what_is_late_by_less_than_its_grace_was_not_missed():
    spec = replace(MINUTELY, catch_up=CatchUp.SKIP, grace=121)
    decision = decide(spec, Standing(NOON), later(minutes=2))
    assert told(decision) == [f"12:0{one}:00 scheduled fired" for one in range(3)]
    assert told(decide(spec, Standing(NOON), later(minutes=2, seconds=1)))[0].startswith(
        "12:00:00 scheduled missed"
    )


def test_all_catches_up_so_many_and_no_older_ones():
    spec = replace(MINUTELY, catch_up=CatchUp.ALL, catch_up_limit=2)
    assert told(decide(spec, Standing(NOON), later(minutes=10, seconds=30))) == [
        "12:00:00 scheduled missed to 12:07:00",
        "12:08:00 caught_up fired",
        "12:09:00 caught_up fired",
        "12:10:00 scheduled fired",
    ]
    spec = replace(MINUTELY, catch_up=CatchUp.ALL, catch_up_window=200)
    assert told(decide(spec, Standing(NOON), later(minutes=10, seconds=30)))[:2] == [
        "12:00:00 scheduled missed to 12:07:00",
        "12:08:00 caught_up fired",
    ]


@pytest.mark.parametrize("catch_up", list(CatchUp))
def test_years_of_it_cost_no_more_than_what_is_caught_up(catch_up):
    spec = replace(MINUTELY, catch_up=catch_up, catch_up_limit=1_000, catch_up_window=366 * 86_400)
    decision = decide(spec, Standing(NOON - timedelta(days=800)), NOON)
    assert len(decision.firings) <= 1_002
    assert decision.next_at == later(minutes=1)


def test_no_more_than_a_thousand_fire_at_once_and_the_rest_is_missed():
    spec = replace(MINUTELY, timing=Timing(every=1), grace=86_400, catch_up=CatchUp.SKIP)
    decision = decide(spec, Standing(NOON), later(hours=1))
    assert len(decision.firings) == 1_001
    assert decision.firings[0].outcome is Outcome.MISSED
    assert decision.firings[0].reason == AT_ONCE


@pytest.mark.parametrize(
    ("overlap", "is_open", "buffered", "expected"),
    [
        (Overlap.SKIP, False, 0, ["fired", "skipped", "skipped"]),
        (Overlap.SKIP, True, 0, ["skipped", "skipped", "skipped"]),
        (Overlap.BUFFER_ONE, False, 0, ["fired", "buffered", "skipped"]),
        (Overlap.BUFFER_ONE, True, 1, ["skipped", "skipped", "skipped"]),
        # One that waits is not overtaken, though the job before has just ended.
        (Overlap.BUFFER_ONE, False, 1, ["skipped", "skipped", "skipped"]),
        (Overlap.BUFFER_ALL, False, 1, ["buffered", "buffered", "buffered"]),
        (Overlap.BUFFER_ALL, True, 99, ["buffered", "skipped", "skipped"]),
        (Overlap.ALLOW_ALL, True, 0, ["fired", "fired", "fired"]),
        (Overlap.CANCEL_OTHER, False, 0, ["skipped", "skipped", "fired"]),
        (Overlap.CANCEL_OTHER, True, 1, ["skipped", "skipped", "buffered"]),
        (Overlap.TERMINATE_OTHER, True, 0, ["skipped", "skipped", "buffered"]),
    ],
)
def test_what_becomes_of_a_time_while_the_one_before_is_open(overlap, is_open, buffered, expected):
    spec = replace(MINUTELY, overlap=overlap, grace=600)
    decision = decide(spec, Standing(NOON, 0, is_open, buffered), later(minutes=2))
    assert [one.outcome.value for one in decision.firings] == expected
    stops = overlap in {Overlap.CANCEL_OTHER, Overlap.TERMINATE_OTHER}
    assert (decision.stops, decision.drops) == (stops and is_open, stops and buffered > 0)
    assert all(one.reason for one in decision.firings if one.outcome is not Outcome.FIRED)


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.BUFFER_ONE, Overlap.BUFFER_ALL])
def test_what_is_caught_up_takes_turns_whatever_the_overlap(overlap):
    spec = replace(MINUTELY, overlap=overlap, catch_up=CatchUp.ALL, grace=1)
    decision = decide(spec, Standing(NOON), later(minutes=2, seconds=30))
    assert [one.outcome.value for one in decision.firings] == ["fired", "buffered", "buffered"]


def test_a_schedule_that_has_fired_often_enough_has_no_next_time():
    spec = replace(MINUTELY, max_firings=3, grace=600)
    decision = decide(spec, Standing(NOON, fired=1), later(minutes=5))
    assert [one.outcome.value for one in decision.firings] == ["fired", "fired"]
    assert decision.next_at is None
    assert decide(spec, Standing(NOON, fired=0), later(minutes=1)).next_at == later(minutes=2)


def test_a_schedule_ends_with_its_last_day():
    spec = replace(MINUTELY, timing=Timing(every=60, end_at=later(minutes=1)))
    assert decide(spec, Standing(NOON), later(minutes=1)).next_at is None


@pytest.mark.parametrize(
    ("overlap", "outcome"),
    [(Overlap.SKIP, "skipped"), (Overlap.ALLOW_ALL, "fired"), (Overlap.BUFFER_ONE, "buffered")],
)
def test_a_run_by_hand_goes_by_the_overlap(overlap, outcome):
    decision = decide_now(replace(MINUTELY, overlap=overlap), Standing(NOON, is_open=True), NOON)
    (firing,) = decision.firings
    assert (firing.outcome.value, firing.kind) == (outcome, Kind.MANUAL)


def test_jitter_is_a_share_that_stays():
    shifts = {shift_of(UUID(int=one), 60) for one in range(200)}
    assert len(shifts) > 150
    assert all(0 <= one < 60 for one in shifts)
    assert shift_of(UUID(int=7), 60) == shift_of(UUID(int=7), 60)


def test_a_spec_is_what_its_document_says():
    spec = replace(
        MINUTELY,
        timing=Timing("0 6 * * *", "Europe/Berlin", start_at=NOON, end_at=later(days=3)),
        catch_up=CatchUp.ALL,
        max_firings=7,
        time_key="at",
        jitter=5,
    )
    assert Spec.of(spec.document()) == spec
    assert Spec.of({"every": 5, "job": {}}).catch_up is CatchUp.LAST
