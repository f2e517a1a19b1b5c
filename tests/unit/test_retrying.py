from __future__ import annotations

import itertools

import psycopg2
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy.exc import OperationalError

from tasks import retrying
from tasks.retrying import tries_until, until_database_answers


@pytest.mark.parametrize(("deadline", "tries"), [(-1.0, 1), (0.0, 2), (2.9, 4), (3.0, 5)])
def test_tries_go_on_until_the_deadline_has_passed(deadline, tries):
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    assert list(tries_until(deadline, 1.0, clock=lambda: now, sleep=sleep)) == list(range(1, tries + 1))


@pytest.mark.parametrize(
    "error", [OperationalError("", {}, psycopg2.OperationalError("away")), SoftTimeLimitExceeded()]
)
def test_work_that_comes_through_is_not_done_again(monkeypatch, error):
    monkeypatch.setattr(retrying, "PAUSE", 0.0)
    results = iter([error, error, 17, 18])

    def work() -> int:
        if isinstance(result := next(results), Exception):
            raise result
        return result

    assert until_database_answers(work, 60.0, "not yet") == 17
    assert next(results) == 18


def test_the_last_failure_is_raised_when_the_share_of_the_lease_is_over(monkeypatch, caplog):
    monkeypatch.setattr(retrying, "PAUSE", 0.0)
    numbers = itertools.count()

    def work() -> None:
        raise OperationalError(f"try {next(numbers)}", {}, psycopg2.OperationalError("away"))

    with pytest.raises(OperationalError, match=r"try 0\b"):
        until_database_answers(work, -1.0, "not yet")
    assert caplog.messages == ["not yet"]
    with pytest.raises(ValueError, match="a bug"):
        until_database_answers(lambda: (_ for _ in ()).throw(ValueError("a bug")), 60.0, "not yet")
