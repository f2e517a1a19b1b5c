"""Workflows as values: steps, what they wait for, how each stands, and how the whole does. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

from webapp.groups.model import Totals

#: Most steps of a workflow, those that undo others among them.
MOST_STEPS: Final = 1_000
#: Most times that a step waits for another one, in all of a workflow.
MOST_EDGES: Final = 10_000
#: Most inputs of a step.
MOST_INPUTS: Final = 100
#: Longest name of a workflow and of a step, characters.
LONGEST_NAME, LONGEST_STEP = 200, 100
#: Longest reason that is kept with a step, characters.
LONGEST_REASON: Final = 500
#: Behind the name of a step, the name of the one that undoes it. No step of a client has a colon in its name.
UNDOES: Final = ":compensate"
#: The payload's key by which a job that follows a workflow's end, or a child's, is told of it.
TOLD_BY: Final = "workflow"


class Kind(StrEnum):
    """What a step is."""

    #: One job.
    JOB = "job"
    #: A job for each value of a list that a step before has given.
    MAP = "map"
    #: A workflow of its own.
    WORKFLOW = "workflow"
    #: A job that fills a batch; the step ends with that.
    BATCH = "batch"


class When(StrEnum):
    """What those before must have come to, so that a step begins."""

    #: Each has completed.
    COMPLETED = "completed"
    #: Each has ended, whatever it came to.
    FINAL = "final"
    #: Each has ended, and one of them has failed.
    ANY_FAILED = "any_failed"


class OnFailure(StrEnum):
    """What follows when a step fails."""

    #: Nothing more begins but what runs at the end in any case.
    FAIL = "fail"
    #: As if it had completed, without a result.
    CONTINUE = "continue"
    #: What comes behind it is left out; the rest goes on.
    SKIP = "skip"


class StepStatus(StrEnum):
    """How a step stands."""

    WAITING = "waiting"
    #: Its job is stored, and has not ended.
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: It will not run; its reason says why.
    SKIPPED = "skipped"

    @property
    def is_final(self) -> bool:
        """True if it has ended, as far as can be said now."""
        return self not in {StepStatus.WAITING, StepStatus.RUNNING}

    @property
    def is_broken(self) -> bool:
        """True if it ended, and not well."""
        return self in {StepStatus.FAILED, StepStatus.CANCELLED}


class Status(StrEnum):
    """How a workflow stands."""

    RUNNING = "running"
    #: Its cancellation was asked, and something of it has not ended.
    CANCELLING = "cancelling"
    #: It failed or was cancelled, and what its steps have done is being undone.
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """True if it has ended."""
        return self in FINAL


#: How a workflow stands that has ended.
FINAL: Final = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


class Why(StrEnum):
    """Why a step did not run, or failed without a job. It is kept as this word; a sentence may follow behind a colon."""

    #: One before it failed, was cancelled, or did not run.
    BEFORE_FAILED = "before_failed"
    BEFORE_CANCELLED = "before_cancelled"
    BEFORE_SKIPPED = "before_skipped"
    #: Another step failed, whose failure ends the workflow.
    WORKFLOW_FAILED = "workflow_failed"
    WORKFLOW_CANCELLED = "workflow_cancelled"
    #: It is for failures, and none of those before it failed.
    NONE_FAILED = "none_failed"
    #: What steps have done is being undone.
    UNDONE = "undone"
    #: It would undo something, and there is nothing to undo.
    NOTHING_TO_UNDO = "nothing_to_undo"
    #: It failed: a part of a result that it takes is not there.
    INPUT_MISSING = "input_missing"
    #: It failed: with its inputs its payload would be larger, or nested deeper, than it may be.
    INPUT_TOO_LARGE = "input_too_large"
    #: It failed: a result that it takes was not kept.
    RESULT_NOT_KEPT = "result_not_kept"
    #: It failed: its job would be refused.
    REFUSED = "refused"
    #: It failed: its job is not there any more.
    JOB_GONE = "job_gone"
    #: It has everything, and its queue takes no more for now.
    QUEUE_FULL = "queue_full"


#: What is passed on as a failure by those that were left out.
PASSED_ON: Final = frozenset(
    {Why.BEFORE_FAILED, Why.BEFORE_CANCELLED, Why.WORKFLOW_FAILED, Why.WORKFLOW_CANCELLED}
)


class Source(NamedTuple):
    """A part of a step's result.

    Args:
        step: the step's name.
        pointer: which part, as RFC 6901 has it; "" is all of it.
    """

    step: str
    pointer: str = ""


@dataclass(frozen=True, slots=True)
class StepSpec:
    """What a step is, as it was asked for.

    Args:
        job: its payload and options; None: it has no job of its own.
        after: the steps that it waits for.
        inputs: what is put into its payload, by the payload's key.
        when: what those must have come to.
        on_failure: what follows when it fails.
        compensate: what undoes it: `job` and `inputs`, as of a step.
        over: the list for each of whose values there is a job; `item_key` is where its payload has the value.
        workflow: the workflow that it is.
        fills: its job fills a batch.
    """

    job: Mapping[str, Any] | None = None
    after: tuple[str, ...] = ()
    inputs: Mapping[str, Source] = field(default_factory=dict)
    when: When = When.COMPLETED
    on_failure: OnFailure = OnFailure.FAIL
    compensate: StepSpec | None = None
    over: Source | None = None
    item_key: str = "item"
    workflow: WorkflowSpec | None = None
    fills: bool = False

    @property
    def kind(self) -> Kind:
        """What it is."""
        if self.workflow is not None:
            return Kind.WORKFLOW
        if self.over is not None:
            return Kind.MAP
        return Kind.BATCH if self.fills else Kind.JOB


@dataclass(frozen=True, slots=True)
class WorkflowSpec:
    """What a workflow is, as it was asked for.

    Args:
        steps: by name.
        fail_fast: a failure that ends it has what still runs be asked to stop.
        deadline: when it is cancelled if it has not ended.
        on_complete, on_success, on_failure: jobs that follow its end.
        callback_url: who is told of its end.
    """

    steps: Mapping[str, StepSpec]
    name: str | None = None
    fail_fast: bool = False
    deadline: datetime | None = None
    on_complete: Mapping[str, Any] | None = None
    on_success: Mapping[str, Any] | None = None
    on_failure: Mapping[str, Any] | None = None
    callback_url: str | None = None


class Node(NamedTuple):
    """A step as decisions see it. Each has a larger number than those that it waits for.

    Args:
        after: the numbers of those.
        undoes: the number of the step that it undoes; None: it is one of the client's steps.
    """

    number: int
    name: str
    after: tuple[int, ...] = ()
    when: When = When.COMPLETED
    on_failure: OnFailure = OnFailure.FAIL
    undoes: int | None = None

    @property
    def is_finalizer(self) -> bool:
        """True if it runs although the workflow fails."""
        return self.when is not When.COMPLETED


@dataclass(frozen=True, slots=True)
class StepRow:
    """A step as it stands.

    Args:
        reason: a word of `Why`, and perhaps a sentence behind a colon.
        is_asked: it runs, and was asked to stop because of the workflow.
        job_id: of its job; None: it has none yet.
        child_id: the batch or workflow that it is.
        job_status: how its job stands, where that was looked up.
    """

    number: int
    name: str
    kind: Kind
    after: tuple[int, ...]
    when: When
    on_failure: OnFailure
    undoes: int | None
    status: StepStatus
    reason: str | None
    is_asked: bool
    job_id: UUID | None
    child_id: UUID | None
    released_at: datetime | None
    finished_at: datetime | None
    job_status: str | None = None

    @property
    def node(self) -> Node:
        """As decisions see it."""
        return Node(self.number, self.name, self.after, self.when, self.on_failure, self.undoes)

    @property
    def why(self) -> Why | None:
        """The word of its reason."""
        return None if self.reason is None else Why(self.reason.partition(":")[0])


@dataclass(frozen=True, slots=True)
class WorkflowRow:
    """A workflow as it stands.

    Args:
        tenant: the number of the one whose it is.
        totals: what its steps have come to; those that undo others are not counted.
        options: what it was asked for beside its steps.
        now: when it was looked at, by PostgreSQL's clock.
    """

    id: UUID
    name: str | None
    status: Status
    tenant: int
    tenant_slug: str
    submitted_by: int | None
    request_id: str | None
    traceparent: str | None
    parent_id: UUID | None
    totals: Totals
    options: Mapping[str, Any]
    complete_job_id: UUID | None
    success_job_id: UUID | None
    failure_job_id: UUID | None
    callback_url: str | None
    callback_job_id: UUID | None
    idempotency_key: str | None
    deadline: datetime | None
    cancel_requested_at: datetime | None
    cancel_reason: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    now: datetime

    @property
    def queues(self) -> list[str]:
        """Where its steps' jobs wait."""
        return list(self.options.get("queues", ()))
