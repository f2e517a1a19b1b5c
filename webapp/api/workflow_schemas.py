"""The wire format of workflows: what one is, how it is steered, and what lists of them are asked for."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from webapp.api.schemas import MAX_WAIT, Reason
from webapp.jobs import options
from webapp.jobs.request import Ahead, Backoff, JobKey, Tags, keepable, printable
from webapp.outbound.urls import MAX_URL, written_url
from webapp.workflows import pointers
from webapp.workflows.documents import workflow_of
from webapp.workflows.model import LONGEST_NAME, LONGEST_STEP, MOST_INPUTS, MOST_STEPS, WorkflowSpec

#: What names of steps look like.
STEP_NAME = rf"^[A-Za-z0-9][A-Za-z0-9_.-]{{0,{LONGEST_STEP - 1}}}$"

StepName = Annotated[str, Field(pattern=STEP_NAME)]
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME), AfterValidator(printable)]
Url = Annotated[str, Field(max_length=MAX_URL), AfterValidator(written_url)]
Payload = Annotated[dict[str, Any], AfterValidator(keepable)]


def _pointer(given: str) -> str:
    pointers.parts_of(given)
    return given


class SourceRequest(BaseModel):
    """A part of the result of a step: `pointer` is a JSON Pointer (RFC 6901); "" is all of it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    step: StepName
    pointer: Annotated[str, Field(max_length=pointers.LONGEST), AfterValidator(_pointer)] = ""


Inputs = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=100)], SourceRequest], Field(max_length=MOST_INPUTS)
]


class JobTerms(BaseModel):
    """What may be asked of a job beside its payload: what `POST /jobs` takes, but for keys that make it unique and fixed times."""

    model_config = ConfigDict(extra="forbid", strict=True)

    queue: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    key: JobKey | None = None
    priority: int | None = Field(None, ge=options.LOWEST_PRIORITY, le=options.HIGHEST_PRIORITY)
    delay: float | None = Field(None, ge=0, le=options.MAX_DELAY)
    max_retries: int | None = Field(None, ge=0, le=options.MAX_RETRIES)
    backoff: Backoff | None = None
    timeout: float | None = Field(None, gt=0, le=options.MAX_TIMEOUT)
    tags: Tags | None = None
    callback_url: Url | None = None

    def terms(self) -> dict[str, Any]:
        """What was asked, and no more."""
        asked = set(JobTerms.model_fields) & self.model_fields_set
        return self.model_dump(mode="json", exclude_none=True, include=asked)


class EventJob(JobTerms):
    """A job that follows the end of a workflow; its payload gets `workflow`, which says of which and how it ended."""

    payload: Payload

    def document(self) -> dict[str, Any]:
        """As it is kept."""
        return {"payload": self.payload, **self.terms()}


class CompensateRequest(EventJob):
    """The job that undoes a step: it runs when the step has completed and the workflow failed or was cancelled."""

    inputs: Inputs = Field(default_factory=dict)


class MapRequest(SourceRequest):
    """An array in the result of a step: each of its values gets a job, in whose payload it stands under the key `as`."""

    item_key: Annotated[str, Field(min_length=1, max_length=100)] = Field("item", alias="as")


class StepRequest(JobTerms):
    """A step: a job, and what it waits for. Or a job for each value of an array, a job that fills a batch, or a workflow of its own."""

    model_config = ConfigDict(extra="forbid", strict=True, validate_default=True)

    payload: Payload | None = Field(None, description="Of its job; a step that is a workflow has none.")
    after: Annotated[list[StepName], Field(max_length=MOST_STEPS)] = Field(
        default_factory=list, description="The steps that must end before."
    )
    inputs: Inputs = Field(
        default_factory=dict,
        description="What is put into the payload of results of steps before, by the payload's key.",
    )
    when: Literal["completed", "final", "any_failed"] = Field(
        "completed", description="What those of `after` must have come to."
    )
    on_failure: Literal["fail", "continue", "skip"] = Field(
        "fail",
        description="What follows when it fails: nothing more begins; the rest runs as if it had completed; what is behind it is left out.",
    )
    compensate: CompensateRequest | None = None
    map: MapRequest | None = Field(None, description="A job for each value of an array.")
    batch: bool = Field(
        default=False,
        description="Its job adds others to a batch of its own, and the step ends when all have.",
    )
    workflow: InnerWorkflow | None = Field(None, description="It is a workflow of its own, and has no job.")

    @field_validator("batch")
    @classmethod
    def _one_kind(cls, batch: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - as pydantic has it
        if batch and info.data.get("map") is not None:
            raise ValueError("must not be given together with map")
        return batch

    @field_validator("workflow")
    @classmethod
    def _or_a_job(cls, workflow: Any, info: ValidationInfo) -> Any:
        given = info.data
        if workflow is None:
            if given.get("payload") is None and "payload" in given:
                raise ValueError("must be given where payload is not")
            return workflow
        of_a_job = [
            name for name in (*JobTerms.model_fields, "payload", "map") if given.get(name) is not None
        ]
        if of_a_job or given.get("batch") or given.get("inputs"):
            also = [*of_a_job, *(name for name in ("batch", "inputs") if given.get(name))]
            raise ValueError(f"must not be given together with {also[0]}")
        return workflow

    def document(self) -> dict[str, Any]:
        """As `documents.step_of` reads it."""
        whole: dict[str, Any] = {
            "job": None if self.payload is None else {"payload": self.payload, **self.terms()},
            "map": None if self.map is None else self.map.model_dump(by_alias=True),
            "batch": self.batch,
            "workflow": None if self.workflow is None else self.workflow.document(),
            "after": self.after,
            "inputs": _inputs(self.inputs),
            "when": self.when,
            "on_failure": self.on_failure,
        }
        if self.compensate is not None:
            undoing = self.compensate
            whole["compensate"] = {"job": undoing.document(), "inputs": _inputs(undoing.inputs)}
        return whole


def _inputs(given: dict[str, SourceRequest]) -> dict[str, Any]:
    return {key: source.model_dump() for key, source in given.items()}


class InnerWorkflow(BaseModel):
    """A workflow: named steps, and what follows its end."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Name | None = None
    steps: Annotated[dict[StepName, StepRequest], Field(min_length=1, max_length=MOST_STEPS)]
    fail_fast: bool = Field(
        default=False, description="A failure that ends it has what still runs be asked to stop."
    )
    on_complete: EventJob | None = Field(None, description="A job at its first end, whatever it came to.")
    on_success: EventJob | None = Field(None, description="A job when it has completed, be it after a retry.")
    on_failure: EventJob | None = Field(None, description="A job when it has failed, the first time.")
    callback_url: Url | None = Field(None, description="Who is told of each end.")

    def document(self) -> dict[str, Any]:
        """As `documents.workflow_of` reads it."""
        document: dict[str, Any] = {
            "steps": {name: step.document() for name, step in self.steps.items()},
            "name": self.name,
            "fail_fast": self.fail_fast,
            "callback_url": self.callback_url,
        }
        for event in ("on_complete", "on_success", "on_failure"):
            job: EventJob | None = getattr(self, event)
            document[event] = None if job is None else job.document()
        return document


class WorkflowRequest(InnerWorkflow):
    """The body of `POST /workflows`."""

    deadline: Ahead | None = Field(None, description="When it is cancelled if it has not ended.")

    def spec(self) -> WorkflowSpec:
        """What the domain is asked for."""
        return workflow_of(self.document() | {"deadline": self.deadline})


class WorkflowSteer(BaseModel):
    """The body of `POST /workflows/{workflow_id}/cancel` and `/retry`; it may be left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Reason | None = None


class WorkflowQuery(BaseModel):
    """The query of `GET /workflows/{workflow_id}`."""

    model_config = ConfigDict(extra="forbid")

    wait: float = Field(0.0, ge=0, le=MAX_WAIT)


class WorkflowsQuery(BaseModel):
    """The query of `GET /workflows`."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["running", "cancelling", "compensating", "completed", "failed", "cancelled"] | None = None
    name: Name | None = None
    limit: int = Field(100, ge=1, le=1_000)
    cursor: UUID | None = Field(None, description="The next_cursor of the page before.")


class StepsQuery(BaseModel):
    """The query of `GET /workflows/{workflow_id}/steps`."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["waiting", "running", "completed", "failed", "cancelled", "skipped"] | None = None
    limit: int = Field(100, ge=1, le=1_000)
    cursor: int = Field(-1, ge=-1, le=2**31 - 1, description="The next_cursor of the page before.")


class GraphQuery(BaseModel):
    """The query of `GET /workflows/{workflow_id}/graph`."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["json", "mermaid"] = "json"
