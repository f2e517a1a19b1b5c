"""Submissions that meet are stored by one statement, and each is answered as if it had come alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import psycopg2
import pytest
from factories import new_job, row_of, tables
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from webapp.flow.reach import EVERYTHING
from webapp.infra.postgres import deadlines
from webapp.infra.postgres.database_errors import is_lock_of
from webapp.jobs import groups, insert
from webapp.jobs.errors import KeyRace, KeyReused
from webapp.jobs.options import Options
from webapp.jobs.submission import Accepted, Submission

#: Longest wait for an answer, seconds.
PATIENCE = 20.0
#: What a request has for the database in all, seconds.
BUDGET = 5.0

Meet = Callable[..., list[Future[Accepted]]]


def plain(key: str | None = None, n: int = 0, **options: object) -> Submission:
    return Submission({"task": "noop", "n": n}, key, *([Options(**options)] if options else []))


@pytest.fixture
def meet(service, eventually, monkeypatch) -> Meet:
    """Submits at the same time: all of them come while another submission is being stored."""
    monkeypatch.setattr(groups, "LONGEST_TURN", PATIENCE)
    real = service._store_alone

    def submit(submission: Submission) -> Accepted:
        with deadlines.within(BUDGET):
            return service.submit(submission, EVERYTHING)

    def submit_all(*submissions: Submission) -> list[Future[Accepted]]:
        waiting = service._groups._waiting

        def last(job, *, dispatched):
            monkeypatch.setattr(service, "_store_alone", real)
            eventually(lambda: len(waiting) == len(submissions))
            return real(job, dispatched=dispatched)

        monkeypatch.setattr(service, "_store_alone", last)
        with ThreadPoolExecutor(len(submissions) + 1) as pool:
            first = pool.submit(submit, plain(n=-1))
            eventually(lambda: not service._groups._is_free)
            answers = []
            for number, submission in enumerate(submissions):
                answers.append(pool.submit(submit, submission))
                eventually(lambda number=number: len(waiting) > number or not first.running())
            assert first.result(PATIENCE).created
        return answers

    return submit_all


def transactions(engine, *answers: Accepted) -> int:
    """How many transactions stored these jobs."""
    with engine.connect() as connection:
        return connection.execute(
            text("SELECT count(DISTINCT xmin::text) FROM jobs_living WHERE id = ANY(:ids)"),
            {"ids": [one.job.id for one in answers]},
        ).scalar_one()


@pytest.mark.parametrize("keys", [(None,) * 5, ("e", "d", "c", "b", "a")], ids=["without keys", "with keys"])
def test_those_that_meet_share_a_transaction_and_each_gets_its_own_job(service, engine, meet, keys):
    answers = [one.result() for one in meet(*(plain(key, n) for n, key in enumerate(keys)))]
    assert [one.created for one in answers] == [True] * 5
    assert [one.job.payload["n"] for one in answers] == list(range(5))
    assert [one.job.idempotency_key for one in answers] == list(keys)
    assert all(row_of(engine, one.job.id) == one.job for one in answers)
    assert transactions(engine, *answers) == 1


def test_what_a_job_has_of_its_own_is_kept_in_a_group(engine, meet):
    exact = Submission({"task": "noop", "x": 1e22})
    own = {
        "priority": 9,
        "delay": 60.0,
        "tags": ("a", "b"),
        "max_retries": 0,
        "timeout": 1.5,
        "key": "order-7",
    }
    asked = Submission({"task": "noop"}, None, Options(**own))
    answers = [one.result() for one in meet(plain(), asked, exact)]
    assert transactions(engine, *answers) == 1
    assert all(row_of(engine, one.job.id) == one.job for one in answers)
    _, second, third = (one.job for one in answers)
    assert (second.priority, second.tags, second.max_retries, second.timeout) == (9, ["a", "b"], 0, 1.5)
    assert second.key == "order-7"
    assert second.dispatched_at is None
    assert (second.run_at - second.created_at).total_seconds() == 60.0
    assert third.payload["x"] == 1e22
    assert isinstance(row_of(engine, third.id).payload["x"], float)


def test_the_same_key_twice_is_one_job_and_another_request_under_it_is_refused(engine, meet):
    first, same, other, free = meet(plain("k", 1), plain("k", 1), plain("k", 2), plain("l", 3))
    assert (first.result().created, same.result().created, free.result().created) == (True, False, True)
    assert same.result().job == first.result().job
    with pytest.raises(KeyReused) as caught:
        other.result()
    assert caught.value.job_id == first.result().job.id
    assert len(tables(engine)) == 3


def test_a_key_that_was_used_before_answers_its_job_and_costs_the_others_nothing(service, engine, meet):
    before = service.submit(plain("k", 1), EVERYTHING)
    again, free = meet(plain("k", 1), plain("l", 2))
    assert (again.result().created, again.result().job) == (False, before.job)
    assert free.result().created
    assert transactions(engine, free.result()) == 1


def test_one_that_postgresql_refuses_fails_alone(engine, meet):
    answers = meet(plain(n=0), plain(n=1, max_retries=101), plain(n=2))
    with pytest.raises(IntegrityError):
        answers[1].result()
    assert answers[0].result().created
    assert answers[2].result().created
    assert len(tables(engine)) == 3


@contextmanager
def held_key(engine, key):
    """Another session is about to commit this key."""
    with engine.connect() as connection:
        connection.execute(
            text(
                "INSERT INTO idempotency_keys (key, fingerprint, job_id, expires_at)"
                " VALUES (:key, '', uuidv7(), now() + interval '1 day')"
            ),
            {"key": key},
        )
        yield
        connection.rollback()


def test_a_key_that_another_session_holds_fails_its_own_submission_alone(engine, meet):
    with held_key(engine, "held"):
        stuck, *free = meet(plain("held"), plain("a"), plain("b"))
        assert all(one.result().created for one in free)
        with pytest.raises(KeyRace):
            stuck.result()
    assert len(tables(engine)) == 3


def test_a_group_waits_for_a_key_only_for_a_moment(engine):
    jobs = [new_job(idempotency_key=key) for key in ("a", "held")]
    with held_key(engine, "held"), engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        with pytest.raises(DBAPIError) as caught:
            insert.insert_group(connection, jobs, dispatched=[False, False])
        assert is_lock_of(caught.value, insert.KEYS)
    assert tables(engine) == []


@pytest.mark.parametrize("keys", [(None, None, None), ("a", "b", "c")], ids=["without keys", "with keys"])
def test_a_group_whose_answer_was_lost_is_found_again(service, engine, meet, monkeypatch, keys):
    real = insert.insert_group

    def unheard(connection, jobs, **given):
        real(connection, jobs, **given)
        connection.invalidate()
        raise OperationalError("insert", {}, psycopg2.OperationalError("gone"), connection_invalidated=True)

    monkeypatch.setattr(insert, "insert_group", unheard)
    answers = [one.result() for one in meet(*(plain(key, n) for n, key in enumerate(keys)))]
    assert [one.created for one in answers] == [True] * 3
    assert len(tables(engine)) == 4
    assert transactions(engine, *answers) == 1


def test_a_group_that_never_reached_the_server_is_stored_by_its_members(service, engine, meet, monkeypatch):
    def unsaid(connection, jobs, **given):
        raise OperationalError("insert", {}, psycopg2.OperationalError("gone"))

    monkeypatch.setattr(insert, "insert_group", unsaid)
    answers = [one.result() for one in meet(plain(n=1), plain(n=2))]
    assert [one.created for one in answers] == [True, True]
    assert transactions(engine, *answers) == 2


def test_a_lone_submission_waits_for_no_one(service, monkeypatch):
    monkeypatch.setattr(insert, "insert_group", None)
    began = time.monotonic()
    for n in range(5):
        assert service.submit(plain(n=n), EVERYTHING).created
    assert time.monotonic() - began < PATIENCE
    assert not service._groups._waiting
    assert service._groups._is_free


def test_a_large_job_is_stored_by_itself(service, engine, monkeypatch):
    monkeypatch.setattr(service._groups, "add", None)
    large = Submission({"task": "noop", "text": "x" * groups.LONGEST_PAYLOAD})
    assert row_of(engine, service.submit(large, EVERYTHING).job.id).payload == large.payload
