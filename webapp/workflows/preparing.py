"""Makes of what a client asks for what is stored: every job is looked at as if it were submitted now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from uuid_utils.compat import uuid7

from webapp.flow.reach import Reach
from webapp.infra.jsontext import iso
from webapp.jobs.errors import OptionRefused, PayloadRefused
from webapp.jobs.making import Asked, Making, submission_of
from webapp.jobs.submission import Origin, check_callback
from webapp.jobs.unseen import check_reached
from webapp.workflows.documents import EVENTS, document_of, document_of_workflow
from webapp.workflows.errors import StepPayloadRefused, WorkflowRefused
from webapp.workflows.graphs import Placed, placed
from webapp.workflows.model import TOLD_BY, Kind, StepSpec, WorkflowSpec
from webapp.workflows.store import NewStep, NewWorkflow

#: The payload's key that names the handler.
TASK = "task"


class Prepared(NamedTuple):
    """A workflow that can be stored."""

    new: NewWorkflow
    steps: list[NewStep]


def fingerprint(spec: WorkflowSpec) -> bytes:
    """SHA-256 of what was asked for in a canonical form."""
    whole = document_of_workflow(spec) | {"deadline": spec.deadline and iso(spec.deadline)}
    canonical = json.dumps(whole, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).digest()


class Preparing:
    """Prepares one workflow.

    Args:
        making: knows what may be submitted.
        reach: of the caller.
        origin: for whom its jobs are.
        under: what fields are named by, where it is a workflow within another one.
    """

    def __init__(self, making: Making, reach: Reach, origin: Origin, under: str = "") -> None:
        self._making = making
        self._reach = reach
        self._origin = origin
        self._under = under
        self._now = datetime.now(UTC)

    def prepared(
        self, spec: WorkflowSpec, *, key: str | None = None, parent_id: UUID | None = None
    ) -> Prepared:
        """What is stored.

        Raises:
            WorkflowRefused, StepPayloadRefused: a field breaks a rule.
            OutOfReach: a queue is not within reach.
        """
        if spec.deadline is not None and spec.deadline <= self._now:
            raise WorkflowRefused("deadline", "must be ahead", iso(spec.deadline))
        steps = [self._step(one) for one in placed(spec.steps, self._under)]
        events = {event: self._event(event, job) for event, job in _events_of(spec)}
        self._check_callback(spec.callback_url)
        queues = {one.queue for one in steps if one.queue is not None}
        options: dict[str, Any] = {"queues": sorted(queues), **events}
        if spec.fail_fast:
            options["fail_fast"] = True
        new = NewWorkflow(
            id=uuid7(),
            name=spec.name,
            tenant=self._reach.home.id,
            submitted_by=self._origin.key,
            request_id=self._origin.request_id,
            traceparent=self._origin.traceparent,
            parent_id=parent_id,
            total=sum(one.placed.node.undoes is None for one in steps),
            options=options,
            callback_url=spec.callback_url,
            idempotency_key=key and self._reach.kept(key),
            fingerprint=fingerprint(spec),
            deadline=spec.deadline,
        )
        return Prepared(new, steps)

    def _step(self, one: Placed) -> NewStep:
        field = f"{self._under}steps.{one.node.name.replace(':', '.')}"
        spec = one.spec
        if spec.kind is not Kind.JOB and one.node.undoes is not None:
            raise WorkflowRefused(field, "must be one job", spec.kind.value)
        queue = None
        if spec.job is not None:
            _check_inputs(field, spec)
            queue = self._queue_of(field, spec.job, set(spec.inputs))
        return NewStep(one, document_of(spec), queue)

    def _event(self, event: str, job: Mapping[str, Any]) -> dict[str, Any]:
        if TOLD_BY in job["payload"]:
            rule = "must not be a key of the payload: it will say of which workflow the job is told"
            raise WorkflowRefused(f"{self._under}{event}.payload.{TOLD_BY}", rule, TOLD_BY)
        return {**job, "queue": self._queue_of(f"{self._under}{event}", job, {TOLD_BY})}

    def _queue_of(self, field: str, job: Mapping[str, Any], later: set[str]) -> str:
        """Where a job waits that would be submitted now.

        Args:
            later: keys of its payload that come later, so that nothing of them is judged.
        """
        check_reached(job.get("queue"), self._reach)
        asked = Asked(submission_of(job), uuid7(), self._origin)
        try:
            queue = self._making.completed(asked, self._now).queue
        except OptionRefused as refused:
            raise WorkflowRefused(f"{field}.{refused.field}", refused.rule, refused.given) from None
        except PayloadRefused as refused:
            found = refused.error.errors(include_url=False, include_input=False, include_context=False)
            if not all(item["loc"] and item["loc"][0] in later for item in found):
                raise StepPayloadRefused((field, "payload"), refused.error, secret=refused.secret) from None
            queue = job.get("queue") or self._making.rules.queue_of(job["payload"])
        check_reached(queue, self._reach)
        return queue

    def _check_callback(self, url: str | None) -> None:
        if url is None:
            return
        try:
            check_callback(url)
        except OptionRefused as refused:
            field = f"{self._under}callback_url"
            raise WorkflowRefused(field, refused.rule, refused.given) from None


def _events_of(spec: WorkflowSpec) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for event in EVENTS:
        job = getattr(spec, event)
        if job is not None:
            yield event, job


def _check_inputs(field: str, spec: StepSpec) -> None:
    for key in spec.inputs:
        if key == TASK:
            rule = "must not be task, which names the handler"
            raise WorkflowRefused(f"{field}.inputs.{key}", rule, key)
        if key in (spec.job or {})["payload"]:
            raise WorkflowRefused(f"{field}.inputs.{key}", "must not be a key of the payload as well", key)


def as_child(spec: WorkflowSpec) -> WorkflowSpec:
    """A workflow that is a step: it has no deadline of its own. Pure."""
    return replace(spec, deadline=None)
