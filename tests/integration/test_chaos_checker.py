"""The fault suite's checker: it says nothing of a clean history, and names every kind of violation."""

from __future__ import annotations

import json
import time

import pytest
from ending import complete
from factories import claimed, queued
from sqlalchemy import text

from ops.chaos import checker, schema, spans
from ops.chaos.history import Event, Exchange, History
from webapp.jobs import store

ENDS = {"plain": ("completed",)}
PREFIX = "scenario"


class Observed:
    """What the checker asks of a system, answered from the tests' own servers."""

    def __init__(self, engine, redis):
        self._engine = engine
        self.redis = lambda: redis

    def rows(self, sql, *values):
        connection = self._engine.raw_connection()
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, values or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.commit()
            connection.close()

    def orphans(self):
        return []


@pytest.fixture
def observed(engine, redis, clean):
    made = Observed(engine, redis)
    made.rows(schema.INSTALL)
    yield made
    made.rows(
        "DROP TABLE effects, transitions, final_writes; DROP FUNCTION note_transition CASCADE;"
        " DROP FUNCTION note_final_write CASCADE; DROP FUNCTION be_slow; DROP FUNCTION be_deadlocked"
    )


@pytest.fixture
def history(tmp_path):
    made = History(tmp_path / "history.jsonl")
    yield made
    made.close()


def accept(history, job_id, seq=0, status=201):
    operation = history.operations.get(seq) or history.begin(seq, f"{PREFIX}-{seq}", "plain")
    history.invoke(operation)
    history.end(operation, Event.OK, Exchange(0.0, 0.01, status, retry_after=False), str(job_id))


def finished(engine, observed, seq=0):
    """A job of the scenario that was claimed, had its effect, and completed."""
    claim = claimed(engine, task="chaos.effect", idempotency_key=f"{PREFIX}-{seq}")
    observed.rows(
        "INSERT INTO effects (job_id, attempt, pid, started_at, ended_at, committed)"
        " VALUES (%s, 1, 1, now() - interval '2 s', now() - interval '1 s', true)",
        str(claim.id),
    )
    with engine.begin() as connection:
        assert complete(connection, claim, '{"attempt": 1}')
    return claim


def verdict(observed, history):
    return checker.check(observed, history, PREFIX, ENDS)


def broken(observed, history):
    return {name for name, count in verdict(observed, history).counts.items() if count}


def test_a_clean_history_has_no_findings(engine, observed, history):
    accept(history, finished(engine, observed).id)
    found = verdict(observed, history)
    assert (found.findings, found.overlaps) == ([], 0)
    assert len(found.counts) > 15


VIOLATIONS = {
    "I2 second final transitions": "INSERT INTO transitions (job_id, attempt, old, new) VALUES (%(id)s, 1, 'processing', 'completed')",
    "I2 writes to final rows": "UPDATE jobs SET last_error = 'late' WHERE id = %(id)s",
    "I3 double effects": "INSERT INTO effects (job_id, attempt, pid, committed) VALUES (%(id)s, 1, 2, true)",
    "I3 completed without effect": "UPDATE effects SET committed = false WHERE job_id = %(id)s",
    "I3 stale effects": "INSERT INTO effects (job_id, attempt, pid, started_at) VALUES (%(id)s, 2, 2, now() - interval '90 s')",
    "I3 stale writes": "UPDATE jobs SET ended_by = 'somebody else' WHERE id = %(id)s",
    "I4 overlaps": "INSERT INTO effects (job_id, attempt, pid, started_at) SELECT job_id, 1, 2, ended_at - interval '1 ms' FROM effects",
    "I5 attempts without an end": "UPDATE jobs SET ended_by = NULL WHERE id = %(id)s",
    "I5 ends that do not match": "INSERT INTO job_attempts (job_id, attempt, worker_id, started_at, outcome) VALUES (%(id)s, 1, 'w', now(), 'lost')",
    "I7 effects of no job": "INSERT INTO effects (job_id, attempt, pid) VALUES (gen_random_uuid(), 1, 1)",
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_each_violation_in_the_database_is_named(engine, observed, history, name):
    job = finished(engine, observed)
    accept(history, job.id)
    observed.rows(VIOLATIONS[name].replace("%(id)s", f"'{job.id}'"))
    assert name in broken(observed, history)


def test_an_accepted_job_that_is_not_final_or_not_there_is_lost(engine, observed, history):
    waiting = queued(engine, task="chaos.effect", idempotency_key=f"{PREFIX}-0")
    accept(history, waiting.id)
    assert broken(observed, history) == {"I1 lost", "I8 not drained"}
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM jobs"))
    assert broken(observed, history) == {"I1 lost", "I10 answered and never stored"}


def test_a_job_that_ends_in_the_wrong_way_is_named(engine, observed, history):
    accept(history, finished(engine, observed).id)
    found = checker.check(observed, history, PREFIX, {"plain": ("failed",)})
    assert found.counts["I1 ended otherwise"] == 1


def test_two_ids_for_one_key_a_job_no_one_asked_for_and_bad_answers_are_named(engine, observed, history):
    accept(history, finished(engine, observed, 0).id)
    accept(history, finished(engine, observed, 1).id)
    finished(engine, observed, 2)
    operation = history.begin(3, f"{PREFIX}-3", "plain")
    history.end(operation, Event.UNKNOWN, Exchange(0.0, 0.1, 500, retry_after=False))
    history.end(operation, Event.UNKNOWN, Exchange(0.0, 5.0, 0, retry_after=False))
    assert broken(observed, history) == {
        "I6 keys with two ids",
        "I7 jobs no one asked for",
        "HTTP 500",
        "HTTP hangs",
    }


def test_messages_that_stay_behind_are_named(engine, observed, history, redis, monkeypatch):
    monkeypatch.setattr(checker, "RESIDUE_PATIENCE", 0.0)
    accept(history, finished(engine, observed).id)
    redis.lpush("default", "left behind")
    assert broken(observed, history) == {"I9 left behind"}


#: In seconds from now: the earlier execution's begin and end, and the later one's begin.
OVERLAP = (-20.0, -5.0, -10.0)


def overlapping(engine, observed, history, *, pid=11):
    """Two executions of an accepted job that overlap; the earlier one was in the process `pid`."""
    job = finished(engine, observed)
    accept(history, job.id)
    began, ended, later = OVERLAP
    observed.rows(
        "UPDATE effects SET pid = %s, started_at = now() + make_interval(secs => %s),"
        " ended_at = now() + make_interval(secs => %s)",
        pid,
        began,
        ended,
    )
    observed.rows(
        "INSERT INTO effects (job_id, attempt, pid, started_at) VALUES (%s, 1, 12, now() + make_interval(secs => %s))",
        str(job.id),
        later,
    )


STOPS = {
    "the earlier one's process stood still meanwhile": ((11, -18.0, -6.0), 1),
    "it went on a moment before the later one began": ((11, -18.0, -11.0), 1),
    "nothing was stopped": (None, 0),
    "only the later one's process was stopped": ((12, -18.0, -6.0), 0),
    "it was stopped after the later one had begun": ((11, -9.0, -6.0), 0),
    "it was stopped for less than its lease": ((11, -11.0, -9.0), 0),
    "it went on long before the later one began": ((11, -19.0, -14.0), 0),
    "it was stopped before it began": ((11, -60.0, -30.0), 0),
}


@pytest.mark.parametrize(("stop", "excused"), STOPS.values(), ids=STOPS.keys())
def test_an_overlap_is_excused_by_a_stop_of_the_earlier_ones_process_and_by_nothing_else(
    engine, observed, history, stop, excused
):
    overlapping(engine, observed, history)
    if stop is not None:
        pid, began, ended = stop
        history.stopped([99, pid], time.time() + began, time.time() + ended)
    found = verdict(observed, history)
    assert (found.overlaps, found.counts["I4 overlaps"]) == (excused, 1 - excused)


def test_what_was_stopped_is_in_the_history(history, tmp_path):
    history.stopped([7, 8], 100.0, 112.0)
    assert [(one.pid, one.began, one.ended) for one in history.stops] == [
        (7, 100.0, 112.0),
        (8, 100.0, 112.0),
    ]
    written = json.loads((tmp_path / "history.jsonl").read_text())
    assert written == {"at": 112.0, "event": "stop", "pids": [7, 8], "from": 100.0, "to": 112.0}


def test_recovery_counts_from_the_end_of_the_fault_or_the_submission(engine, observed, history):
    observed.rows(
        "INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint, idempotency_key, status,"
        " created_at, finished_at) SELECT gen_random_uuid(), 'chaos.effect', '{\"ms\": 1}', 'default', 1, 1, '',"
        " 'scenario-' || n, 'completed', to_timestamp(n), to_timestamp(n + 10) FROM unnest(ARRAY[95, 103, 200]) n"
    )
    assert sorted(checker.recoveries(observed, PREFIX, [(100.0, 101.0)])) == [4.0]
    assert sorted(checker.recoveries(observed, PREFIX, [(100.0, 104.0)])) == [1.0, 9.0]


def test_what_is_claimed_in_the_transaction_of_an_end_was_handed_on(engine, observed):
    began, later = time.time() - 1.0, time.time() + 60.0
    assert spans.handed_on(observed, PREFIX, began, later) == 0.0
    first = claimed(engine, idempotency_key=f"{PREFIX}-1")
    second, third = (queued(engine, idempotency_key=f"{PREFIX}-{number}") for number in (2, 3))
    for ends, begins in (([first], [second.id]), ([], [third.id])):
        with engine.begin() as connection:
            for claim in ends:
                assert complete(connection, claim, None)
            assert store.claim(connection, begins, worker_id=first.worker_id, lease=60.0)
    assert spans.handed_on(observed, PREFIX, began, later) == pytest.approx(1 / 3)
    assert spans.handed_on(observed, PREFIX, later, later + 1.0) == 0.0
