"""Which partitions history gets, and which are over."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from webapp.jobs import history
from webapp.jobs.history import Period, days_ahead, is_over, periods_to_make

TODAY = date(2026, 11, 27)
DAY = timedelta(days=1)


def days(first, count):
    """Periods of one day each, from so many days from today on."""
    begin = TODAY + first * DAY
    return [Period(begin + number * DAY, begin + (number + 1) * DAY) for number in range(count)]


@pytest.mark.parametrize(
    ("existing", "first", "made"),
    [
        ([], 0, days(0, 15)),
        ([], 1, days(1, 14)),
        (days(0, 15), 0, []),
        (days(-6, 15), 1, []),
        (days(-7, 15), 1, []),
        (days(-8, 15), 1, days(7, 8)),
        (days(-30, 10), 1, days(1, 14)),
        (days(-30, 31), 0, days(1, 14)),
    ],
)
def test_two_weeks_lie_ahead_and_more_is_made_when_one_is_left(existing, first, made):
    assert periods_to_make(existing, TODAY, TODAY + first * DAY, 30) == made


@pytest.mark.parametrize("kept", [0, 101, 36_500])
def test_what_is_kept_long_lies_in_months(kept):
    assert periods_to_make([], TODAY, TODAY, kept) == [
        Period(TODAY, date(2026, 12, 1)),
        Period(date(2026, 12, 1), date(2027, 1, 1)),
    ]


def test_days_go_on_where_months_end_and_the_other_way_round():
    november = [Period(date(2026, 11, 1), date(2026, 12, 1))]
    assert periods_to_make(november, TODAY, TODAY, 30)[0] == Period(date(2026, 12, 1), date(2026, 12, 2))
    assert periods_to_make(days(0, 3), TODAY, TODAY, 0)[0] == Period(date(2026, 11, 30), date(2026, 12, 1))


@pytest.mark.parametrize(
    ("now", "kept", "over"),
    [
        ("2026-12-27T23:59:59+00:00", 30, False),
        ("2026-12-28T00:00:00+00:00", 30, True),
        ("2026-11-28T00:00:00+00:00", 1, False),
        ("2026-11-29T00:00:00+00:00", 1, True),
        ("2099-01-01T00:00:00+00:00", 0, False),
    ],
)
def test_a_day_is_over_when_its_last_job_is_as_old_as_it_may_be(now, kept, over):
    assert is_over(Period(TODAY, TODAY + DAY), datetime.fromisoformat(now), kept) is over


@pytest.mark.parametrize(
    ("now", "needs_proof", "has_ended", "first"),
    [
        ("09:00", False, False, TODAY),
        ("23:59", False, False, TODAY),
        ("09:00", False, True, TODAY + DAY),
        ("09:00", True, False, TODAY + DAY),
        ("09:00", True, True, TODAY + DAY),
        ("22:59", True, True, TODAY + DAY),
        ("23:00", True, True, TODAY + 2 * DAY),
        ("23:59", True, False, TODAY + 2 * DAY),
    ],
)
def test_a_day_that_may_begin_while_it_is_proved_empty_is_passed_over(now, needs_proof, has_ended, first):
    moment = datetime.fromisoformat(f"{TODAY}T{now}:00+00:00")
    assert history.first_day(moment, needs_proof=needs_proof, has_ended=has_ended) == first


@pytest.mark.parametrize(
    ("existing", "count"),
    [([], 0), (days(0, 1), 0), (days(0, 2), 1), (days(1, 14), 14), (days(2, 5), 0), (days(-3, 10), 6)],
)
def test_days_ahead_are_counted_from_tomorrow_to_the_first_gap(existing, count):
    assert days_ahead(existing, TODAY) == count


def test_names_say_the_first_day_and_bounds_are_read_as_postgresql_writes_them():
    assert days(0, 1)[0].name == "jobs_20261127"
    found = history._BOUNDS.fullmatch(
        "FOR VALUES FROM ('2026-11-27 00:00:00+00') TO ('2026-11-28 00:00:00+00')"
    )
    assert found.groups() == ("2026-11-27", "2026-11-28")
    assert datetime(2026, 11, 27, tzinfo=UTC) == history._midnight(TODAY)
