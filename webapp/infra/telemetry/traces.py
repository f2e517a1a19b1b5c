"""Traces: what OpenTelemetry is told of requests and attempts. Without a collector nothing is, and nothing is loaded.

All that touches OpenTelemetry is in `webapp.infra.telemetry.spans`, which is imported when OTEL_EXPORTER_OTLP_ENDPOINT names a
collector. Else the functions here see that there are no spans, and are done. Nothing in here raises: an error in telling
of a job must not fail it.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING
from uuid import UUID

from webapp.infra.telemetry.traceparent import Traceparent, of_attempt
from webapp.settings import Settings

if TYPE_CHECKING:
    from webapp.infra.telemetry.spans import Attempt, RunningSpan, Spans

logger = logging.getLogger(__name__)


_spans: Spans | None = None


def install(settings: Settings, role: str, version: str) -> None:
    """Turns traces on in this process and those it forks, when the settings name a collector; else off.

    Args:
        role: what this process is: api, worker.
        version: of DJPS.
    """
    global _spans  # noqa: PLW0603 - one collector per process
    flush()
    _spans = None
    if settings.traces_url and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true":
        from webapp.infra.telemetry.spans import Spans  # noqa: PLC0415 - a process without traces does not pay for the import

        _spans = Spans(settings, role, version)


def are_on() -> bool:
    """Whether there is anything to tell; what costs something to find out can be left out otherwise."""
    return _spans is not None


def flush() -> None:
    """Sends what is left and stops, within the time that `webapp.infra.telemetry.spans` allows; for a process that ends."""
    if _spans is not None:
        _spans.stop()


def request(
    name: str, parent: Traceparent | None, attributes: dict[str, str | int | None]
) -> RunningSpan | None:
    """Begins the span of a request; None with traces off.

    Args:
        name: method and route.
        parent: what the client sent.
        attributes: by OpenTelemetry's conventions for HTTP; None leaves one out.
    """
    if _spans is None:
        return None
    try:
        return _spans.request(name, parent, attributes)
    except Exception:
        logger.exception("span of a request could not be begun")
        return None


def attempt(job: Attempt) -> RunningSpan | None:
    """Begins the span of an attempt; None with traces off."""
    if _spans is None:
        return None
    try:
        return _spans.attempt(job)
    except Exception:
        logger.exception("span of an attempt could not be begun")
        return None


def fields_of(job_id: UUID, attempt: int, header: str | None) -> dict[str, str]:
    """What log lines say of an attempt's place in its trace: `trace_id`, `span_id`; nothing with traces off.

    Args:
        header: the `traceparent` that the job's row keeps.
    """
    if _spans is None:
        return {}
    return of_attempt(job_id, attempt, header).fields
