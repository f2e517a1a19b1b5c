"""What comes in goes out: the counters of jobs balance with what is unfinished, whatever becomes of a job."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from uuid import UUID

import pytest
from celery.exceptions import Ignore
from factories import ENDS, LEASE, age, row_of
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from tasks import chunk
from tasks.dead_letter import move_job
from tasks.execution import execute_job
from tasks.presence import lost_jobs
from tasks.sweeps import callbacks, expire
from webapp.jobs import Cancelled, Discard, Retry, Snooze, ends, store

#: What came in, ...
IN = ("jobs_created_total", "jobs_requeued_total")
#: ... and what went out.
OUT = ("jobs_completed_total", "jobs_failed_total", "jobs_cancelled_total", "jobs_expired_total")
COUNTED = (*IN, *OUT, "jobs_snoozed_total", "jobs_released_total", "job_callbacks_created_total")


@pytest.fixture
def counted(client):
    """The counters, and what is unfinished, since the test began."""

    def scrape():
        return Counter(
            {
                (family.name + "_total" if family.type == "counter" else family.name): sum(
                    sample.value for sample in family.samples if not sample.name.endswith("_created")
                )
                for family in text_string_to_metric_families(client.get("/metrics").text)
                if family.type in {"counter", "gauge"}
            }
        )

    before = scrape()

    def grown():
        now = scrape()
        unfinished = now["job_queue_depth"]
        found = {name: int(now[name] - before[name]) for name in COUNTED}
        assert sum(found[name] for name in IN) == sum(found[name] for name in OUT) + unfinished, found
        return {name.removesuffix("_total"): value for name, value in found.items() if value}

    return grown


class Jobs:
    """Submits jobs and has them run in this process."""

    def __init__(self, client, engine, handle):
        self.client, self.engine, self.handle = client, engine, handle

    def submit(self, does=lambda payload, context: None, **options):
        body = {"payload": {"task": self.handle(does)}, "max_retries": 0, **options}
        answer = self.client.post("/jobs", json=body)
        assert answer.status_code == 201
        return answer.json["id"]

    def run(self, does=lambda payload, context: None, **options):
        """Submits a job and runs an attempt of it."""
        job_id = self.submit(does, **options)
        with suppress(ENDS, Ignore):
            execute_job.run(job_id)
        attempt = row_of(self.engine, UUID(job_id)).attempt
        move_job.run(job_id, attempt)
        return job_id

    def claim(self, *ids):
        with self.engine.begin() as connection:
            return store.claim(connection, [UUID(one) for one in ids], worker_id="w", lease=LEASE)

    def post(self, path, **body):
        answer = self.client.post(path, **({"json": body} if body else {}))
        assert answer.status_code in {200, 202}
        return answer.json


@pytest.fixture
def jobs(client, engine, handle):
    return Jobs(client, engine, handle)


def raises(error):
    def does(payload, context):
        raise error

    return does


def test_each_end_is_counted_once(jobs, counted):
    jobs.run()
    jobs.run(raises(ValueError("no")))
    jobs.run(raises(Discard("no")))
    jobs.run(raises(Snooze(60)))
    jobs.run(raises(Retry("again")), max_retries=1)
    batch = [{"payload": {"task": "noop"}} for _ in range(3)]
    jobs.post("/jobs/batch", jobs=batch)
    assert counted() == {"jobs_created": 8, "jobs_completed": 1, "jobs_failed": 2, "jobs_snoozed": 1}


def test_a_job_that_is_cancelled_is_counted_once_wherever_it_was(jobs, counted, engine, parts):
    waiting = jobs.submit()
    jobs.post(f"/jobs/{waiting}/cancel")
    jobs.post(f"/jobs/{waiting}/cancel")

    def lets_through(payload, context):
        jobs.post(f"/jobs/{context.job_id}/cancel")
        raise Cancelled

    def fails(payload, context):
        jobs.post(f"/jobs/{context.job_id}/cancel")
        raise ValueError("no")

    def completes(payload, context):
        jobs.post(f"/jobs/{context.job_id}/cancel")

    jobs.run(lets_through)
    jobs.run(fails)
    jobs.run(fails, max_retries=3)
    jobs.run(completes)
    # Its process died before it could say anything.
    for retries in (0, 3):
        lost = jobs.submit(max_retries=retries)
        jobs.claim(lost)
        jobs.post(f"/jobs/{lost}/cancel")
        age(engine, "lease_expires_at", 1_000, UUID(lost))
        lost_jobs.settle(engine, parts.policy, "child_died", lambda one: store.take_stuck(one, 10))
    assert counted() == {"jobs_created": 7, "jobs_cancelled": 6, "jobs_completed": 1}


def test_a_job_that_expired_is_counted_apart(jobs, counted, engine, parts):
    job_id = jobs.submit()
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET expires_at = now() - interval '1 s' WHERE id = :id"), {"id": job_id}
        )
    expire.run_expiry(parts)
    expire.run_expiry(parts)
    assert counted() == {"jobs_created": 1, "jobs_expired": 1}


def test_what_is_given_back_is_counted_and_is_no_end(jobs, counted, parts):
    kept, withdrawn = jobs.submit(), jobs.submit()
    claims = jobs.claim(kept, withdrawn)
    jobs.post(f"/jobs/{withdrawn}/cancel")
    chunk.Chunk(parts, claims).hand_back()
    assert counted() == {"jobs_created": 2, "jobs_released": 1, "jobs_cancelled": 1}


def test_what_a_worker_gives_back_at_its_end_is_counted(jobs, counted, engine):
    (kept, withdrawn) = jobs.claim(jobs.submit(), jobs.submit())
    jobs.post(f"/jobs/{withdrawn.id}/cancel")
    with engine.begin() as connection:
        released = ends.end_attempts(connection, [ends.released(one) for one in (kept, withdrawn)])
    lost_jobs.count_released(released)
    assert counted() == {"jobs_created": 2, "jobs_released": 1, "jobs_cancelled": 1}


def test_a_job_that_is_queued_again_comes_in_again(jobs, counted):
    dead = [jobs.run(raises(ValueError("no"))) for _ in range(5)]
    cancelled = jobs.submit()
    jobs.post(f"/jobs/{cancelled}/cancel")
    jobs.post(f"/jobs/{dead[0]}/retry")
    jobs.post(f"/jobs/{cancelled}/retry")
    jobs.post(f"/dlq/{dead[1]}/requeue")
    jobs.post("/dlq/requeue", ids=dead[:3])
    jobs.post(f"/dlq/{dead[4]}/discard")
    jobs.post("/dlq/requeue", all=True, dry_run=True)
    assert counted() == {"jobs_created": 6, "jobs_failed": 5, "jobs_cancelled": 1, "jobs_requeued": 4}


def test_callbacks_are_jobs_and_counted_as_such(jobs, counted, parts):
    jobs.run(callback_url="https://example.org/told")
    jobs.run(raises(ValueError("no")), callback_url="https://example.org/told")
    assert callbacks.run_callbacks(parts) == 2
    assert counted() == {
        "jobs_created": 4,
        "jobs_completed": 1,
        "jobs_failed": 1,
        "job_callbacks_created": 2,
    }
