"""Ended jobs lie in partitions of their days: made ahead, never missed, dropped as a whole."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, time, timedelta

import pytest
from factories import (
    ERROR,
    LEASE,
    WORKER,
    attempts_of,
    claimed,
    completed,
    dead_lettered,
    letters_of,
    new_job,
    queued,
    row_of,
)
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tasks.sweeps.keep_history import run_keep_history
from webapp.flow.reach import EVERYTHING
from webapp.infra.postgres.engine import in_one_trip, in_transaction
from webapp.jobs import control, ends, history, insert, retention, store
from webapp.jobs.history import Period
from webapp.jobs.states import AttemptOutcome

TODAY = datetime.now(UTC).date()
DAY = timedelta(days=1)
#: Far from midnight, before which the next day is left alone.
NOON = datetime.combine(TODAY, time(12), UTC)
NAME = f"jobs_{TODAY:%Y%m%d}"


def place_of(engine, job_id):
    """The partition in which a job lies; None when there is no such job."""
    with engine.connect() as connection:
        return connection.execute(
            text("SELECT tableoid::regclass::text FROM jobs WHERE id = :id"), {"id": job_id}
        ).scalar()


def names(engine):
    with engine.connect() as connection:
        return [period.name for period in history.periods(connection)]


def parts(engine, settings, **changes):
    """What a sweep needs."""

    class Parts:
        pass

    Parts.engine = engine
    Parts.settings = settings.model_copy(update=changes)
    return Parts


@pytest.fixture
def days(app, engine):
    """Makes periods of history by their distance from today; those that a test leaves are as before."""
    before = set(names(engine))

    def make(*distances):
        made = [Period(TODAY + number * DAY, TODAY + (number + 1) * DAY) for number in distances]
        in_transaction(engine, lambda connection: history._make(connection, made))
        return made

    yield make
    made = set(names(engine)) - before
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE jobs, job_attempts, dead_letters"))
        for name in (*made, *history.taken_off(connection)):
            connection.execute(text(f"DROP TABLE {name}"))
    for name in sorted(before - set(names(engine))):
        first = date.fromisoformat(name[5:])
        in_transaction(
            engine, lambda connection, first=first: history._make(connection, [Period(first, first + DAY)])
        )


def ways_to_end(engine):
    """Each way in which a job ends, with the status in which it does."""
    cancelled = queued(engine)
    with engine.begin() as connection:
        control.ask_cancel(connection, cancelled.id)
    expired = queued(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET expires_at = now() WHERE id = :id"), {"id": expired.id})
    with engine.begin() as connection:
        assert retention.cancel_expired(connection, 10) == 1
    many = claimed(engine)
    with engine.begin() as connection:
        assert ends.complete_many(connection, [ends.completed(many, "1", 0.25, 0.5)]) == 1
    asked = claimed(engine)
    with engine.begin() as connection:
        control.ask_cancel(connection, asked.id)
        assert ends.end_attempt(connection, ends.cancelled(asked)).status == "cancelled"
    return {
        completed(engine).id: "completed",
        many.id: "completed",
        dead_lettered(engine).id: "failed",
        cancelled.id: "cancelled",
        expired.id: "cancelled",
        asked.id: "cancelled",
    }


def test_a_job_lives_in_one_table_and_ends_in_that_of_its_day(engine, app):
    assert place_of(engine, queued(engine).id) == place_of(engine, claimed(engine).id) == "jobs_living"
    for job_id, status in ways_to_end(engine).items():
        assert (row_of(engine, job_id).status, place_of(engine, job_id)) == (status, NAME)


def test_a_day_without_a_partition_costs_no_job_its_end(engine, days):
    with engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {NAME}"))
    for job_id, status in ways_to_end(engine).items():
        assert (row_of(engine, job_id).status, place_of(engine, job_id)) == (status, "jobs_living")


def test_days_are_made_ahead_and_from_tomorrow_on_where_something_has_ended_today(engine, days, settings):
    with engine.begin() as connection:
        for period in history.periods(connection):
            connection.execute(text(f"DROP TABLE {period.name}"))
    now = datetime.now(UTC)
    straggler = completed(engine)
    made = history.make_ahead(engine, now, 30)
    assert [period.first for period in made] == [TODAY + number * DAY for number in range(1, 15)]
    assert history.make_ahead(engine, now, 30) == []
    later = now + timedelta(days=8)
    assert [period.first for period in history.make_ahead(engine, later, 30)] == [
        TODAY + number * DAY for number in range(15, 23)
    ]
    assert place_of(engine, straggler.id) == "jobs_living"


def test_where_nothing_has_ended_today_begins_today(engine, days):
    with engine.begin() as connection:
        for period in history.periods(connection):
            connection.execute(text(f"DROP TABLE {period.name}"))
    queued(engine)
    assert history.make_ahead(engine, datetime.now(UTC), 30)[0].first == TODAY
    assert place_of(engine, completed(engine).id) == NAME


def test_a_large_backlog_is_looked_through_before_and_not_while_others_wait(engine, days, monkeypatch):
    monkeypatch.setattr(history, "SMALL", -1)
    with engine.begin() as connection:
        for period in history.periods(connection)[1:]:
            connection.execute(text(f"DROP TABLE {period.name}"))
    queued(engine)
    with engine.connect() as connection:
        promises = text("SELECT count(*) FROM pg_constraint WHERE conname = 'jobs_living_promise'")
        assert history.make_ahead(engine, NOON, 30)[0].first == TODAY + DAY
        assert connection.execute(promises).scalar_one() == 0


def test_a_promise_that_was_left_behind_is_taken_back(engine, days):
    with engine.begin() as connection:
        connection.execute(text(history._literal(history._PROMISE, TODAY, TODAY + DAY)))
    history.make_ahead(engine, datetime.now(UTC), 30)
    with engine.connect() as connection:
        promises = text("SELECT count(*) FROM pg_constraint WHERE conname = 'jobs_living_promise'")
        assert connection.execute(promises).scalar_one() == 0


def old_jobs(engine, period):
    """A job of each end in a day of long ago, and what is left of each elsewhere."""
    jobs = list(ways_to_end(engine))
    retried = claimed(engine)
    with engine.begin() as connection:
        ends.end_attempt(connection, ends.again(retried, AttemptOutcome.FAILED, ERROR, 0))
        (again,) = store.claim(connection, [retried.id], worker_id=WORKER, lease=LEASE)
        assert ends.complete_many(connection, [ends.completed(again, None)]) == 1
    jobs.append(retried.id)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET finished_at = :moment WHERE finished_at IS NOT NULL"),
            {"moment": datetime.combine(period.first, datetime.min.time(), UTC) + timedelta(hours=5)},
        )
    assert {place_of(engine, job_id) for job_id in jobs} == {period.name}
    return jobs


def test_an_old_day_is_dropped_with_all_that_is_left_of_its_jobs(engine, days, settings):
    (day,) = days(-31)
    jobs = old_jobs(engine, day)
    young = completed(engine)
    of = parts(engine, settings, retention_days=31)
    assert run_keep_history(of, datetime.now(UTC)) == []
    of = parts(engine, settings, retention_days=30)
    assert run_keep_history(of, batch=2) == [f"{day.name}_gone"]
    assert day.name not in names(engine)
    for job_id in jobs:
        assert place_of(engine, job_id) is None
        assert attempts_of(engine, job_id) == letters_of(engine, job_id) == []
    assert place_of(engine, young.id) == NAME
    assert len(attempts_of(engine, young.id)) == 1
    assert run_keep_history(of, datetime.now(UTC)) == []


def test_nothing_is_dropped_where_jobs_are_kept_for_ever(engine, days, settings):
    (day,) = days(-400)
    assert run_keep_history(parts(engine, settings, retention_days=0), datetime.now(UTC)) == []
    assert day.name in names(engine)


def test_a_day_whose_jobs_are_being_read_is_dropped_when_they_were(engine, days, settings, monkeypatch):
    (day,) = days(-31)
    old_jobs(engine, day)
    of = parts(engine, settings, retention_days=30)
    with engine.connect() as reader:
        count = text("SELECT count(*) FROM jobs")
        assert reader.execute(count).scalar_one() > 5
        with pytest.raises(DBAPIError, match="lock timeout"):
            run_keep_history(of, datetime.now(UTC))
        # Who comes meanwhile is not kept waiting for the reader.
        assert row_of(engine, completed(engine).id).status == "completed"
        assert reader.execute(count).scalar_one() > 5
    assert run_keep_history(of, datetime.now(UTC)) == [f"{day.name}_gone"]


def test_what_a_sweep_that_died_has_taken_off_is_dropped_by_the_next(engine, days, settings):
    (day,) = days(-31)
    jobs = old_jobs(engine, day)
    history.take_off(engine, day)
    assert place_of(engine, jobs[0]) is None
    assert len(letters_of(engine, jobs[2])) == 1
    of = parts(engine, settings, retention_days=30)
    assert run_keep_history(of, datetime.now(UTC)) == [f"{day.name}_gone"]
    assert letters_of(engine, jobs[2]) == []


def test_a_table_of_somebody_elses_is_left_alone(engine, days, settings):
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE jobs_20200101 AS SELECT 1 AS mine"))
    try:
        assert run_keep_history(parts(engine, settings, retention_days=30)) == []
        with engine.connect() as connection:
            assert connection.execute(text("SELECT mine FROM jobs_20200101")).scalar_one() == 1
    finally:
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE jobs_20200101"))


def test_what_day_it_is_says_postgresql_and_not_the_workers_clock(engine, days, settings, monkeypatch):
    (day,) = days(-31)
    old_jobs(engine, day)
    there = datetime.now(UTC) - timedelta(days=5)
    monkeypatch.setattr(history, "moment", lambda _connection: there)
    assert run_keep_history(parts(engine, settings, retention_days=30)) == []
    assert day.name in names(engine)


def test_jobs_in_no_day_of_history_are_deleted_with_their_attempts_and_dead_letters(engine, app):
    failed, done = dead_lettered(engine), completed(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET finished_at = now() - interval '40 days'"))
    assert place_of(engine, failed.id) == place_of(engine, done.id) == "jobs_living"
    with engine.begin() as connection:
        assert retention.prune(connection, days=30, limit=10) == 2
    assert attempts_of(engine, failed.id) == letters_of(engine, failed.id) == []


def test_a_job_is_found_on_whatever_day_it_ended_and_whatever_its_id_says(engine, days):
    days(-3, 3)
    for moved in (timedelta(days=-3), timedelta(days=3)):
        claim = completed(engine)
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE jobs SET finished_at = finished_at + :moved WHERE id = :id"),
                {"moved": moved, "id": claim.id},
            )
        assert place_of(engine, claim.id) == f"jobs_{TODAY + moved:%Y%m%d}"
        assert row_of(engine, claim.id).id == claim.id


def test_a_look_at_a_young_job_passes_over_the_days_before_it(engine, days):
    days(-40, -39, -38, -3)
    job = queued(engine)
    with engine.connect() as connection:
        statement = store._FIND.by(EVERYTHING).bindparams(
            id=job.id, since=retention.may_end_from(job.id), until=retention.END
        )
        compiled = statement.compile(engine, compile_kwargs={"literal_binds": True})
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {compiled}").scalars())
    assert "jobs_living" in plan
    assert f"jobs_{TODAY - 3 * DAY:%Y%m%d}" not in plan
    assert f"jobs_{TODAY - 40 * DAY:%Y%m%d}" not in plan


def test_a_failed_job_comes_back_from_its_day(engine, days):
    (day,) = days(-2)
    claim = dead_lettered(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET finished_at = finished_at - interval '2 days'"))
        connection.execute(text("UPDATE dead_letters SET dead_at = dead_at - interval '2 days'"))
    assert place_of(engine, claim.id) == day.name
    assert in_transaction(engine, lambda connection: control.requeue(connection, claim.id))
    assert (row_of(engine, claim.id).status, place_of(engine, claim.id)) == ("queued", "jobs_living")
    with engine.begin() as connection:
        (again,) = store.claim(connection, [claim.id], worker_id=WORKER, lease=LEASE)
        assert ends.complete_many(connection, [ends.completed(again, None)]) == 1
    assert [end["outcome"] for end in attempts_of(engine, claim.id)] == ["failed", "completed"]


def test_the_attempt_that_completed_its_job_is_on_record_in_the_job_itself(client, engine):
    claim = claimed(engine)
    with engine.begin() as connection:
        assert ends.complete_many(connection, [ends.completed(claim, "1", 0.25, 0.5)]) == 1
        assert connection.execute(text("SELECT count(*) FROM job_attempts")).scalar_one() == 0
    (attempt,) = client.get(f"/jobs/{claim.id}/attempts").json["items"]
    assert (attempt["attempt"], attempt["outcome"], attempt["worker_id"]) == (1, "completed", WORKER)
    assert attempt["duration"] == pytest.approx(0.25)
    job = row_of(engine, claim.id)
    (recorded,) = attempts_of(engine, claim.id)
    assert recorded["started_at"] == job.last_attempt_at + timedelta(seconds=0.25)
    assert recorded["ended_at"] == job.last_attempt_at + timedelta(seconds=0.5)
    with engine.connect() as connection:
        assert ends.status_after(connection, claim) == "completed"


def test_a_job_that_ended_before_its_submission_was_heard_is_not_stored_again(engine, app):
    job = new_job()
    given = {"dispatched": False, "key_ttl": 60.0}
    first, _ = in_one_trip(engine, lambda connection: insert.insert_or_find(connection, job, **given))
    with engine.begin() as connection:
        (claim,) = store.claim(connection, [first.id], worker_id=WORKER, lease=LEASE)
        assert ends.complete_many(connection, [ends.completed(claim, "1")]) == 1
    again, owner = in_transaction(
        engine, lambda connection: insert.insert_again_or_find(connection, job, **given)
    )
    assert again is None
    assert (owner.job_id, owner.job.status) == (job.id, "completed")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM jobs")).scalar_one() == 1
    other = new_job()
    stored, _ = in_transaction(
        engine, lambda connection: insert.insert_again_or_find(connection, other, **given)
    )
    assert stored.id == other.id


def test_a_row_that_moves_while_it_is_waited_for_is_looked_at_again(engine, app):
    claim = claimed(engine)
    with engine.connect() as ender:
        assert ends.complete_many(ender, [ends.completed(claim, "1")]) == 1
        renewed = []
        waiter = threading.Thread(
            target=lambda: renewed.append(
                in_transaction(
                    engine,
                    lambda connection: store.renew(connection, [claim.id], workers=[WORKER], lease=LEASE),
                )
            )
        )
        waiter.start()
        waits = text(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%lease_expires_at%'"
        )
        with engine.connect() as looker:
            while not looker.execute(waits).scalar_one():
                looker.rollback()
        ender.commit()
    waiter.join(10)
    assert renewed == [set()]


def test_who_waits_for_a_job_is_told_that_it_moved(engine, app):
    claim = claimed(engine)
    raw = engine.raw_connection()
    try:
        raw.driver_connection.autocommit = True
        with raw.cursor() as cursor:
            cursor.execute("LISTEN djps_watched")
            with engine.begin() as connection:
                store.watch(connection, claim.id)
            with engine.begin() as connection:
                assert ends.complete_many(connection, [ends.completed(claim, "1")]) == 1
            cursor.execute("SELECT 1")
        raw.driver_connection.poll()
        assert str(claim.id) in [one.payload for one in raw.driver_connection.notifies]
    finally:
        raw.driver_connection.autocommit = False
        raw.invalidate()
