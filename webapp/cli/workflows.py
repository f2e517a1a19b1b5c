"""`flask --app wsgi workflows`: list, show, graph, explain, cancel, retry."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import click
from flask.cli import AppGroup

from webapp.api.schedules import maintenance_workers
from webapp.api.workflow_answers import GraphAnswer, StepAnswer, WorkflowAnswer
from webapp.api.workflow_schemas import WorkflowsQuery, WorkflowSteer
from webapp.api.workflows import workflows
from webapp.cli.console import (
    json_option,
    say,
    show_fields,
    show_json,
    show_table,
    with_plain_errors,
)
from webapp.flow.reach import EVERYTHING
from webapp.workflows.drawing import mermaid
from webapp.workflows.model import Status

group = AppGroup("workflows", help="Look at workflows and their steps, cancel and retry them.")

_COLUMNS = ("id", "name", "status", "total", "completed", "failed", "cancelled", "skipped", "created_at")
_STEPS = ("name", "status", "after", "job_id", "released_at", "finished_at", "reason")


def _line(answer: dict[str, Any]) -> dict[str, Any]:
    """A workflow as a line of a table."""
    totals: dict[str, Any] = answer["totals"]
    return answer | totals


@group.command("list")
@click.option("--status", type=click.Choice([one.value for one in Status]), help="Only those that stand so.")
@click.option("--name", help="Only those of this name.")
@click.option("--limit", type=int, default=20, show_default=True, help="How many at most.")
@click.option("--cursor", help="The next_cursor of the page before.")
@json_option
@with_plain_errors
def list_workflows(*, as_json: bool, **given: Any) -> None:
    """Workflows, the newest first."""
    cursor = given.pop("cursor")
    query = WorkflowsQuery.model_validate(given | ({} if cursor is None else {"cursor": cursor}))
    status = Status(query.status) if query.status is not None else None
    found = workflows().page(
        EVERYTHING, status=status, name=query.name, before=query.cursor, limit=query.limit
    )
    answers = [WorkflowAnswer.of(row) for row in found]
    if as_json:
        last = answers[-1]["id"] if len(answers) == query.limit else None
        show_json({"items": answers, "next_cursor": last})
    else:
        show_table([_line(one) for one in answers], _COLUMNS, nothing="no workflows")


@group.command("show")
@click.argument("workflow_id", type=click.UUID)
@json_option
@with_plain_errors
def show(workflow_id: UUID, *, as_json: bool) -> None:
    """One workflow, with its steps."""
    workflow, steps = workflows().steps(workflow_id, EVERYTHING)
    names = [step.name for step in steps]
    answer, of_steps = WorkflowAnswer.of(workflow), [StepAnswer.of(step, names) for step in steps]
    if as_json:
        show_json(answer | {"steps": of_steps})
        return
    show_fields(answer)
    show_table(of_steps, _STEPS, nothing="no steps")


@group.command("graph")
@click.argument("workflow_id", type=click.UUID)
@json_option
@with_plain_errors
def graph(workflow_id: UUID, *, as_json: bool) -> None:
    """Which step waits for which, as the text of a Mermaid flowchart."""
    workflow, steps = workflows().steps(workflow_id, EVERYTHING)
    if as_json:
        show_json(GraphAnswer.of(workflow, steps))
    else:
        for line in mermaid(steps).splitlines():
            say(line)


@group.command("explain")
@click.argument("workflow_id", type=click.UUID)
@click.option("--step", help="Why this step does not run.")
@json_option
@with_plain_errors
def explain(workflow_id: UUID, *, step: str | None, as_json: bool) -> None:
    """Why a workflow is not done, or a step of it does not run."""
    if step is None:
        found = workflows().explain(workflow_id, EVERYTHING, maintenance_workers)
    else:
        found = workflows().explain_step(workflow_id, step, EVERYTHING)[2]
    if as_json:
        show_json({"state": found.state, "sentence": found.sentence, "facts": found.facts})
    else:
        say(found.sentence)


@group.command("cancel")
@click.argument("workflow_id", type=click.UUID)
@click.option("--reason", help="Kept with the workflow and on record.")
@json_option
@with_plain_errors
def cancel(workflow_id: UUID, *, reason: str | None, as_json: bool) -> None:
    """Cancels a workflow: what waits will not run, what runs is asked to stop."""
    wanted = WorkflowSteer(reason=reason)
    _show(WorkflowAnswer.of(workflows().cancel(workflow_id, EVERYTHING, wanted.reason)), as_json=as_json)


@group.command("retry")
@click.argument("workflow_id", type=click.UUID)
@click.option("--reason", help="Kept on record.")
@json_option
@with_plain_errors
def retry(workflow_id: UUID, *, reason: str | None, as_json: bool) -> None:
    """Has what failed or was cancelled run again, and what was left out on that account wait again."""
    wanted = WorkflowSteer(reason=reason)
    _show(WorkflowAnswer.of(workflows().retry(workflow_id, EVERYTHING, wanted.reason)), as_json=as_json)


def _show(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(answer)
    else:
        say(f"workflow {answer['id']} is {answer['status']}")
