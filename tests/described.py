"""Whether an application answers as its description says: each operation by itself, and one after the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import FlakyStrategyDefinition
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.generation.stateful.state_machine import APIStateMachine
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)


def no_server_error(context, response, case):
    """Checks that no answer is an error of the server's; on a busy machine one may say when to come again, as is described."""
    if response.status_code == 503 and "retry-after" in response.headers:
        return
    not_a_server_error(context, response, case)


#: What holds of every answer, ...
ALWAYS = [no_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
#: ... and what holds of one to a request that was made to break a rule.
CHECKS = (*ALWAYS, negative_data_rejection, unsupported_method)


#: Every run sends the same requests, and takes the time that it takes.
_ALWAYS_THE_SAME = settings(
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def answers_as_described(schema: BaseSchema, mode: GenerationMode, examples: int) -> None:
    """Sends requests to every operation that answers at once, and compares the answers with the description.

    Args:
        mode: requests that fit the description, or requests that do not.
        examples: most requests to each operation.
    """
    # Where these run no key is asked for, and one that is made up would be refused.
    schema.config.generation.update(with_security_parameters=False)
    rejected = schema.config.checks.negative_data_rejection
    # A text that is too long for a field may be too long for the line that it stands in.
    rejected.expected_statuses = sorted({*rejected.expected_statuses, "414"})
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path.endswith(("/events", "/metrics")):
            # The one is a stream, the other has its own tests.
            continue
        if mode is GenerationMode.NEGATIVE and not (
            operation.query or operation.body or operation.path_parameters
        ):
            continue

        @settings(_ALWAYS_THE_SAME, max_examples=examples)
        @given(case=operation.as_strategy(generation_mode=mode))
        def answered(case):
            case.call_and_validate(checks=CHECKS)

        answered()


#: How often the walks are begun again.
TURNS = 3
#: Requests of one walk.
STEPS = 12
#: Longest a request of a walk waits for a job, seconds.
WAIT = 0.2
#: What can be asked of a job, and is asked of one that is there.
OF_A_JOB = {
    "listAttempts",
    "cancelJob",
    "explainJob",
    "retryJob",
    "getJob",
    "watchJob",
    "requeueDeadLetter",
    "discardDeadLetter",
}
#: What depends on what other walks have left behind, so that no walk is the same twice.
ELSEWHERE = [
    *("listQueues", "getQueue", "pauseQueue", "resumeQueue"),
    *("listTasks", "getTask", "pauseTask", "resumeTask", "listFlowChanges"),
    *("listJobs", "submitJobs", "listDeadLetters", "requeueDeadLetters", "discardDeadLetters"),
    *("listBatches", "createBatch", "getBatch", "listBatchJobs", "submitBatchJobs", "closeBatch"),
    *("cancelBatch", "retryBatch", "explainBatch"),
    # A stream lasts as long as its batch is open.
    "watchBatch",
    *("submitWorkflow", "listWorkflows", "getWorkflow", "getWorkflowGraph", "explainWorkflow"),
    *("listWorkflowSteps", "getWorkflowStep", "cancelWorkflow", "retryWorkflow"),
    # A stream lasts until its workflow ends.
    "watchWorkflow",
    # A job tells who runs it, and that leads nowhere else.
    *("listWorkers", "getWorker"),
]


def walk_from_jobs(
    schema: BaseSchema, cancel: Callable[[str], object], *, walks: int, timeout: float | None = None
) -> None:
    """Submits jobs, follows the links of the answers, and compares each answer with the description.

    Args:
        cancel: cancels a job; a stream of events lasts until its job is final.
        walks: most walks.
        timeout: longest wait for an answer, seconds; None where nothing is sent over a network.
    """
    answers = defaultdict(set)
    schema.config.generation.update(modes=[GenerationMode.POSITIVE], with_security_parameters=False)

    class Walk(schema.exclude(operation_id=ELSEWHERE).as_state_machine()):
        def before_call(self, case):
            if "wait" in (case.query or {}):
                case.query["wait"] = WAIT
            # A request is made again with what was drawn, and must then be answered in the same way.
            case.headers.pop("Idempotency-Key", None)
            if isinstance(case.body, dict):
                for field in ("idempotency_key", "expires_at", "run_at", "delay"):
                    case.body.pop(field, None)
            if case.operation.path.endswith("/events"):
                cancel(case.path_parameters["job_id"])

        def get_call_kwargs(self, case):
            return {} if timeout is None else {"timeout": timeout}

        def after_call(self, response, case):
            answers[case.operation.definition.raw["operationId"]].add(response.status_code)

        def validate_response(self, response, case, **kwargs):
            case.validate_response(response, checks=ALWAYS)

    _run(Walk, settings(_ALWAYS_THE_SAME, max_examples=walks, stateful_step_count=STEPS))
    assert 201 in answers["submitJob"]
    reached = {name for name, statuses in answers.items() if statuses & {200, 202, 204, 409}}
    assert reached >= OF_A_JOB, answers


def _run(walk: type[APIStateMachine], chosen: settings) -> None:
    """Makes the walks; begins again where one that began as an earlier one was answered otherwise.

    Nothing was answered wrongly then: on a busy machine an answer may be 503, and other links could be followed.
    """
    for _ in range(TURNS - 1):
        try:
            walk.run(settings=chosen)
        except FlakyStrategyDefinition:
            continue
        return
    walk.run(settings=chosen)
