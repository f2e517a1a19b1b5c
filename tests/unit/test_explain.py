from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from webapp.flow.model import Kind, Pause, Target
from webapp.jobs.explain import COUNTED_UP_TO, Situation, explain
from webapp.jobs.model import JobRow

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER, BEFORE = NOW + timedelta(minutes=1), NOW - timedelta(minutes=1)
JOB = JobRow(
    id=UUID(int=1),
    task="noop",
    payload={},
    queue="mail",
    priority=5,
    status="queued",
    attempt=0,
    retry_count=0,
    max_retries=3,
    timeout=300.0,
    run_at=BEFORE,
    dispatched_at=None,
    lease_expires_at=None,
    worker_id=None,
    idempotency_key=None,
    result=None,
    last_error=None,
    created_at=BEFORE,
    updated_at=BEFORE,
    last_attempt_at=None,
    finished_at=None,
    tags=[],
    expires_at=None,
    backoff=None,
    callback_url=None,
    callback_job_id=None,
    cancel_reason=None,
    progress=None,
    result_note=None,
)
RUNS = {"status": "processing", "attempt": 2, "worker_id": "host:1:b/7", "lease_expires_at": LATER}
FAILED = {"status": "failed", "finished_at": BEFORE, "attempt": 4, "last_error": "ValueError: no"}
PAUSED_QUEUE = {Target(Kind.QUEUE, "mail"): Pause(BEFORE, None, None)}
PAUSED_TASK = {Target(Kind.TASK, "noop"): Pause(BEFORE, "ada", "maintenance")}
CANCELLED = {"status": "cancelled", "finished_at": BEFORE, "cancel_reason": "expired"}


@pytest.mark.parametrize(
    ("job", "around", "state", "words"),
    [
        ({"status": "completed", "finished_at": BEFORE}, {}, "final", "completed since 2026-01-02T03:03:05"),
        (CANCELLED, {}, "final", "(expired)"),
        (FAILED, {}, "final", "after 4 attempts: ValueError: no; a retry queues it again"),
        (RUNS, {}, "running", "held by worker host:1:b/7 until 2026-01-02T03:05:05"),
        (RUNS, {"cancel_asked": True}, "stopping", "attempt 2 was asked to stop"),
        (RUNS, {"recorded": True}, "failing", "attempt 2 failed and was the last"),
        ({"expires_at": BEFORE}, {}, "expired", "not started by"),
        ({"expires_at": LATER}, {}, "due", "next in queue 'mail'"),
        ({"expires_at": BEFORE, "attempt": 1}, {}, "due", "next"),
        ({"run_at": LATER}, {"workers": 0}, "waiting_until", "the time it was submitted for"),
        ({"run_at": LATER, "attempt": 1}, {}, "waiting_until", "its next try after attempt 1"),
        ({}, {"pauses": PAUSED_QUEUE, "workers": None}, "queue_paused", "since 2026-01-02T03:03:05"),
        ({}, {"pauses": PAUSED_QUEUE | PAUSED_TASK}, "queue_paused", "queue 'mail' is paused"),
        ({"dispatched_at": BEFORE}, {"pauses": PAUSED_TASK}, "task_paused", "by ada (maintenance)"),
        ({"run_at": LATER}, {"pauses": PAUSED_QUEUE}, "waiting_until", "submitted for"),
        ({"expires_at": BEFORE}, {"pauses": PAUSED_QUEUE}, "expired", "not started by"),
        (RUNS, {"pauses": PAUSED_QUEUE}, "running", "held by worker"),
        ({"dispatched_at": datetime.max.replace(tzinfo=UTC)}, {}, "due", "next in queue 'mail'"),
        ({}, {"workers": None}, "broker_away", "Redis is not answering"),
        ({}, {"workers": 0, "ahead": 3}, "no_worker", "no live worker listens to queue 'mail'"),
        ({}, {"ahead": 3}, "behind_others", "behind 3 jobs"),
        ({"dispatched_at": BEFORE}, {"ahead": COUNTED_UP_TO + 1}, "behind_others", "more than 10,000 jobs"),
        ({"dispatched_at": BEFORE}, {}, "sent", "sent to the workers of queue 'mail' at 2026-01-02T03:03:05"),
        ({}, {}, "due", "next in queue 'mail'"),
    ],
)
def test_the_first_reason_that_holds_is_given(job, around, state, words):
    situation = {"cancel_asked": False, "ahead": 0, "workers": 2} | around
    found = explain(Situation(replace(JOB, **job), NOW, **situation))
    assert found.state == state
    assert words in found.sentence
    assert all(not isinstance(value, datetime) for value in found.facts.values())
