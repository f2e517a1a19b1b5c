"""What a running handler knows of its job, and what it can do for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from uuid import UUID

from webapp.flow.tenant import DEFAULT_SLUG
from webapp.jobs.errors import Cancelled

if TYPE_CHECKING:
    from webapp.jobs.submission import Placed


def _is_not_cancelled() -> bool:
    return False


def _of_the_default_tenant() -> str:
    return DEFAULT_SLUG


def _report_to_no_one(_done: float, _total: float | None, _note: str) -> None:
    pass


class ChildJobs(Protocol):
    """Submits jobs from inside an attempt: `webapp.jobs.children.Children`."""

    def submit(self, payload: Mapping[str, Any], name: str | None, options: Mapping[str, Any]) -> Placed:
        """Submits a job."""

    def submit_many(self, requests: Sequence[Mapping[str, Any]], name: str | None) -> list[Placed]:
        """Submits many in one transaction."""


class _NoChildren:
    """Of a context that was made by hand."""

    def submit(self, *_: object) -> Placed:
        """Refuses.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("this context was made by hand: there is no platform to submit a job to")

    def submit_many(self, *_: object) -> list[Placed]:
        """Refuses in the same way."""
        return [self.submit()]


_NO_CHILDREN = _NoChildren()


class OwnBatch(Protocol):
    """The batch that a job is a member of: `webapp.batches.inside.OwnBatch`."""

    @property
    def id(self) -> UUID | None:
        """Its id; None: the job is in no batch. The first question of an attempt is a look at the database."""

    def add(self, jobs: Sequence[Mapping[str, Any]], part: str | None = None) -> list[Placed]:
        """Adds up to 10,000 jobs to the batch in one transaction, also where it is closed: it is not over while this job runs.

        Args:
            jobs: for each `payload`, and of the options of a submission what it needs.
            part: what they are called: an attempt that adds them again gets what an earlier one added. Without a name they are known by
                their number: what an attempt adds first is what the one before added first.

        Returns:
            For each its id, and whether it was created now, in their order.

        Raises:
            NotInBatch: the job is in no batch.
            JobError: a job breaks a rule, and none was added.
            SomeRefused: some were refused when the others were added; its `answers` say which.
            BatchError: the batch is being cancelled, or the part was used for other jobs.
            sqlalchemy.exc.SQLAlchemyError: the database is away. Let it through, and the job is tried again.
        """


class _NoBatch:
    """Of a context that was made by hand."""

    id: UUID | None = None

    def add(self, *_: object, **__: object) -> list[Placed]:
        """Refuses.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("this context was made by hand: its job is in no batch")


_NO_BATCH = _NoBatch()


class JobContext(NamedTuple):
    """What a running handler knows of its job.

    A named tuple, because one is made for each job: a frozen dataclass takes three times as long.

    Args:
        job_id: the job; the same over all attempts, so a good key for calls downstream.
        attempt: which claim this is, from 1; only ever grows.
        retry_count: failed attempts so far that were given another try.
        deadline: seconds on `time.monotonic()`'s clock when the attempt is stopped.
        logger: writes JSON lines that carry job id and attempt.
        is_cancelled: true if the job's cancellation was asked.
        report: writes how far the attempt is.
        traceparent: the W3C header for calls that belong to this attempt's trace; None outside of any trace.
        callback_of: the job whose end this one tells of; None for what was submitted.
        tenant_of: looks up the name of the job's tenant.
        children: submits jobs from inside this attempt.
        batch: the batch that the job is a member of; `add` adds jobs to it.
    """

    job_id: UUID
    attempt: int
    retry_count: int
    deadline: float
    logger: logging.Logger
    is_cancelled: Callable[[], bool] = _is_not_cancelled
    report: Callable[[float, float | None, str], None] = _report_to_no_one
    traceparent: str | None = None
    callback_of: UUID | None = None
    tenant_of: Callable[[], str] = _of_the_default_tenant
    children: ChildJobs = _NO_CHILDREN
    batch: OwnBatch = _NO_BATCH

    @property
    def tenant(self) -> str:
        """The name of the tenant whose job it is. A look at the database each time: keep it where it is needed twice.

        Example:
            >>> def handler(payload, context):
            ...     return {"stored": f"{context.tenant}/{payload['name']}"}
        """
        return self.tenant_of()

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Says how far the attempt is; clients see it in the job and its events. Cheap: it is written twice a second at most.

        What was said last is written at the end of the attempt, if it was not before.

        Args:
            done: how much is done, in units of the handler's choice.
            total: how much there is; None when that is not known.
            note: a few words, up to 200 characters.

        Raises:
            ValueError: `done` or `total` is no finite number from 0 on.

        Example:
            >>> def handler(payload, context):
            ...     for number, page in enumerate(payload["pages"], 1):
            ...         context.progress(number, len(payload["pages"]), f"page {page}")
        """
        self.report(done, total, note)

    def cancelled(self) -> bool:
        """Whether the job's cancellation was asked. Cheap: the row is looked at once a second, however often this is called.

        Example:
            >>> def handler(payload, context):
            ...     for page in payload["pages"]:
            ...         if context.cancelled():
            ...             break
        """
        return self.is_cancelled()

    def check_cancelled(self) -> None:
        """Ends the handler when the job's cancellation was asked.

        Raises:
            Cancelled: it was.
        """
        if self.is_cancelled():
            raise Cancelled

    def submit(self, payload: Mapping[str, Any], *, name: str | None = None, **options: Any) -> Placed:
        """Submits a job from inside this one, by the rules of `POST /jobs`; returns once it is stored.

        It is of the same tenant, and belongs to the same trace and request. It stays submitted, whatever becomes of this attempt.

        Args:
            payload: a JSON object; `task` names its handler.
            name: what it is to this job, such as "receipt". A handler that is tried again, and submits it under the same name, gets
                the same job for IDEMPOTENCY_TTL seconds: it is not submitted twice. Without a name each attempt submits its own.
            options: what else a submission says: `queue`, `key`, `priority`, `run_at` (also as a `datetime`), `delay`, `max_retries`,
                `backoff`, `timeout`, `expires_at`, `tags`, `callback_url`, `unique`; `idempotency_key` in place of a name.

        Returns:
            Its id, and whether it was created now.

        Raises:
            JobError: it was refused; the words name the field, the rule and what was given. Under a name that was used for another
                request, `KeyReused`; at a bound of its queue, `QueueFull` or `KeyFull`.
            sqlalchemy.exc.SQLAlchemyError: the database is away. Let it through, and the job is tried again.

        Example:
            >>> def ship(payload, context):
            ...     receipt = context.submit({"task": "send-receipt", "order": payload["order"]}, name="receipt", priority=7)
            ...     return {"receipt": str(receipt.id)}
        """
        return self.children.submit(payload, name, options)

    def submit_many(self, requests: Sequence[Mapping[str, Any]], *, name: str | None = None) -> list[Placed]:
        """Submits up to 10,000 jobs in one transaction, as `POST /jobs/batch` does.

        Args:
            requests: for each job `payload`, and of the options of `submit`, `name` among them, what it needs.
            name: of all of them: those without a name of their own are called by it and their place.

        Returns:
            For each its id, and whether it was created now, in their order.

        Raises:
            JobError: a request breaks a rule, and none was stored.
            SomeRefused: some were refused when the others were stored; its `answers` say which.
            sqlalchemy.exc.SQLAlchemyError: the database is away.

        Example:
            >>> def resize_all(payload, context):
            ...     context.submit_many([{"payload": {"task": "resize", "page": page}} for page in range(9)], name="page")
        """
        return self.children.submit_many(requests, name)
