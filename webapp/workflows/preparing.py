"""Makes of what a client asks for what is stored: every job is looked at as if it were submitted now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
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
from webapp.workflows.model import MOST_STEPS, TOLD_BY, StepSpec, WorkflowSpec
from webapp.workflows.store import NewStep, NewWorkflow

#: Levels in which workflows are steps of each other.
DEEPEST = 3
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
        depth: 1; more within others.
    """

    def __init__(
        self, making: Making, reach: Reach, origin: Origin, under: str = "", *, depth: int = 1
    ) -> None:
        self._making = making
        self._reach = reach
        self._origin = origin
        self._under = under
        self._depth = depth
        #: Where jobs of workflows wait that are steps.
        self._queues: set[str] = set()
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
        self._check_depth(spec)
        steps = [self._step(one) for one in placed(spec.steps, self._under)]
        events = {event: self._event(event, job) for event, job in _events_of(spec)}
        self._check_callback(spec.callback_url)
        queues = self._queues | {one.queue for one in steps if one.queue is not None}
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

    def _check_depth(self, spec: WorkflowSpec) -> None:
        """Looks whether workflows are steps of each other in few levels, and have no more steps together than one may have."""
        if self._depth > DEEPEST:
            rule = f"must be steps of each other in at most {DEEPEST} levels"
            raise WorkflowRefused(self._under.removesuffix("."), rule, self._depth)
        if self._depth == 1 and (count := _steps_in(spec)) > MOST_STEPS:
            rule = f"must be at most {MOST_STEPS}, those of workflows that are steps among them"
            raise WorkflowRefused("steps", rule, count)

    def _step(self, one: Placed) -> NewStep:
        field = f"{self._under}steps.{one.node.name.replace(':', '.')}"
        spec, document = one.spec, document_of(one.spec)
        if spec.workflow is not None:
            inner = Preparing(
                self._making, self._reach, self._origin, f"{field}.workflow.", depth=self._depth + 1
            )
            child = inner.prepared(spec.workflow)
            self._queues |= set(child.new.options["queues"])
            return NewStep(one, {"workflow": document_of_prepared(child)}, None)
        job = spec.job or {"payload": {}}
        later = set(spec.inputs) | ({spec.item_key} if spec.over is not None else set())
        _check_inputs(field, job, spec)
        queue = self._queue_of(field, job, later)
        return NewStep(one, document | {"job": {**job, "queue": queue}}, queue)

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


def _check_inputs(field: str, job: Mapping[str, Any], spec: StepSpec) -> None:
    keys = {f"{field}.inputs.{key}": key for key in spec.inputs}
    if spec.over is not None:
        if spec.item_key in spec.inputs:
            raise WorkflowRefused(f"{field}.map.as", "must not be a key of inputs as well", spec.item_key)
        keys[f"{field}.map.as"] = spec.item_key
    for name, key in keys.items():
        if key == TASK:
            raise WorkflowRefused(name, "must not be task, which names the handler", key)
        if key in job["payload"]:
            raise WorkflowRefused(name, "must not be a key of the payload as well", key)


def _steps_in(spec: WorkflowSpec) -> int:
    """How many steps a workflow has, with those of the workflows that are its steps. Pure."""
    return sum(
        1 + (step.compensate is not None) + (0 if step.workflow is None else _steps_in(step.workflow))
        for step in spec.steps.values()
    )


def document_of_prepared(prepared: Prepared) -> dict[str, Any]:
    """A workflow that is a step, as it is kept with it: where its jobs wait is fixed in it. Pure."""
    names = {one.placed.node.number: one.placed.node.name for one in prepared.steps}
    steps: dict[str, dict[str, Any]] = {}
    for one in prepared.steps:
        node = one.placed.node
        if node.undoes is not None:
            steps[names[node.undoes]]["compensate"] = dict(one.document)
            continue
        place = {"after": [names[other] for other in node.after], "when": node.when.value}
        steps[node.name] = {**one.document, **place, "on_failure": node.on_failure.value}
    options = prepared.new.options
    document: dict[str, Any] = {event: options[event] for event in EVENTS if event in options}
    return document | {
        "steps": steps,
        "name": prepared.new.name,
        "fail_fast": bool(options.get("fail_fast")),
        "callback_url": prepared.new.callback_url,
    }
