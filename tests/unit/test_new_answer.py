"""The answer about a job that was just stored says what any later answer about it says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from factories import new_job

from webapp.api.schemas import JobAnswer
from webapp.jobs import insert
from webapp.jobs.options import PLAIN
from webapp.jobs.unique import Unique

NOW = datetime(2030, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
LATER = NOW.astimezone(timezone(timedelta(hours=2))) + timedelta(days=1)


def stored(*times, **changes):
    return insert.new_row(new_job(**changes), *times)


@pytest.mark.parametrize(
    "job",
    [
        stored(NOW, None),
        stored(NOW, NOW, payload={"task": "noop", "deep": {"x": [1, 2.5, None, "é"]}}, idempotency_key="k"),
        stored(NOW, None, LATER, LATER, terms=replace(PLAIN, tags=("a", "b"), priority=9, key="order-7")),
        stored(NOW, NOW, terms=replace(PLAIN, backoff='{"base": 2}', callback_url="https://example.com/")),
        stored(NOW, NOW, terms=replace(PLAIN, backoff="[1, 2]")),
        stored(NOW, NOW, unique=Unique("refresh-17")),
    ],
    ids=["plain", "with a key", "with terms", "with a curve", "with steps", "with a unique key"],
)
def test_it_is_the_checked_one(job):
    new, checked = JobAnswer.of_new(job), JobAnswer.of(job)
    assert new == checked
    assert list(new) == list(checked)
    assert {name: type(value) for name, value in new.items()} == {
        name: type(value) for name, value in checked.items()
    }
