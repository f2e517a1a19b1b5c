"""Steps as they are kept: JSON of what was asked for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from webapp.workflows.model import OnFailure, Source, StepSpec, When, WorkflowSpec

#: What of a workflow's document is one of its jobs.
EVENTS = ("on_complete", "on_success", "on_failure")


def document_of(step: StepSpec) -> dict[str, Any]:
    """What is kept of a step: what is not in columns of its own.

    Example:
        >>> document_of(StepSpec({"payload": {"task": "noop"}}, inputs={"rows": Source("extract", "/rows")}))
        {'job': {'payload': {'task': 'noop'}}, 'inputs': {'rows': {'step': 'extract', 'pointer': '/rows'}}}
    """
    document: dict[str, Any] = {}
    if step.job is not None:
        document["job"] = dict(step.job)
    if step.inputs:
        document["inputs"] = {key: source._asdict() for key, source in step.inputs.items()}
    if step.over is not None:
        document["map"] = {**step.over._asdict(), "as": step.item_key}
    if step.fills:
        document["batch"] = True
    if step.workflow is not None:
        document["workflow"] = document_of_workflow(step.workflow)
    return document


def step_of(document: Mapping[str, Any]) -> StepSpec:
    """A step from what is kept of it, or from what a client asks for."""
    compensate = document.get("compensate")
    workflow = document.get("workflow")
    return StepSpec(
        job=document.get("job"),
        after=tuple(document.get("after", ())),
        inputs={key: Source(**source) for key, source in document.get("inputs", {}).items()},
        when=When(document.get("when", When.COMPLETED)),
        on_failure=OnFailure(document.get("on_failure", OnFailure.FAIL)),
        compensate=None if compensate is None else step_of(compensate),
        over=_over(document.get("map")),
        item_key=(document.get("map") or {}).get("as", "item"),
        workflow=None if workflow is None else workflow_of(workflow),
        fills=bool(document.get("batch")),
    )


def _over(given: Mapping[str, Any] | None) -> Source | None:
    return None if given is None else Source(given["step"], given.get("pointer", ""))


def whole_document_of(step: StepSpec) -> dict[str, Any]:
    """The same with its place in the graph, for a workflow that is a step."""
    document = document_of(step)
    if step.after:
        document["after"] = list(step.after)
    document |= {"when": step.when.value, "on_failure": step.on_failure.value}
    if step.compensate is not None:
        document["compensate"] = whole_document_of(step.compensate)
    return document


def document_of_workflow(workflow: WorkflowSpec) -> dict[str, Any]:
    """A whole workflow as JSON, with all of its steps."""
    document: dict[str, Any] = {
        "steps": {name: whole_document_of(step) for name, step in workflow.steps.items()}
    }
    if workflow.name is not None:
        document["name"] = workflow.name
    if workflow.fail_fast:
        document["fail_fast"] = True
    if workflow.callback_url is not None:
        document["callback_url"] = workflow.callback_url
    return document | {event: dict(job) for event in EVENTS if (job := getattr(workflow, event)) is not None}


def workflow_of(document: Mapping[str, Any]) -> WorkflowSpec:
    """A workflow from its JSON."""
    return WorkflowSpec(
        {name: step_of(step) for name, step in document["steps"].items()},
        name=document.get("name"),
        fail_fast=bool(document.get("fail_fast")),
        deadline=document.get("deadline"),
        callback_url=document.get("callback_url"),
        **{event: document.get(event) for event in EVENTS},
    )
