"""What workflows refuse, and why. Each says it in one sentence."""

from __future__ import annotations

from uuid import UUID


class WorkflowError(Exception):
    """The base of every error about workflows."""


class WorkflowRefused(WorkflowError):
    """A field of a workflow breaks a rule that cannot be judged by itself.

    Args:
        field: of the request.
        rule: that it breaks.
        given: what it says.
    """

    def __init__(self, field: str, rule: str, given: object) -> None:
        super().__init__(f"{field} {rule}; given: {given!r}")
        self.field = field
        self.rule = rule
        self.given = given


class UnknownWorkflow(WorkflowError):
    """There is no workflow with this id, or it is not within reach."""

    def __init__(self, workflow_id: UUID) -> None:
        super().__init__(f"no workflow has the id {workflow_id}")


class WorkflowGone(WorkflowError):
    """It was deleted for its age."""

    def __init__(self, workflow_id: UUID) -> None:
        super().__init__(f"the workflow {workflow_id} was deleted for its age")


class UnknownStep(WorkflowError):
    """A workflow has no step of this name."""

    def __init__(self, workflow_id: UUID, name: str) -> None:
        super().__init__(f"the workflow {workflow_id} has no step {name!r}")


class WorkflowEnded(WorkflowError):
    """It has ended, so there is nothing to cancel."""

    def __init__(self, workflow_id: UUID, status: str) -> None:
        super().__init__(f"the workflow {workflow_id} has ended already: it is {status}")


class NothingToRetry(WorkflowError):
    """No step of it failed or was cancelled, or what its steps did was undone."""

    def __init__(self, workflow_id: UUID, why: str) -> None:
        super().__init__(f"the workflow {workflow_id} cannot be retried: {why}")


class WorkflowBusy(WorkflowError):
    """Another transaction is at it at this moment."""

    def __init__(self, workflow_id: UUID) -> None:
        super().__init__(f"the workflow {workflow_id} is being worked on; send the request again")
