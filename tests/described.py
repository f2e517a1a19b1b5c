"""Whether an application answers as its description says."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

#: What holds of every answer, ...
ALWAYS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
#: ... and what holds of one to a request that was made to break a rule.
CHECKS = (*ALWAYS, negative_data_rejection, unsupported_method)


def answers_as_described(schema: BaseSchema, mode: GenerationMode, examples: int) -> None:
    """Sends requests to every operation that answers at once, and compares the answers with the description.

    Args:
        mode: requests that fit the description, or requests that do not.
        examples: most requests to each operation.
    """
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path.endswith(("/events", "/metrics")):
            # The one is a stream, the other has its own tests.
            continue
        if mode is GenerationMode.NEGATIVE and not (
            operation.query or operation.body or operation.path_parameters
        ):
            continue

        @settings(
            max_examples=examples,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def answered(case):
            case.call_and_validate(checks=CHECKS)

        answered()
