"""What workflows refuse, and why. Each says it in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from pydantic import ValidationError


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


class StepPayloadRefused(WorkflowError):
    """The payload of a step does not fit the model of its handler.

    Args:
        under: the path of the payload.
        secret: what was given must not be repeated.
    """

    def __init__(self, under: Sequence[str], error: ValidationError, *, secret: bool) -> None:
        super().__init__(
            f"{'.'.join(under)} does not fit its handler: {error.error_count()} rules are broken"
        )
        self.under = under
        self.error = error
        self.secret = secret


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
