"""Requests that race with each other and with workers, 200 times each, through real gunicorn and worker processes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

pytestmark = pytest.mark.system

#: How often each race is run, and how many of them at once.
RACES, LANES = 200, 8
#: The first job's head start before its cancel, seconds, and by how much the next ones have more or less.
HEAD_START, STEP = 0.02, 1.3


class HeadStart:
    """How long a cancel waits before it sets off: longer where it came first, shorter where it came late, so it stays a race."""

    def __init__(self):
        self._lock = threading.Lock()
        self.seconds = HEAD_START

    def after(self, status):
        with self._lock:
            self.seconds *= STEP if status == "cancelled" else 1 / STEP
            self.seconds = min(self.seconds, 1.0)


@pytest.fixture
def ask(fleet):
    """Sends a request on a connection of the thread's own; gives the status and the job that was answered."""
    own = threading.local()

    def send(method, path, **more):
        if not hasattr(own, "session"):
            own.session = requests.Session()
        answer = own.session.request(method, f"{fleet.url}{path}", timeout=30, **more)
        return answer.status_code, answer.json()

    return send


@pytest.fixture
def submit(ask):
    def post(payload, **options):
        status, job = ask("POST", "/jobs", json={"payload": payload, "tags": ["race"], **options})
        assert status == 201, job
        return job["id"]

    return post


def race(run):
    """Runs every round, some at once, and gives what each returned."""
    with ThreadPoolExecutor(LANES) as lanes:
        return list(lanes.map(run, range(RACES)))


def statuses(fleet, ids):
    rows = fleet.rows("SELECT id::text, status, attempt FROM jobs WHERE id = ANY(%s::uuid[])", list(ids))
    return {job_id: (status, attempt) for job_id, status, attempt in rows}


#: How a job may have ended, by the answer to the request that it be cancelled.
ENDS = {200: {"cancelled"}, 202: {"cancelled", "completed"}, 409: {"completed"}}


def test_cancel_against_complete_has_one_winner(fleet, ask, submit):
    ahead = HeadStart()

    def run(_number):
        job_id = submit({"task": "noop"})
        time.sleep(ahead.seconds)
        answered, _ = ask("POST", f"/jobs/{job_id}/cancel")
        _, job = ask("GET", f"/jobs/{job_id}?wait=20")
        ahead.after(job["status"])
        return job_id, answered, job["status"]

    rounds = race(run)
    now = statuses(fleet, [job_id for job_id, _, _ in rounds])
    for job_id, answered, told in rounds:
        status, attempt = now[job_id]
        assert told == status
        assert status in ENDS[answered]
        if answered == 200:
            assert attempt == 0
    won = Counter(told for _, _, told in rounds)
    assert set(won) == {"cancelled", "completed"}, "one side always won, so nothing raced"


def test_of_two_requeues_each_that_is_answered_200_is_one_more_attempt(fleet, ask, submit):
    def run(_number):
        job_id = submit({"task": "no-use"})
        assert ask("GET", f"/jobs/{job_id}?wait=20")[1]["status"] == "failed"
        both = threading.Barrier(2)

        def requeue(path):
            both.wait(20)
            return ask("POST", path)[0]

        with ThreadPoolExecutor(2) as pair:
            answers = list(pair.map(requeue, (f"/jobs/{job_id}/retry", f"/dlq/{job_id}/requeue")))
        assert ask("GET", f"/jobs/{job_id}?wait=20")[1]["status"] == "failed"
        return job_id, Counter(answers)

    rounds = race(run)
    now = statuses(fleet, [job_id for job_id, _ in rounds])
    letters = fleet.rows(
        "SELECT job_id::text, count(*), count(requeued_at) FROM dead_letters GROUP BY job_id"
    )
    written = {job_id: (count, requeued) for job_id, count, requeued in letters}
    for job_id, answers in rounds:
        assert set(answers) <= {200, 409}
        # The worker may be so quick that the second finds the job failed again; it then queues it again.
        assert answers[200] >= 1
        assert now[job_id] == ("failed", 1 + answers[200])
        assert written[job_id] == (1 + answers[200], answers[200])
    assert any(answers[409] for _, answers in rounds), "no two requeues met"


def test_two_waits_and_a_cancel_end_together(fleet, ask, submit):
    ahead = HeadStart()

    def run(number):
        # Every other job is one that a worker takes at once, so that its end may come before the cancel.
        job_id = submit({"task": "noop"}, **({"delay": 60} if number % 2 else {}))

        def wait(_number):
            return ask("GET", f"/jobs/{job_id}?wait=20")[1]["status"]

        with ThreadPoolExecutor(2) as pair:
            waits = pair.map(wait, range(2))
            time.sleep(ahead.seconds)
            answered, _ = ask("POST", f"/jobs/{job_id}/cancel")
            told = list(waits)
        if not number % 2:
            ahead.after(told[0])
        return job_id, answered, told

    rounds = race(run)
    now = statuses(fleet, [job_id for job_id, _, _ in rounds])
    for job_id, answered, told in rounds:
        status, _ = now[job_id]
        assert told == [status, status]
        assert status in ENDS[answered]
    assert {status for status, _ in now.values()} == {"cancelled", "completed"}
