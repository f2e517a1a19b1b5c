"""When the holder of a unique key counts, and which jobs of a batch are stored."""

from __future__ import annotations

import json
from dataclasses import replace
from uuid import UUID

import pytest
from factories import new_job
from uuid_utils.compat import uuid7

from webapp.jobs.groups import may_join
from webapp.jobs.options import Options
from webapp.jobs.unique import Holder, OnConflict, Unique, While, counts, place

QUEUED, UNFINISHED = While.QUEUED, While.UNFINISHED
HOLDER = Holder(UUID(int=1), lasts=False, status="queued", attempt=0)


@pytest.mark.parametrize(
    ("states", "seconds", "asks"),
    [
        (None, None, UNFINISHED),
        (None, 60.0, None),
        (QUEUED, None, QUEUED),
        (QUEUED, 60.0, QUEUED),
        (UNFINISHED, 60.0, UNFINISHED),
    ],
)
def test_what_counts_where_not_all_is_said(states, seconds, asks):
    assert Unique("k", states, seconds).asks is asks


@pytest.mark.parametrize(
    ("status", "attempt", "while_queued", "while_unfinished"),
    [
        ("queued", 0, True, True),
        ("queued", 1, False, True),
        ("processing", 1, False, True),
        ("completed", 1, False, False),
        ("failed", 4, False, False),
        ("cancelled", 0, False, False),
        (None, None, False, False),
    ],
)
def test_a_holder_counts_by_its_state_and_by_its_time(status, attempt, while_queued, while_unfinished):
    holder = replace(HOLDER, status=status, attempt=attempt)
    assert counts(holder, Unique("k", QUEUED)) is while_queued
    assert counts(holder, Unique("k", UNFINISHED)) is while_unfinished
    assert counts(holder, Unique("k")) is while_unfinished
    assert counts(holder, Unique("k", seconds=60.0)) is False
    lasting = replace(holder, lasts=True)
    assert all(counts(lasting, Unique("k", states)) for states in (None, QUEUED, UNFINISHED))


def jobs_of(*given):
    """Jobs with an idempotency key and what they ask of a unique key, in this order."""
    return [new_job(id=uuid7(), idempotency_key=key, unique=unique) for key, unique in given]


ONE, OTHER, BRIEFLY = Unique("one"), Unique("other"), Unique("one", seconds=5.0)


@pytest.mark.parametrize(
    ("given", "holders", "owned", "held", "takers"),
    [
        ([(None, None), (None, None)], {}, [], {}, {}),
        (
            [(None, ONE), (None, ONE), (None, OTHER), (None, ONE)],
            {},
            [],
            {1: 0, 3: 0},
            {"one": 0, "other": 2},
        ),
        ([(None, ONE), (None, OTHER)], {"one": HOLDER}, [], {0: "holder"}, {"other": 1}),
        ([(None, ONE)], {"one": replace(HOLDER, status="completed")}, [], {}, {"one": 0}),
        # One that asks for no states is stored beside one that has no time, and holds the key after it.
        ([(None, ONE), (None, BRIEFLY), (None, BRIEFLY)], {}, [], {2: 1}, {"one": 1}),
        # What an idempotency key was used for answers before anything is judged, also in the same batch.
        ([("a", ONE)], {"one": HOLDER}, ["a"], {}, {}),
        ([("a", ONE), ("a", ONE), ("b", ONE)], {}, [], {2: 0}, {"one": 0}),
        ([("a", None), ("a", ONE), ("b", ONE)], {}, [], {}, {"one": 2}),
        # One that was not stored has not used its idempotency key.
        ([("a", ONE), ("a", OTHER)], {"one": HOLDER}, [], {0: "holder"}, {"other": 1}),
    ],
)
def test_of_some_jobs_with_one_key_the_first_is_stored(given, holders, owned, held, takers):
    jobs = jobs_of(*given)
    placing = place(jobs, holders, owned)
    assert placing.held == {
        jobs[number].id: HOLDER.job_id if by == "holder" else jobs[by].id for number, by in held.items()
    }
    assert placing.takers == {key: jobs[number] for key, number in takers.items()}
    assert {job.id for job in placing.takers.values()} <= placing.takes


REPLACING = Unique("one", on_conflict=OnConflict.REPLACE)
BEGUN = replace(HOLDER, status="processing", attempt=1)


@pytest.mark.parametrize(
    ("given", "holders", "replacing", "changes", "stored"),
    [
        # The last of those that replace it is what a job is.
        (
            [(None, REPLACING), (None, REPLACING)],
            {"one": HOLDER},
            {0: "holder", 1: "holder"},
            {"holder": 1},
            {},
        ),
        ([(None, ONE), (None, REPLACING), (None, REPLACING)], {}, {1: 0, 2: 0}, {}, {0: 2}),
        ([(None, REPLACING), (None, ONE)], {}, {}, {}, {0: 0}),
        # What has begun is left alone, and what counts by its time is in the way.
        ([(None, REPLACING), (None, REPLACING)], {"one": BEGUN}, {1: 0}, {}, {0: 1}),
        ([(None, REPLACING)], {"one": replace(BEGUN, lasts=True)}, {}, {}, {}),
        ([(None, REPLACING)], {"one": replace(HOLDER, lasts=True)}, {0: "holder"}, {"holder": 0}, {}),
        ([(None, REPLACING)], {"one": replace(HOLDER, attempt=1)}, {}, {}, {0: 0}),
        # What the caller does not reach is left alone, and is in the way of all that ask for its key.
        ([("a", REPLACING), ("a", REPLACING)], {"one": replace(HOLDER, is_reached=False)}, {}, {}, {}),
        # One that replaces has used its idempotency key.
        ([("a", REPLACING), ("a", REPLACING)], {"one": HOLDER}, {0: "holder"}, {"holder": 0}, {1: 1}),
        ([("a", ONE), ("b", REPLACING)], {}, {1: 0}, {}, {0: 1}),
    ],
)
def test_a_job_that_was_never_started_is_what_the_last_one_asks(given, holders, replacing, changes, stored):
    jobs = [replace(job, payload=str(number)) for number, job in enumerate(jobs_of(*given))]
    placing = place(jobs, holders, [])
    ids = {number: job.id for number, job in enumerate(jobs)} | {"holder": HOLDER.job_id}
    assert placing.replacing == {ids[number]: ids[by] for number, by in replacing.items()}
    assert {job_id: job.payload for job_id, job in placing.changes.items()} == {
        ids[of]: str(by) for of, by in changes.items()
    }
    assert {job_id: job.payload for job_id, job in placing.stored.items()} == {
        ids[of]: str(by) for of, by in stored.items()
    }
    assert all(job.id == job_id for kept in (placing.changes, placing.stored) for job_id, job in kept.items())
    assert all(
        job.idempotency_key == dict(zip(ids.values(), given, strict=False))[job_id][0]
        for job_id, job in placing.stored.items()
    )


def test_a_job_with_a_unique_key_is_stored_by_itself():
    assert may_join(new_job())
    assert not may_join(new_job(unique=ONE))


def test_what_is_asked_of_a_unique_key_belongs_to_the_request():
    asked = Options(unique=Unique("k", QUEUED, 60.0, OnConflict.REFUSE))
    assert json.loads(asked.canonical()) == {
        "unique": {"key": "k", "while": "queued", "for": 60.0, "on_conflict": "refuse"}
    }
    assert "unique" not in Options(priority=1).canonical()
    replacing = Options(unique=Unique("k", on_conflict=OnConflict.REPLACE, max_wait=60.0))
    assert json.loads(replacing.canonical())["unique"]["max_wait"] == 60.0
