"""How workflows are answered: as they stand, their steps, the graph of them, and why they do not go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from webapp.api.schemas import Moment, may_be_redacted
from webapp.flow.tenant import told
from webapp.workflows.explain import Explanation
from webapp.workflows.model import StepRow, WorkflowRow

_Status = Literal["running", "cancelling", "compensating", "completed", "failed", "cancelled"]
_StepStatus = Literal["waiting", "running", "completed", "failed", "cancelled", "skipped"]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TotalsAnswer(_Answer):
    """How many of a workflow's steps came to what; those that compensate others are not counted."""

    total: int
    completed: int
    failed: int
    cancelled: int
    skipped: int


class WorkflowAnswer(BaseModel):
    """A workflow as it stands."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=may_be_redacted)

    id: UUID
    name: str | None
    status: _Status
    totals: TotalsAnswer
    fail_fast: bool
    queues: list[str]
    parent_id: UUID | None
    tenant: str
    submitted_by: int | None
    idempotency_key: str | None
    deadline: Moment | None
    cancel_requested_at: Moment | None
    cancel_reason: str | None
    complete_job_id: UUID | None
    success_job_id: UUID | None
    failure_job_id: UUID | None
    callback_url: str | None
    callback_job_id: UUID | None
    created_at: Moment
    updated_at: Moment
    finished_at: Moment | None

    @classmethod
    def of(cls, row: WorkflowRow) -> dict[str, Any]:
        """The JSON-ready form of a workflow."""
        apart = {"totals", "fail_fast", "tenant", "status", "idempotency_key"}
        own: dict[str, Any] = {name: getattr(row, name) for name in cls.model_fields if name not in apart}
        own |= {
            "status": row.status.value,
            "totals": TotalsAnswer(**row.totals._asdict()),
            "fail_fast": bool(row.options.get("fail_fast")),
            "tenant": row.tenant_slug,
            "idempotency_key": row.idempotency_key and told(row.idempotency_key),
        }
        return cls(**own).model_dump(mode="json")


class WorkflowPage(_Answer):
    """A page of workflows, the newest first."""

    items: list[WorkflowAnswer]
    next_cursor: UUID | None


class StepAnswer(_Answer):
    """A step as it stands: `reason` says why it did not run, or failed without a job; `compensates` is the step that it undoes."""

    name: str
    kind: Literal["job", "map", "workflow", "batch"]
    status: _StepStatus
    reason: str | None
    after: list[str]
    when: Literal["completed", "final", "any_failed"]
    on_failure: Literal["fail", "continue", "skip"]
    compensates: str | None
    job_id: UUID | None
    child_id: UUID | None
    is_asked_to_stop: bool
    released_at: Moment | None
    finished_at: Moment | None

    @classmethod
    def of(cls, step: StepRow, names: Sequence[str]) -> dict[str, Any]:
        """The JSON-ready form of a step.

        Args:
            names: of all steps, by number.
        """
        same = ("name", "reason", "job_id", "child_id", "released_at", "finished_at")
        own: dict[str, Any] = {name: getattr(step, name) for name in same}
        return cls(
            **own,
            kind=step.kind.value,
            status=step.status.value,
            after=[names[number] for number in step.after],
            when=step.when.value,
            on_failure=step.on_failure.value,
            compensates=None if step.undoes is None else names[step.undoes],
            is_asked_to_stop=step.is_asked,
        ).model_dump(mode="json")


class StepPage(_Answer):
    """A page of steps, each behind those that it waits for."""

    items: list[StepAnswer]
    next_cursor: int | None


class StepExplained(StepAnswer):
    """A step, and why it does not run: a state for programs, a sentence, and the facts behind it."""

    state: str
    sentence: str
    facts: dict[str, Any]

    @classmethod
    def of_explained(cls, step: StepRow, names: Sequence[str], found: Explanation) -> dict[str, Any]:
        """The JSON-ready form of it."""
        said = {"state": found.state, "sentence": found.sentence, "facts": found.facts}
        return StepAnswer.of(step, names) | said


class EdgeAnswer(_Answer):
    """One step waits for another one."""

    source: str
    target: str


class NodeAnswer(StepAnswer):
    """A step in its graph, with those that it still waits for."""

    waits_for: list[str]


class GraphAnswer(_Answer):
    """The steps of a workflow, and which waits for which."""

    id: UUID
    name: str | None
    status: _Status
    nodes: list[NodeAnswer]
    edges: list[EdgeAnswer]

    @classmethod
    def of(cls, workflow: WorkflowRow, steps: Sequence[StepRow]) -> dict[str, Any]:
        """The JSON-ready form of a graph."""
        names = [step.name for step in steps]
        nodes = [
            StepAnswer.of(step, names)
            | {"waits_for": [names[one] for one in step.after if not steps[one].status.is_final]}
            for step in steps
        ]
        edges = [{"source": names[one], "target": step.name} for step in steps for one in step.after]
        return {
            "id": str(workflow.id),
            "name": workflow.name,
            "status": workflow.status.value,
            "nodes": nodes,
            "edges": edges,
        }
