"""The `simulated` handler: a call to an outside service that is slow and fails now and then."""

from __future__ import annotations

import random
from typing import Any

from webapp.jobs import JobContext, handler
from webapp.settings import current


class SimulatedFailure(Exception):
    """The share of `simulated` jobs that is meant to fail."""


@handler("simulated")
def simulated(payload: dict[str, Any], context: JobContext) -> dict[str, int]:
    """Calls SIMULATED_JOB_URL, after failing SIMULATED_FAILURE_RATE of the time.

    Raises:
        SimulatedFailure: chance had it so.
        requests.RequestException: the call failed, took longer than SIMULATED_TIMEOUT, or was not answered 2xx.
    """
    settings = current()
    if random.random() < settings.simulated_failure_rate:  # noqa: S311 - chance, not a secret
        raise SimulatedFailure(f"simulated failure (rate {settings.simulated_failure_rate:g})")
    import requests  # noqa: PLC0415 - 4 MiB that only workers of such jobs need

    with requests.get(
        settings.simulated_job_url,
        timeout=settings.simulated_timeout,
        headers={"X-Job-Id": str(context.job_id), "X-Job-Attempt": str(context.attempt)},
        stream=True,
    ) as answer:
        answer.raise_for_status()
        return {"status_code": answer.status_code}
