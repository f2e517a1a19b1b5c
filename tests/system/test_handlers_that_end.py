"""What handlers may do in real workers: leave in any way, and be coroutines."""

from __future__ import annotations

import time

import pytest


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("exit", "SystemExit: good bye"),
        ("cancelled", "CancelledError"),
        ("interrupt", "KeyboardInterrupt: by hand"),
        ("extension", "OfAnExtension: strange"),
        ("causes", "RuntimeError: no mail; caused by KeyError: 'to'"),
    ],
)
def test_a_handler_that_leaves_in_any_way_has_failed_at_once(fleet, how, error):
    began = time.monotonic()
    job = fleet.wait_for(fleet.post("leave", how=how), patience=5)
    assert time.monotonic() - began < 5
    assert (job["status"], job["attempt"], job["last_error"]) == ("failed", 1, error)
    assert fleet.attempts(job) == [(1, "failed")]
    assert fleet.wait_for(fleet.post("noop"))["status"] == "completed"


def test_a_coroutine_runs_to_its_end_and_no_longer_than_its_time(fleet):
    done = fleet.wait_for(fleet.post("async-sleep", seconds=0.1))
    assert (done["status"], done["result"], done["progress"]["note"]) == ("completed", {"slept": 0.1}, "half")
    late = fleet.wait_for(fleet.post("async-sleep", seconds=30), patience=6)
    assert (late["status"], late["last_error"]) == (
        "failed",
        "JobTimeout: the attempt ran longer than its timeout of 1 s",
    )
    assert fleet.attempts(late) == [(1, "failed")]


def test_many_coroutines_share_messages(fleet):
    jobs = [{"payload": {"task": "async-quick", "n": n}} for n in range(400)]
    items = fleet.http.post(f"{fleet.url}/jobs/batch", json={"jobs": jobs}, timeout=20).json()["items"]
    found = [fleet.wait_for(item) for item in items]
    assert [(job["status"], job["result"]) for job in found] == [("completed", n) for n in range(400)]


def test_a_coroutine_is_cancelled(fleet, eventually):
    job = fleet.post("async-long")
    eventually(lambda: fleet.job(job["id"])["status"] == "processing")
    fleet.http.post(f"{fleet.url}/jobs/{job['id']}/cancel", timeout=10)
    assert fleet.wait_for(job, patience=8)["status"] == "cancelled"
    assert fleet.attempts(job) == [(1, "cancelled")]


@pytest.mark.parametrize("task", ["slep", None, ["noop"]])
def test_an_unknown_task_is_refused_where_there_are_handlers_of_ones_own(fleet, task):
    answer = fleet.http.post(f"{fleet.url}/jobs", json={"payload": {"task": task}}, timeout=10)
    assert answer.status_code == 422
    assert "send-email" in answer.json()["detail"]
    assert ("did you mean 'sleep'?" in answer.json()["detail"]) is (task == "slep")
