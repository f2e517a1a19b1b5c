"""What the fault suite says of answers to those who follow and steer: nothing of right ones, and each wrong one has a name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ops.chaos.followers import Reading, Said, Told, events_in
from ops.chaos.following import check

JOB = "a"
#: The job ended at this moment, and PostgreSQL was away during that one.
ENDED, AWAY = 100.0, (50.0, 52.0)


class Observed:
    """What the checker asks of a system: one job, the effects of cancelled ones, and lines of the record that are wrong.

    Args:
        record: words of a question about the record that finds something; none: no such question does.
    """

    def __init__(self, status, effects=(), record=None):
        self._status = status
        self._effects = list(effects)
        self._record = record

    def rows(self, sql, *_values):
        if "audit_events" in sql:
            return [(JOB, self._status)] if self._record is not None and self._record in sql else []
        return self._effects if "effects" in sql else [(JOB, self._status, ENDED)]


class Followed:
    """Followers that were told this."""

    def __init__(self, told=(), readings=()):
        self.told = list(told)
        self.readings = list(readings)


def broken(told=(), readings=(), *, status="completed", effects=(), record=None, database_away=True):
    found = check(
        Observed(status, effects, record),
        "prefix",
        Followed(told, readings),
        [AWAY],
        database_away=database_away,
    ).found
    return {name for name, examples in found.items() if examples}


WAITED = Told("wait", JOB, asked=99.0, at=100.1, status=200, says="completed", wait=3.0)
UNFINISHED = replace(WAITED, asked=95.0, at=98.0, says="processing")
REFUSED = replace(WAITED, asked=50.5, at=50.6, status=503, says="", retry_after=True)
CANCELLED = Told("cancel", JOB, asked=99.9, at=100.05, status=200, says="cancelled")
ASKED = replace(CANCELLED, status=202, says="processing")
TOO_LATE = replace(CANCELLED, status=409, says="", asked=100.1, at=100.2)
AGAIN = Told("again", JOB, asked=100.2, at=100.3, status=204)


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (WAITED, "completed"),
        (UNFINISHED, "completed"),
        (REFUSED, "completed"),
        (CANCELLED, "cancelled"),
        (ASKED, "cancelled"),
        (ASKED, "completed"),
        (TOO_LATE, "completed"),
        (TOO_LATE, "failed"),
        (AGAIN, "completed"),
    ],
)
def test_a_right_answer_has_no_name(told, status):
    assert broken([told], status=status) == set()


@pytest.mark.parametrize(
    ("told", "status", "name"),
    [
        (replace(WAITED, job_id="b"), "completed", "F1 answers about no job"),
        (replace(WAITED, status=0, says=""), "completed", "F1 waits without an answer"),
        (replace(WAITED, status=500, says=""), "completed", "F1 waits without an answer"),
        (replace(REFUSED, retry_after=False), "completed", "F1 waits without an answer"),
        (replace(REFUSED, asked=70.0, at=70.1), "completed", "F1 waits without an answer"),
        (WAITED, "cancelled", "F1 told another end"),
        (replace(UNFINISHED, at=95.5), "completed", "F1 waits that ended early"),
        (replace(WAITED, at=104.0), "completed", "F1 told too late"),
        (replace(UNFINISHED, asked=100.5, at=103.5), "completed", "F1 told too late"),
        (replace(AGAIN, status=200), "completed", "F2 events after the last one"),
        (CANCELLED, "completed", "F3 cancelled jobs that are not"),
        (ASKED, "failed", "F3 asked jobs that ended otherwise"),
        (TOO_LATE, "cancelled", "F3 refused to cancel what had not ended"),
        (replace(TOO_LATE, at=99.0), "completed", "F3 refused to cancel what had not ended"),
        (replace(CANCELLED, status=0), "cancelled", "F3 cancels without an answer"),
    ],
)
def test_each_wrong_answer_is_named(told, status, name):
    assert broken([told], status=status) == {name}


def test_without_an_outage_a_503_is_no_answer():
    assert broken([REFUSED], database_away=False) == {"F1 waits without an answer"}


def test_an_effect_of_a_cancelled_job_is_named():
    assert broken(effects=[(JOB, 1)], status="cancelled") == {"F4 effects of cancelled jobs"}


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ("count(*)", "F5 cancels that are not on record once"),
        ("NOT IN", "F5 cancels on record that were not done"),
        ("transitions", "F5 cancels and their lines of two transactions"),
    ],
)
def test_a_cancel_that_does_not_fit_its_line_is_named(record, name):
    assert broken(record=record, status="cancelled") == {name}


QUEUED = Said("state", 1, "queued", 0, None)
FIRST = Said("state", 2, "processing", 1, None)
HALF = Said("progress", 3, "processing", 1, 2.0)
FINAL = Said("final", 4, "completed", 1, None)


def streams(*parts, end="final"):
    """The streams of one job, each with these events; all but the last were hung up by the client."""
    return [
        Reading(
            JOB, 0, 99.0, events=list(events), end="hung up" if events is not parts[-1] else end, ended=100.1
        )
        for events in parts
    ]


@pytest.mark.parametrize(
    "parts", [[[QUEUED, FIRST, HALF, FINAL]], [[QUEUED], [FIRST, HALF], [FINAL]], [[FINAL]]]
)
def test_right_streams_have_no_name(parts):
    assert broken(readings=streams(*parts)) == set()


@pytest.mark.parametrize(
    ("readings", "name"),
    [
        (streams([QUEUED], [QUEUED, FINAL]), "F2 ids that do not grow"),
        (streams([replace(FIRST, attempt=2), HALF, FINAL]), "F2 attempts that go back"),
        (streams([replace(HALF, id=2), replace(HALF, done=1.0), FINAL]), "F2 progress that goes back"),
        (streams([FIRST, replace(FINAL, status="failed")]), "F2 told another end"),
        (streams([FINAL, replace(FINAL, id=5)]), "F2 streams without one end"),
    ],
)
def test_each_wrong_stream_is_named(readings, name):
    assert broken(readings=readings) == {name}


@pytest.mark.parametrize("end", ["", "ended", "broken", "503", "500"])
def test_a_stream_that_ends_without_final_is_named(end):
    assert broken(readings=streams([FIRST], end=end)) == {
        "F2 streams that ended without final",
        "F2 streams without one end",
    }


def test_a_stream_refused_while_postgresql_is_away_and_read_later_is_right():
    refused = Reading(JOB, 0, 50.5, retry_after=True, end="503", ended=50.6)
    assert broken(readings=[refused, *streams([FIRST, FINAL])]) == set()


def test_delays_are_counted_from_the_end_or_from_the_question():
    later = replace(WAITED, asked=101.0, at=101.25)
    found = check(Observed("completed"), "prefix", Followed([WAITED, later]), [], database_away=False)
    assert [round(seconds, 2) for seconds in found.late] == [0.1, 0.25]
    assert found.answers == {"wait 200": 2}


def test_events_are_read_as_they_come():
    lines = [
        b"retry: 1000\n",
        b"\n",
        b": ping\n",
        b"\n",
        b"event: progress\n",
        b"id: 17\n",
        b'data: {"status": "processing", "attempt": 2, "progress": {"done": 3}}\n',
        b"\n",
    ]
    assert list(events_in(iter(lines))) == [Said("progress", 17, "processing", 2, 3)]
