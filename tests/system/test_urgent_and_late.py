"""Submission options through real gunicorn, worker, maintenance and beat processes."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

pytestmark = pytest.mark.system

#: Low jobs that wait, and how long each runs, seconds.
WAITING, EACH = 20, 0.2


def post(fleet, payload, **options):
    answer = fleet.http.post(f"{fleet.url}/jobs", json={"payload": payload, **options}, timeout=10)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_an_urgent_job_overtakes_twenty_that_wait(fleet, eventually):
    low = [
        {"payload": {"task": "sleep", "seconds": EACH, "n": n}, "priority": 2, "tags": ["overtaken"]}
        for n in range(WAITING)
    ]
    # At once: on a busy machine most of them would be done before the last one is sent.
    answer = fleet.http.post(f"{fleet.url}/jobs/batch", json={"jobs": low}, timeout=10)
    assert answer.status_code < 300, answer.text
    urgent = fleet.wait_for(post(fleet, {"task": "sleep", "seconds": 0, "urgent": True}, priority=9))
    eventually(lambda: fleet.unfinished() == 0)
    (earlier,) = fleet.rows(
        "SELECT count(*) FROM jobs WHERE tags = '{overtaken}' AND finished_at BETWEEN %s AND %s",
        urgent["created_at"],
        urgent["finished_at"],
    )[0]
    assert earlier < WAITING / 2


def test_a_job_starts_when_it_is_due_and_one_that_expires_never(fleet, eventually):
    later = post(fleet, {"task": "noop"}, delay=1.5)
    blocked = [post(fleet, {"task": "sleep", "seconds": 3}, priority=9) for _ in range(2)]
    for job in blocked:
        fleet.wait_for(job, "processing")
    soon = fleet.rows("SELECT to_char(now() + interval '1 second', 'YYYY-MM-DD\"T\"HH24:MI:SS.USOF:TZM')")[0][
        0
    ]
    lost = post(fleet, {"task": "noop"}, expires_at=soon, priority=0)
    found = fleet.wait_for(lost, "cancelled")
    assert (found["cancel_reason"], found["attempt"]) == ("expired", 0)
    done = fleet.wait_for(later)
    assert done["status"] == "completed"
    assert done["last_attempt_at"] > done["run_at"]


def test_a_handler_that_snoozes_comes_back_and_uses_no_retry(fleet):
    job = fleet.wait_for(post(fleet, {"task": "not-yet"}, max_retries=0))
    assert (job["status"], job["retry_count"], job["attempt"]) == ("completed", 0, 2)
    assert [outcome for _, outcome in fleet.attempts(job)] == ["snoozed", "completed"]


def test_a_job_with_a_list_of_waits_is_retried_after_them(fleet):
    job = fleet.wait_for(post(fleet, {"task": "fail"}, max_retries=2, backoff=[0.2, 1.5]), "failed")
    started = [
        float(row[0])
        for row in fleet.rows(
            "SELECT extract(epoch FROM started_at) FROM attempts WHERE job_id = %s ORDER BY attempt",
            job["id"],
        )
    ]
    assert [after - before for before, after in pairwise(started)] == pytest.approx([0.2, 1.5], abs=0.9)


#: Events that follow each other, and how long after the last of them the work is due, seconds.
EVENTS, QUIET = 50, 1.0


def test_events_that_follow_each_other_are_one_run_of_the_last(fleet, answered):
    """Where this machine stood still for longer than `QUIET`, what came before has begun, and what came after is another run."""
    asked = {"key": "index-17", "on_conflict": "replace", "max_wait": 60}
    last: dict[str, int] = {}
    sent: list[float] = []
    for number in range(EVENTS):
        body = {"payload": {"task": "sleep", "seconds": 0, "n": number}, "delay": QUIET, "unique": asked}
        answer = answered(lambda body=body: fleet.http.post(f"{fleet.url}/jobs", json=body, timeout=10))
        sent.append(time.monotonic())
        assert answer.status_code in {200, 201}, answer.text
        last[answer.json()["id"]] = number
    done = [fleet.wait_for({"id": job_id}) for job_id in last]
    assert {job["id"]: (job["status"], job["attempt"], job["payload"]["n"]) for job in done} == {
        job_id: ("completed", 1, number) for job_id, number in last.items()
    }
    if max(later - earlier for earlier, later in pairwise(sent)) < QUIET / 2:
        assert len(done) == 1
