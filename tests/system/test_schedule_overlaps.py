"""Schedules of a whole system: runs that overlap or must not, what is killed, and what is late after an outage."""

from __future__ import annotations

import signal
import time
from itertools import pairwise

import pytest

pytestmark = pytest.mark.system

#: Times of a schedule of each second that are watched.
WATCHED = 9
#: Seconds for which no one looks at schedules.
AWAY = 6.0
#: When each attempt of a schedule's jobs ran, seconds; one that runs has no end.
_RUNS = """
    SELECT extract(epoch FROM a.started_at)::float8, extract(epoch FROM a.ended_at)::float8
      FROM firings AS f JOIN schedules AS s ON s.id = f.schedule_id JOIN attempts AS a ON a.job_id = f.job_id
     WHERE s.name = %s ORDER BY a.started_at"""
_TIMES = """
    SELECT count(*), count(DISTINCT f.at), count(*) FILTER (WHERE f.outcome = 'fired'),
           count(*) FILTER (WHERE f.outcome = 'skipped'), extract(epoch FROM max(f.at) - min(f.at))::int + 1
      FROM firings AS f JOIN schedules AS s ON s.id = f.schedule_id WHERE s.name = %s"""


@pytest.fixture
def put(fleet):
    """Makes a schedule of each second, and pauses it in the end."""
    made = []

    def make(name, **spec):
        answer = fleet.http.put(f"{fleet.url}/schedules/{name}", json={"every": 1, **spec}, timeout=10)
        assert answer.status_code == 201, answer.text
        made.append(name)

    yield make
    for name in made:
        fleet.http.delete(f"{fleet.url}/schedules/{name}", timeout=10)


def steer(fleet, name, verb):
    assert fleet.http.post(f"{fleet.url}/schedules/{name}/{verb}", timeout=10).status_code == 200


@pytest.mark.parametrize("overlap", ["skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other"])
def test_no_run_begins_before_the_one_before_has_ended(fleet, put, eventually, overlap):
    long = {"payload": {"task": "sleep", "seconds": 1.6}}
    # One that does not stop when it is asked: only its process can be ended.
    stubborn = {"payload": {"task": "stubborn"}, "timeout": 60, "max_retries": 0}
    put(overlap, overlap=overlap, job=stubborn if overlap == "terminate_other" else long)
    eventually(lambda: fleet.rows(_TIMES, overlap)[0][0] >= WATCHED, 60)
    steer(fleet, overlap, "pause")
    times, distinct, fired, skipped, expected = fleet.rows(_TIMES, overlap)[0]
    assert times == distinct == expected
    runs = fleet.rows(_RUNS, overlap)
    assert all(before[1] is not None and before[1] <= later[0] for before, later in pairwise(runs))
    assert len(runs) >= 3
    # One may be cancelled before it begins.
    assert len(runs) <= fired
    if overlap in {"skip", "buffer_one"}:
        assert skipped >= 2
    if overlap == "buffer_all":
        assert skipped == 0


def test_runs_may_overlap_where_they_may(fleet, put, eventually):
    put("allowed", overlap="allow_all", job={"payload": {"task": "async-quick", "n": 1}, "delay": 1.5})
    eventually(lambda: fleet.rows(_TIMES, "allowed")[0][2] >= 5)
    steer(fleet, "allowed", "pause")
    times, distinct, fired, _, expected = fleet.rows(_TIMES, "allowed")[0]
    assert times == distinct == fired == expected


def test_what_came_while_no_one_looked_is_caught_up_as_each_schedule_asks(fleet, put, eventually):
    job = {"payload": {"task": "noop"}}
    for name in ("skip", "last", "all"):
        put(f"catch-{name}", catch_up=name, grace=1, overlap="allow_all", job=job)
    eventually(
        lambda: all(fleet.rows(_TIMES, f"catch-{name}")[0][2] >= 2 for name in ("skip", "last", "all"))
    )
    fleet.stop("maintenance", signal.SIGKILL)
    eventually(lambda: time.time() - newest(fleet, "catch-all") > AWAY, 60)
    fleet.start("maintenance")
    before = time.time()
    eventually(lambda: newest(fleet, "catch-all") > before, 60)
    for name in ("skip", "last", "all"):
        steer(fleet, f"catch-{name}", "pause")
    lines = {name: outcomes(fleet, f"catch-{name}") for name in ("skip", "last", "all")}
    assert {outcome for outcome, _ in lines["all"]} == {"fired"}
    times, distinct, fired, _, expected = fleet.rows(_TIMES, "catch-all")[0]
    assert times == distinct == fired == expected
    assert ("missed", "scheduled") in lines["skip"]
    assert ("fired", "caught_up") not in lines["skip"]
    assert lines["last"].count(("fired", "caught_up")) == lines["last"].count(("missed", "scheduled")) >= 1


def newest(fleet, name):
    (found,) = fleet.rows(
        "SELECT extract(epoch FROM max(f.at))::float8 FROM firings AS f JOIN schedules AS s ON s.id = f.schedule_id WHERE s.name = %s",
        name,
    )
    return found[0] or 0.0


def outcomes(fleet, name):
    return fleet.rows(
        "SELECT f.outcome, f.kind FROM firings AS f JOIN schedules AS s ON s.id = f.schedule_id WHERE s.name = %s ORDER BY f.at",
        name,
    )
