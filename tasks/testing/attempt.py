"""Runs one attempt of a handler as a worker would, and says what becomes of its job."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypedDict
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded
from uuid_utils.compat import uuid7

from tasks.attempt import handler_log
from tasks.attempt.coroutines import callable_of
from tasks.attempt.progress import Progress, said
from tasks.attempt.results import keepable
from tasks.attempt.soft_limit import SoftLimit
from tasks.testing.outcome import Cancelled, Completed, Discarded, Failed, Line, Outcome, Retried, Snoozed
from tasks.testing.submitted import Submitted, SubmittedJobs
from webapp.batches.inside import OwnBatch
from webapp.infra.telemetry import logs
from webapp.jobs.children import Children
from webapp.jobs.context import JobContext
from webapp.jobs.error_report import ErrorReport
from webapp.jobs.error_text import trace_of
from webapp.jobs.errors import JobTimeout, UnknownTask, meant
from webapp.jobs.handlers import Handler, HandlerFunction, registry
from webapp.jobs.retry import ComeBack, DeathReason, GiveUp, RetryPolicy, TryAgain
from webapp.settings.jobs import JobSettings

#: What a handler may raise that ends its attempt and not the test: `pytest.fail` and Ctrl-C end the test.
_ENDS_ATTEMPT = (Exception, SystemExit, asyncio.CancelledError)


def run(
    handler: str | HandlerFunction,
    payload: dict[str, Any] | None = None,
    *,
    retry_count: int = 0,
    attempt: int | None = None,
    max_retries: int | None = None,
    timeout: float | None = None,
    backoff: dict[str, float] | list[float] | None = None,
    cancelled: bool | Callable[[], bool] = False,
    job_id: UUID | None = None,
    submitted: Iterable[Submitted] = (),
    batch: UUID | None = None,
) -> Outcome:
    """Runs one attempt of a job in this process, with no server, and says what becomes of the job.

    The payload goes through JSON, and through the handler's model where it has one, as it would on its way to a worker; the
    result does on its way back. What is left out counts as it does for a submission: first the handler's own limits, then the
    settings' defaults. The time limit works in the main thread only, where pytest runs tests.

    Args:
        handler: its name, or its function, registered or not.
        payload: what the job is submitted with; `task` is added.
        retry_count: retries that the job has used.
        attempt: which one this is; one more than `retry_count` when None.
        max_retries: retries that the job has in all.
        timeout: seconds the attempt may take.
        backoff: the job's own, as a submission has it.
        cancelled: what `context.cancelled` says.
        job_id: the job's; a new one when None.
        batch: the batch that the job is a member of; what it adds is among `submitted`, called by its part and its place.
        submitted: what earlier attempts of this job have submitted: with its `job_id` too, what has a name is not submitted again.

    Raises:
        UnknownTask: no handler has this name.
        PayloadRefused: the payload does not fit the handler's model: the submission would be refused.
        TypeError, ValueError: the payload is not JSON.

    Example:
        >>> from webapp.jobs import Retry
        >>> def greet(payload, context):
        ...     if context.attempt == 1:
        ...         raise Retry("not yet", after=5)
        ...     return {"greeting": f"Hello {payload['name']}"}
        >>> run(greet, {"name": "Ada"}).after
        5.0
        >>> run(greet, {"name": "Ada"}, retry_count=1).result
        {'greeting': 'Hello Ada'}
    """
    found = _handler_of(handler)
    given = json.loads(json.dumps({"task": found.name, **(payload or {})}, allow_nan=False))
    found.check(given)
    limit = _first(timeout, found.timeout, _default("job_timeout"))
    is_cancelled = cancelled if callable(cancelled) else lambda: bool(cancelled)
    progress: list[Progress] = []
    own_id, number = job_id or uuid7(), retry_count + 1 if attempt is None else attempt
    front = SubmittedJobs(own_id, submitted, batch)
    context = JobContext(
        own_id,
        number,
        retry_count,
        time.monotonic() + limit,
        handler_log.logger,
        is_cancelled,
        lambda done, total, note: progress.append(said(done, total, note)),
        children=Children(own_id, number, lambda: front),
        batch=OwnBatch(own_id, lambda: front),
    )
    with _lines() as lines:
        try:
            kept = keepable(_called(found, given, context, limit), _default("max_result_bytes"))
        except _ENDS_ATTEMPT as raised:
            ended = _Ended(raised, limit)
        else:
            return Completed(
                result=json.loads(kept.text or "null"),
                result_note=kept.note,
                progress=tuple(progress),
                lines=tuple(lines),
                submitted=tuple(front.made),
            )
    seen = _Seen(progress=tuple(progress), lines=tuple(lines), submitted=tuple(front.made))
    if is_cancelled():
        return Cancelled(exception=ended.exception, error=ended.error, **seen)
    policy = RetryPolicy().of_job(found.backoff if backoff is None else backoff)
    most = _first(max_retries, found.max_retries, _default("max_job_retries"))
    return ended.outcome(policy, retry_count, most, seen)


class _Seen(TypedDict):
    """What every outcome has."""

    progress: tuple[Progress, ...]
    lines: tuple[Line, ...]
    submitted: tuple[Submitted, ...]


class _Ended:
    """An attempt that ended with an error.

    Args:
        raised: the error.
        limit: seconds that the attempt had.
    """

    def __init__(self, raised: BaseException, limit: float) -> None:
        told = JobTimeout(limit) if isinstance(raised, SoftTimeLimitExceeded) else raised
        self.exception = meant(told)
        self.error = ErrorReport.of(told, trace_of(raised))

    def outcome(self, policy: RetryPolicy, retry_count: int, max_retries: int, seen: _Seen) -> Outcome:
        """What becomes of the job."""
        error = self.exception
        match policy.after_failure(error, retry_count=retry_count, max_retries=max_retries):
            case ComeBack(delay):
                return Snoozed(after=delay, **seen)
            case TryAgain(delay):
                return Retried(after=delay, exception=error, error=self.error, **seen)
            case GiveUp(DeathReason.DISCARDED):
                return Discarded(exception=error, error=self.error, **seen)
            case GiveUp():
                return Failed(exception=error, error=self.error, **seen)


def _handler_of(handler: str | HandlerFunction) -> Handler:
    if isinstance(handler, str):
        named = registry.get(handler)
        if named is None:
            raise UnknownTask(handler, registry.names())
        return named
    for known in registry.mapping().values():
        if known.run is handler:
            return known
    return Handler("handler", handler)


def _called(found: Handler, payload: dict[str, Any], context: JobContext, limit: float) -> Any:
    """What the handler returns.

    Raises:
        SoftTimeLimitExceeded: it ran past its time limit.
    """
    with SoftLimit(is_for_one=True) as limited:
        limited.begin(limit)
        try:
            return callable_of(found)(payload, context)
        finally:
            limited.end()


def _default(setting: str) -> Any:
    """What a setting is that was not set: a test's outcome must not depend on where it runs."""
    return JobSettings.model_fields[setting].default


def _first(*values: Any) -> Any:
    """The first value that is not None."""
    return next(value for value in values if value is not None)


@contextmanager
def _lines() -> Iterator[list[Line]]:
    """The lines that handlers log in a block."""
    lines: list[Line] = []
    logger, collector = handler_log.logger, _Collector(lines)
    level = logger.level
    logger.addHandler(collector)
    logger.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        logger.setLevel(level)
        logger.removeHandler(collector)


class _Collector(logging.Handler):
    def __init__(self, lines: list[Line]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a line, with the fields that are not Python's own."""
        fields = {name: value for name, value in vars(record).items() if name not in logs.RESERVED}
        self._lines.append(Line(record.levelname, record.getMessage(), fields))
