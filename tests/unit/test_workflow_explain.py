"""Why a workflow, or a step of it, does not go on: one sentence for every way in which it can stand."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from webapp.groups.model import Totals
from webapp.workflows.explain import explain, explain_step
from webapp.workflows.model import Kind, OnFailure, Status, StepRow, StepStatus, When, WorkflowRow

AT = datetime(2030, 1, 1, tzinfo=UTC)
JOB, CHILD = UUID(int=1), UUID(int=2)


def workflow(status="running", reason=None):
    finished = AT if Status(status).is_final else None
    return WorkflowRow(
        UUID(int=9),
        "etl",
        Status(status),
        1,
        "default",
        *(None, None, None, None),
        Totals(0, 0, 0, 0, 0),
        {},
        *(None, None, None, None, None, None, None, None),
        reason,
        AT,
        AT,
        finished,
        AT,
    )


def step(number, status, after=(), *, when="completed", kind="job", undoes=None, reason=None, **more):
    given = {"is_asked": False, "job_id": None, "child_id": None} | more
    return StepRow(
        number,
        "abcdefghij"[number],
        Kind(kind),
        tuple(after),
        When(when),
        OnFailure.FAIL,
        undoes,
        StepStatus(status),
        reason,
        given["is_asked"],
        given["job_id"],
        given["child_id"],
        None,
        None,
    )


RUNNING, WAITING = step(0, "running", job_id=JOB), step(1, "waiting", [0])
FULL = step(0, "waiting", reason="queue_full: the queue 'default' is full")


@pytest.mark.parametrize(
    ("found", "steps", "workers", "state", "sentence"),
    [
        (workflow("completed"), [], None, "final", "It completed."),
        (workflow("completed"), [step(0, "failed")], None, "final", "It completed, although a failed."),
        (workflow("failed"), [step(0, "cancelled")], None, "final", "It failed, as a did not complete."),
        (workflow("cancelled"), [], None, "final", "It was cancelled."),
        (workflow("cancelled", "too late"), [], None, "final", "It was cancelled: too late."),
        (workflow(), [RUNNING, WAITING], 1, "running", "It waits for a to end."),
        (
            workflow("cancelling"),
            [RUNNING],
            1,
            "cancelling",
            "It is being cancelled, and waits for a to end.",
        ),
        (
            workflow("compensating"),
            [RUNNING],
            1,
            "compensating",
            "What it has done is being undone by a to end.",
        ),
        (workflow(), [FULL], 1, "queue_full", "a would begin, and its queue takes no more for now."),
        (
            workflow(),
            [step(0, "completed"), WAITING],
            0,
            "overdue",
            "No step of it runs, and 1 wait: no worker of the maintenance queue lives.",
        ),
        (
            workflow(),
            [step(0, "completed"), WAITING],
            None,
            "overdue",
            "No step of it runs, and 1 wait: it is about to be looked at.",
        ),
    ],
)
def test_why_a_workflow_is_not_done(found, steps, workers, state, sentence):
    told = explain(found, steps, workers)
    assert (told.state, told.sentence) == (state, sentence)


@pytest.mark.parametrize(
    ("steps", "state", "sentence"),
    [
        ([RUNNING, WAITING], "waiting", "It waits for a."),
        ([step(0, "completed"), WAITING], "due", "It begins as soon as its workflow is looked at."),
        ([FULL], "queue_full", "It would begin, and is refused for now: the queue 'default' is full."),
        (
            [step(0, "running"), step(1, "skipped", [0]), step(2, "waiting", [1], when="final")],
            "waiting",
            "It waits for a.",
        ),
        ([step(0, "running"), step(1, "waiting", undoes=0)], "waiting", "It waits for a."),
        (
            [RUNNING],
            "running",
            f"Its job {JOB} has not ended; GET /jobs/{JOB}/explain says more.",
        ),
        (
            [step(0, "running", job_id=JOB, is_asked=True)],
            "running",
            f"Its job {JOB} has not ended, and was asked to stop; GET /jobs/{JOB}/explain says more.",
        ),
        (
            [step(0, "running", kind="workflow", child_id=CHILD)],
            "running",
            f"It is the workflow {CHILD}, which has not ended; GET /workflows/{CHILD}/explain says more.",
        ),
        (
            [step(0, "running", kind="map", child_id=CHILD)],
            "running",
            f"It is the batch {CHILD}, which has not ended; GET /batches/{CHILD}/explain says more.",
        ),
        ([step(0, "completed")], "final", "It is completed."),
        (
            [step(0, "failed", reason="input_missing: nothing at '/a'")],
            "final",
            "It is failed without a job: nothing at '/a'.",
        ),
        *(
            (
                [step(0, before), step(1, "skipped", [0], reason=why)],
                "skipped",
                sentence,
            )
            for before, why, sentence in (
                ("failed", "before_failed", "It did not run, as a failed."),
                ("cancelled", "before_cancelled", "It did not run, as a was cancelled."),
                ("skipped", "before_skipped", "It did not run, as a did not."),
                ("completed", "before_failed", "It did not run, as a step failed."),
                ("completed", "workflow_cancelled", "It did not run, as the workflow was cancelled."),
            )
        ),
    ],
)
def test_why_a_step_does_not_run(steps, state, sentence):
    told = explain_step(steps[-1], steps)
    assert (told.state, told.sentence) == (state, sentence)
    if state == "skipped":
        assert told.facts["skipped_because"] == steps[-1].reason
