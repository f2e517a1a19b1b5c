"""Why a workflow, or a step of it, does not go on, in one sentence and in a form for machines. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from webapp.infra.jsontext import iso
from webapp.workflows.model import Kind, Status, StepRow, StepStatus, When, Why, WorkflowRow

#: Names that a sentence says.
SHOWN = 5

#: What each word says of a step that did not run. `{before}` are those that it waited for and that are why.
_SENTENCES = {
    Why.BEFORE_FAILED: "It did not run, as {before} failed.",
    Why.BEFORE_CANCELLED: "It did not run, as {before} was cancelled.",
    Why.BEFORE_SKIPPED: "It did not run, as {before} did not.",
    Why.WORKFLOW_FAILED: "It did not run, as another step failed whose failure ends the workflow.",
    Why.WORKFLOW_CANCELLED: "It did not run, as the workflow was cancelled.",
    Why.NONE_FAILED: "It did not run, as it is for failures, and none of those before it failed.",
    Why.UNDONE: "It did not run, as what the steps of the workflow have done is being undone.",
    Why.NOTHING_TO_UNDO: "It did not run, as there is nothing to undo.",
}
_BEFORE = {
    Why.BEFORE_FAILED: StepStatus.FAILED,
    Why.BEFORE_CANCELLED: StepStatus.CANCELLED,
    Why.BEFORE_SKIPPED: StepStatus.SKIPPED,
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why something does not go on: a code that stays the same, a sentence, and the facts behind it."""

    state: str
    sentence: str
    facts: dict[str, Any] = field(default_factory=dict)


def explain(workflow: WorkflowRow, steps: Sequence[StepRow], workers: int | None) -> Explanation:
    """Why a workflow is not done.

    Args:
        workers: live workers that do what beat asks for; None when that is not known.
    """
    by_status = {status: [one.name for one in steps if one.status is status] for status in StepStatus}
    failed = by_status[StepStatus.FAILED] + by_status[StepStatus.CANCELLED]
    running, waiting = by_status[StepStatus.RUNNING], by_status[StepStatus.WAITING]
    facts: dict[str, Any] = {
        "running": running[:SHOWN],
        "failed": failed[:SHOWN],
        "waiting": len(waiting),
    }
    if workflow.status.is_final:
        facts["finished_at"] = workflow.finished_at and iso(workflow.finished_at)
        return Explanation("final", _end_of(workflow, failed), facts)
    full = [one.name for one in steps if one.why is Why.QUEUE_FULL]
    if running:
        state = workflow.status.value
        words = {
            Status.CANCELLING: "It is being cancelled, and waits for",
            Status.COMPENSATING: "What it has done is being undone by",
        }.get(workflow.status, "It waits for")
        return Explanation(state, f"{words} {_named(running)} to end.", facts)
    if full:
        facts["queue_full"] = full[:SHOWN]
        return Explanation(
            "queue_full", f"{_named(full)} would begin, and its queue takes no more for now.", facts
        )
    facts["maintenance_workers"] = workers
    words = "no worker of the maintenance queue lives" if workers == 0 else "it is about to be looked at"
    return Explanation("overdue", f"No step of it runs, and {len(waiting)} wait: {words}.", facts)


def _end_of(workflow: WorkflowRow, failed: Sequence[str]) -> str:
    match workflow.status:
        case Status.COMPLETED:
            tolerated = f", although {_named(failed)} failed" if failed else ""
            return f"It completed{tolerated}."
        case Status.CANCELLED:
            reason = f": {workflow.cancel_reason}" if workflow.cancel_reason else ""
            return f"It was cancelled{reason}."
        case _:
            return f"It failed, as {_named(failed)} did not complete."


def explain_step(step: StepRow, steps: Sequence[StepRow]) -> Explanation:
    """Why a step does not run, or what it came to."""
    facts: dict[str, Any] = {"job_id": step.job_id and str(step.job_id)}
    if step.child_id is not None:
        facts["child_id"] = str(step.child_id)
    before = [steps[number] for number in step.after]
    words = (step.reason or "").partition(": ")[2]
    match step.status:
        case StepStatus.WAITING:
            return _waiting(step, steps, before, facts, words)
        case StepStatus.SKIPPED:
            why = step.why or Why.WORKFLOW_FAILED
            because = [one.name for one in before if one.status is _BEFORE.get(why)]
            facts |= {"skipped_because": why.value, "steps": because[:SHOWN]}
            return Explanation("skipped", _SENTENCES[why].format(before=_named(because)), facts)
        case StepStatus.RUNNING:
            facts["is_asked_to_stop"] = step.is_asked
            return Explanation("running", _running(step), facts)
        case _:
            facts["reason"] = step.reason
            why_failed = f" without a job: {words}" if step.reason else ""
            return Explanation("final", f"It is {step.status.value}{why_failed}.", facts)


def _running(step: StepRow) -> str:
    if step.kind is Kind.WORKFLOW:
        return f"It is the workflow {step.child_id}, which has not ended; GET /workflows/{step.child_id}/explain says more."
    if step.child_id is not None:
        return f"It is the batch {step.child_id}, which has not ended; GET /batches/{step.child_id}/explain says more."
    asked = ", and was asked to stop" if step.is_asked else ""
    return f"Its job {step.job_id} has not ended{asked}; GET /jobs/{step.job_id}/explain says more."


def _waiting(
    step: StepRow, steps: Sequence[StepRow], before: Sequence[StepRow], facts: dict[str, Any], words: str
) -> Explanation:
    if step.why is Why.QUEUE_FULL:
        return Explanation("queue_full", f"It would begin, and is refused for now: {words}.", facts)
    waits_for = facts["waits_for"] = [one.name for one in _open_ones(step, steps, before)]
    if waits_for:
        return Explanation("waiting", f"It waits for {_named(waits_for)}.", facts)
    return Explanation("due", "It begins as soon as its workflow is looked at.", facts)


def _open_ones(step: StepRow, steps: Sequence[StepRow], before: Sequence[StepRow]) -> Sequence[StepRow]:
    """The steps that have to end before one that waits."""
    found = [one for one in before if not one.status.is_final]
    if found:
        return found
    if step.undoes is not None:
        return [one for one in steps if one.undoes is None and not one.status.is_final]
    if step.when is When.COMPLETED:
        return ()
    # Those before it were left out, and something still runs that comes before these.
    return [one for one in _ancestors(step, steps) if one.status is StepStatus.RUNNING]


def _ancestors(step: StepRow, steps: Sequence[StepRow]) -> list[StepRow]:
    """All that come before a step, by number."""
    found: set[int] = set()
    pending = list(step.after)
    while pending:
        number = pending.pop()
        if number not in found:
            found.add(number)
            pending += steps[number].after
    return [steps[number] for number in sorted(found)]


def _named(names: Sequence[str]) -> str:
    """Names in a sentence.

    Example:
        >>> _named(["a"]), _named(["a", "b"]), _named(list("abcdefg"))
        ('a', 'a and b', 'a, b, c, d, e and 2 more')
    """
    if not names:
        return "a step"
    if len(names) > SHOWN:
        return f"{', '.join(names[:SHOWN])} and {len(names) - SHOWN} more"
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
