"""When schedules are due, over changes of the clock: as the page on schedules promises."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import takewhile

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from webapp.schedules import cron, zones
from webapp.schedules.model import Timing
from webapp.schedules.timetable import backwards, between, next_after, upcoming, words

DAY = timedelta(days=1)


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def on(day, expression, zone):
    """The times of a local day and a bit around it, as hours and minutes of UTC."""
    start = at(day)
    found = between(Timing(expression, zone), start - DAY / 2, start + DAY * 1.5)
    return [f"{one:%d %H:%M}" for one in found if one.astimezone(zones.zone_of(zone)).date() == start.date()]


@pytest.mark.parametrize(
    ("day", "zone", "expression", "times"),
    [
        # A fixed time: each local day once. In a gap at the first moment after it, in what comes twice at the first of the two.
        ("2026-03-29", "Europe/Berlin", "30 2 * * *", ["29 01:00"]),
        ("2026-10-25", "Europe/Berlin", "30 2 * * *", ["25 00:30"]),
        ("2026-11-01", "America/New_York", "30 1 * * *", ["01 05:30"]),
        ("2026-04-05", "Australia/Lord_Howe", "45 1 * * *", ["04 14:45"]),
        ("2026-10-04", "Australia/Lord_Howe", "15 2 * * *", ["03 15:30"]),
        ("2018-11-04", "America/Sao_Paulo", "0 0 * * *", ["04 03:00"]),
        ("2026-02-15", "Africa/Casablanca", "30 2 * * *", ["15 01:30"]),
    ],
)
def test_a_day_on_which_the_clock_is_changed(day, zone, expression, times):
    assert on(day, expression, zone) == times


@pytest.mark.parametrize(
    ("day", "zone", "expression", "count"),
    [
        ("2026-03-29", "Europe/Berlin", "0 * * * *", 23),
        ("2026-10-25", "Europe/Berlin", "0 * * * *", 25),
        ("2026-10-25", "Europe/Berlin", "*/30 * * * *", 50),
        ("2026-11-01", "America/New_York", "0 */1 * * *", 25),
        ("2026-04-05", "Australia/Lord_Howe", "*/30 * * * *", 49),
        ("2011-12-30", "Pacific/Apia", "0 * * * *", 0),
        ("2026-06-01", "Europe/Berlin", "0 * * * *", 24),
    ],
)
# A star in the minute or the hour: elapsed time, nothing is left out and nothing doubled.
def test_how_often_what_goes_by_elapsed_time_comes_on_such_a_day(day, zone, expression, count):
    times = on(day, expression, zone)
    assert len(times) == len(set(times)) == count


ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "UTC")
MINUTES = st.sampled_from(["0", "30", "*/30", "15,45", "*/7", "5-50/15"])
HOURS = st.sampled_from(["*", "*/2", "2", "1-3", "0", "23", "0,12", "*/5"])
DAYS = st.sampled_from(["*", "1", "L", "*/3", "15"])
WEEKDAYS = st.sampled_from(["*", "0", "1-5", "MON#1"])
EXPRESSIONS = st.tuples(MINUTES, HOURS, DAYS, st.just("*"), WEEKDAYS).map(" ".join)


@given(expression=EXPRESSIONS, zone=st.sampled_from(ZONES), days=st.integers(0, 700))
def test_forwards_and_backwards_are_the_same_times(expression, zone, days):
    start = at("2025-01-01") + days * DAY
    end = start + 40 * DAY
    timing = Timing(expression, zone)
    forwards = list(between(timing, start, end))
    assert forwards == sorted(set(forwards))
    assert list(takewhile(lambda one: one >= start, backwards(timing, end)))[::-1] == forwards


@given(expression=EXPRESSIONS, zone=st.sampled_from(ZONES), minutes=st.integers(0, 60 * 24 * 365))
def test_what_is_next_and_what_was_last_from_any_moment(expression, zone, minutes):
    moment = at("2026-01-01") + timedelta(minutes=minutes, seconds=17)
    timing = Timing(expression, zone)
    last = next(backwards(timing, moment), None)
    following = next_after(timing, moment)
    assert following is not None
    assert following > moment
    if last is not None:
        assert last <= moment
        assert next_after(timing, last) == following


@pytest.mark.parametrize("day", ["2026-04-04T12:00", "2026-10-03T12:00", "2025-10-04T12:00"])
@pytest.mark.parametrize("expression", ["5-50/15 */5 * * *", "*/7 2 * * *", "0 */2 * * *", "15,45 * * * *"])
def test_no_time_is_passed_by_where_the_clock_is_changed_by_half_an_hour(day, expression):
    zone, start = zones.zone_of("Australia/Lord_Howe"), at(day)
    fields = CronSim(expression, start)
    minutes = [start + timedelta(minutes=one) for one in range(60 * 36)]
    local = [(one, one.astimezone(zone)) for one in minutes]
    expected = [
        one for one, on_wall in local if on_wall.minute in fields.minutes and on_wall.hour in fields.hours
    ]
    assert list(between(Timing(expression, zone.key), start, minutes[-1])) == expected


def test_every_counts_from_its_start():
    timing = Timing(every=7, start_at=at("2026-01-01T00:00:03"))
    assert next_after(timing, at("2025-01-01")) == at("2026-01-01T00:00:03")
    assert next_after(timing, at("2026-01-01T00:00:03")) == at("2026-01-01T00:00:10")
    assert next(backwards(timing, at("2026-01-01T00:00:09"))) == at("2026-01-01T00:00:03")
    assert next(backwards(timing, at("2026-01-01")), None) is None


def test_no_time_is_after_the_end():
    timing = Timing(every=60, end_at=at("2026-01-01T00:01:00"))
    assert upcoming(timing, at("2026-01-01") - DAY / 86_400, 5) == [
        at("2026-01-01"),
        at("2026-01-01T00:01:00"),
    ]
    assert next(backwards(timing, at("2027-01-01"))) == at("2026-01-01T00:01:00")
    assert words(timing) == "Every 60 seconds"


@pytest.mark.parametrize(
    ("expression", "rule"),
    [
        ("0 0 31 2 *", "its day of the month is not one of its months"),
        ("0 0 30 2 *", "its day of the month is not one of its months"),
        ("61 * * * *", "must have a minute"),
        ("0 24 * * *", "must have an hour"),
        ("0 0 32 1 *", "must have a day of the month"),
        ("0 0 1 13 *", "must have a month"),
        ("0 0 * * 8", "must have a day of the week"),
        ("* * *", "must have five fields"),
        ("* * * * * *", "must have five fields"),
        ("@reboot", "must have five fields"),
        ("* * */20 * 1L", "within fifty years there is none"),
        ("0 0 1 1 " + "*" * 100, "at most 100 characters"),
    ],
)
def test_an_expression_that_is_none_is_refused_with_its_field(expression, rule):
    with pytest.raises(ValueError, match=rule):
        cron.check(expression)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("Berlin", "did you mean 'Europe/Berlin'"),
        ("Europe/Berln", "did you mean 'Europe/Berlin'"),
        ("CET", "must be an IANA name"),
        ("EST5EDT", "must be an IANA name"),
        ("+02:00", "must be an IANA name"),
        ("../../etc/passwd", "must be an IANA name"),
        ("", "must be an IANA name"),
    ],
)
def test_a_zone_that_there_is_not_is_refused(name, rule):
    with pytest.raises(ValueError, match=rule):
        zones.zone_of(name)


def test_every_zone_that_is_taken_is_there():
    assert len(zones.names()) > 400
    for name in zones.names():
        assert datetime(2026, 1, 1, tzinfo=zones.zone_of(name)).utcoffset() is not None
