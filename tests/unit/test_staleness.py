"""How old a replica's view is, by what it and the primary say; which lists may be read from it; how long it is left alone."""

from __future__ import annotations

import math
import threading
from datetime import UTC, datetime
from uuid import UUID

import pytest

from webapp.api.reads import LATEST_COMMIT, oldest_view, shown
from webapp.infra.postgres import deadlines
from webapp.infra.postgres.database_errors import Trouble
from webapp.infra.postgres.replica import AWAY_SECONDS, Absence
from webapp.infra.postgres.staleness import (
    PrimarySays,
    Reason,
    ReplicaSays,
    judged,
    reason_of,
    staleness,
)
from webapp.jobs.filters import first_id

START, LATER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)


def standby(replayed_age=None, heard_age=None, replayed=None, cluster=7, timeline=2):
    return ReplicaSays(cluster, LATER, timeline, True, replayed_age, heard_age, replayed)


def primary(written=50, cluster=7):
    return PrimarySays(cluster, START, 2, written)


def alone(started_at, cluster=7, timeline=2):
    """A server that follows no other."""
    return ReplicaSays(cluster, started_at, timeline, False, replayed_age=0.1, heard_age=0.1)


@pytest.mark.parametrize(
    ("replica", "said", "said_age", "age"),
    [
        # All that is written has been replayed, whatever the clocks say; it was written by the moment the primary said so.
        (standby(replayed_age=900.0, replayed=50), primary(), 0.0, 0.0),
        (standby(replayed_age=900.0, replayed=51), primary(), 3.0, 3.0),
        (standby(replayed_age=0.1, replayed=50), primary(), 3.0, 0.1),
        (standby(replayed_age=900.0, heard_age=0.2, replayed=50), primary(), 3.0, 0.2),
        # Something is missing: what it has heard comes from a server that lacks it as well.
        (standby(replayed_age=900.0, replayed=49), primary(), 0.0, 900.0),
        (standby(replayed_age=900.0, heard_age=0.2, replayed=49), primary(), 3.0, 900.0),
        (standby(heard_age=0.2, replayed=49), primary(), 0.0, None),
        (standby(replayed_age=1.0), primary(), 0.0, 1.0),
        # Its clock is behind the primary's.
        (standby(replayed_age=-0.2, replayed=49), primary(), 0.0, 0.0),
        # DATABASE_URL leads to a standby at the moment.
        (standby(replayed_age=1.0, replayed=50), primary(written=None), 0.0, 1.0),
        # Another system's standby, and one of a server that was the primary before the last promotion.
        (standby(replayed_age=0.0, replayed=50, cluster=8), primary(), 0.0, None),
        (standby(replayed_age=0.0, replayed=90, timeline=1), primary(), 0.0, None),
        (standby(replayed_age=1.0, replayed=49, timeline=3), primary(), 0.0, 1.0),
        # The primary itself, and one that was promoted.
        (alone(START), primary(), 3.0, 0.0),
        (alone(LATER, timeline=3), primary(), 0.0, None),
        (alone(START, cluster=8), primary(), 0.0, None),
        # Nothing is known of the primary.
        (standby(replayed_age=0.0, heard_age=0.0, replayed=50), None, 0.0, None),
        (alone(START), None, 0.0, None),
    ],
)
def test_an_age_is_the_smallest_that_is_proven(replica, said, said_age, age):
    assert staleness(replica, said, said_age) == age


@pytest.mark.parametrize(
    ("age", "at_most", "reason"),
    [
        (None, math.inf, Reason.UNKNOWN),
        (None, 0.0, Reason.UNKNOWN),
        (5.0, math.inf, None),
        (5.1, math.inf, Reason.BEHIND),
        (5.1, 1.0, Reason.BEHIND),
        (2.0, 1.0, Reason.PAGE),
        (1.0, 1.0, None),
        (0.0, 0.0, None),
    ],
)
def test_a_view_is_judged_by_the_bound_and_by_the_list(age, at_most, reason):
    assert judged(age, 5.0, at_most) is reason


@pytest.mark.parametrize("trouble", list(Trouble))
def test_every_trouble_with_the_replica_is_a_reason_for_the_primary(trouble):
    assert reason_of(trouble) in {Reason.AWAY, Reason.CONFLICT, Reason.BUSY, Reason.FAILED}


NOW = 2_000_000_000.0


@pytest.mark.parametrize(
    ("cursor_age", "goes_on", "oldest"),
    [
        (None, False, math.inf),
        (None, True, -math.inf),
        (LATEST_COMMIT, False, 0.0),
        (LATEST_COMMIT + 3, False, 3.0),
        (1.0, False, 1.0 - LATEST_COMMIT),
        (1e6, True, -math.inf),
    ],
)
def test_a_page_is_read_from_a_view_that_has_all_before_its_cursor(cursor_age, goes_on, oldest):
    cursor = None if cursor_age is None else first_id(datetime.fromtimestamp(NOW - cursor_age, UTC))
    assert oldest_view(NOW, cursor=cursor, goes_on=goes_on) == pytest.approx(oldest, abs=0.001)


def test_a_cursor_from_the_far_end_of_time_is_read_from_the_primary():
    assert oldest_view(NOW, cursor=UUID(int=2**128 - 1), goes_on=False) < 0


@pytest.mark.parametrize(
    ("age", "said"), [(0.0, "0.000"), (0.0001, "0.001"), (4.9991, "5.000"), (12.5, "12.500")]
)
def test_an_age_is_never_rounded_down(age, said):
    assert shown(age) == said


def test_one_tries_again_after_a_while_and_the_others_wait_for_what_it_finds():
    now = [100.0]
    absence = Absence(lambda: now[0])
    assert absence.lets_try()
    absence.note()
    assert not absence.lets_try()
    now[0] += AWAY_SECONDS
    assert [absence.lets_try(), absence.lets_try()] == [True, False]
    now[0] += AWAY_SECONDS
    assert absence.lets_try()
    absence.forget()
    assert [absence.lets_try(), absence.lets_try()] == [True, True]


def test_time_apart_is_not_the_primarys():
    with deadlines.within(100.0):
        before = deadlines._local.deadline
        with deadlines.apart(0.5):
            assert deadlines._local.apart
            assert deadlines._local.deadline < before - 50
            with deadlines.rejoined(1.0):
                assert not deadlines._local.apart
            assert deadlines._local.apart
            threading.Event().wait(0.01)
        assert not deadlines._local.apart
        assert deadlines._local.deadline >= before + 0.01
    with deadlines.apart(1.0):
        pass
    assert deadlines._local.deadline is None
