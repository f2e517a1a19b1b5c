"""Steps that are groups of their own: a job for each value of a list, a job that fills a batch, a workflow. Functions of the transaction that moves
their workflow on.

Such a group counts as one member of its workflow: its end is noted as that of a job is. Locks go from a workflow to its children, and never back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

from sqlalchemy import Connection
from uuid_utils.compat import uuid7

from webapp.batches import control_store, course, members
from webapp.batches import store as batch_store
from webapp.batches.model import OPEN_FOR
from webapp.batches.store import NewBatch
from webapp.flow.tenant import Tenant
from webapp.infra.jsontext import size_of
from webapp.jobs.errors import JobError
from webapp.jobs.making import Asked, Refusal, submission_of
from webapp.jobs.submission import NewJob
from webapp.workflows import store
from webapp.workflows.errors import WorkflowError
from webapp.workflows.inputs import Given, Unfit, fitting, taken, with_inputs
from webapp.workflows.means import Done, Means, origin_of
from webapp.workflows.model import Kind, Status, StepRow, StepSpec, StepStatus, Why, WorkflowRow, WorkflowSpec
from webapp.workflows.preparing import Preparing

#: Most values of a list that get a job each, and jobs that are stored at once.
MOST_MAPPED: Final = 100_000
AT_ONCE: Final = 5_000
#: Members that are looked at for failed ones before the sweep goes on.
LOOKED_AT: Final = 10_000
#: How a step stands, by the status of a group that has ended.
STANDS: Final = {
    "completed": StepStatus.COMPLETED,
    "failed": StepStatus.FAILED,
    "cancelled": StepStatus.CANCELLED,
}


class Run(Protocol):
    """Moves a workflow on that is locked."""

    def __call__(
        self, connection: Connection, means: Means, workflow: WorkflowRow, *, retries: bool = False
    ) -> Done:
        """What was done.

        Args:
            retries: what failed of it begins again before that.
        """


class NoRoom(Exception):
    """A queue takes no more for now."""

    def __init__(self, refused: Refusal) -> None:
        super().__init__(refused.words)
        self.refused = refused


class Begun(NamedTuple):
    """A step that has begun.

    Args:
        child_id: the group that it is.
        job_id: of the job that fills it.
    """

    child_id: UUID
    job_id: UUID | None = None


class Children:
    """The steps of one workflow that are groups.

    Args:
        connection: of the transaction that has locked it.
        means: what it is moved on with.
        workflow: the one.
        run: moves another one on, in the same transaction.
        done: what the transaction does.
    """

    def __init__(
        self, connection: Connection, means: Means, workflow: WorkflowRow, run: Run, done: Done
    ) -> None:
        self._connection = connection
        self._means = means
        self._workflow = workflow
        self._run = run
        self._done = done

    def begin(self, step: StepSpec, queue: str | None, given: Mapping[str, Given]) -> Begun:
        """Has a step begin.

        Raises:
            Unfit: its inputs cannot be had, or it would be refused.
            NoRoom: a queue is full.
        """
        match step.kind:
            case Kind.WORKFLOW:
                return self._begin_workflow(step)
            case Kind.MAP:
                return self._begin_map(step, queue, given)
            case _:
                return self._begin_batch(step, queue, given)

    def _begin_workflow(self, step: StepSpec) -> Begun:
        origin = origin_of(self._workflow)
        preparing = Preparing(self._means.making, origin.reach, origin)
        try:
            new, steps = preparing.prepared(step.workflow or WorkflowSpec({}), parent_id=self._workflow.id)
        except (WorkflowError, JobError) as refused:
            raise Unfit(Why.REFUSED, str(refused)) from None
        store.insert(self._connection, new, steps)
        child = store.try_lock(self._connection, new.id)
        if child is not None:
            self._merge(self._run(self._connection, self._means, child))
        return Begun(new.id)

    def _begin_map(self, step: StepSpec, queue: str | None, given: Mapping[str, Given]) -> Begun:
        values = self._values(step, given)
        job = step.job or {}
        base = with_inputs(job["payload"], step.inputs, given, self._means.largest)
        room = self._means.largest - size_of(base | {step.item_key: None})
        # In the order of the list: their results are read by it.
        ids = sorted(uuid7() for _ in values)
        asked = [
            self._asked(job, fitting(base | {step.item_key: value}, value, room), job_id, queue)
            for job_id, value in zip(ids, values, strict=True)
        ]
        return Begun(self._fill(self._made(asked)))

    def _values(self, step: StepSpec, given: Mapping[str, Given]) -> list[Any]:
        source = step.over
        if source is None:
            return []
        values = taken("map", source, given[source.step])
        if values is None:
            return []
        if not isinstance(values, list):
            words = f"map: the result of step {source.step!r} has no array at {source.pointer!r}"
            raise Unfit(Why.INPUT_MISSING, words)
        if len(values) > MOST_MAPPED:
            raise Unfit(
                Why.INPUT_TOO_LARGE, f"map: {len(values)} values are more than {MOST_MAPPED}; fill a batch"
            )
        return values

    def _begin_batch(self, step: StepSpec, queue: str | None, given: Mapping[str, Given]) -> Begun:
        job = step.job or {}
        payload = with_inputs(job["payload"], step.inputs, given, self._means.largest)
        (made,) = self._made([self._asked(job, payload, uuid7(), queue)])
        return Begun(self._fill([made]), made.id)

    def _asked(
        self, job: Mapping[str, Any], payload: Mapping[str, Any], job_id: UUID, queue: str | None
    ) -> Asked:
        return Asked(submission_of(job, payload), job_id, origin_of(self._workflow), queue)

    def _made(self, asked: Sequence[Asked]) -> list[NewJob]:
        jobs: list[NewJob] = []
        for made in self._means.making.made(asked):
            if isinstance(made, NewJob):
                jobs.append(made)
            elif made.is_full:
                raise NoRoom(made)
            else:
                raise Unfit(Why.REFUSED, made.words)
        return jobs

    def _fill(self, jobs: Sequence[NewJob]) -> UUID:
        """Stores a batch with these jobs; from then on only they add others."""
        workflow = self._workflow
        new = NewBatch(
            uuid7(),
            workflow.name,
            Tenant(workflow.tenant, workflow.tenant_slug),
            workflow.submitted_by,
            {},
            None,
            OPEN_FOR,
            request_id=workflow.request_id,
            traceparent=workflow.traceparent,
            parent=workflow.id,
        )
        members.make_child(self._connection, new)
        for first in range(0, len(jobs), AT_ONCE):
            members.add_members(self._connection, new.id, jobs[first : first + AT_ONCE])
        batch_store.close(self._connection, new.id)
        rules = self._means.making.book.rules()
        followed = course.judge(self._connection, [new.id], rules, self._means.callbacks)
        self._done.followed.append(followed)
        self._done.jobs += jobs
        return new.id

    def _merge(self, done: Done) -> None:
        """Takes over what a child has done, to be told after the commit."""
        self._done.jobs += done.jobs
        self._done.told += done.told
        self._done.steps.update(done.steps)
        self._done.cancelled += done.cancelled
        self._done.followed += done.followed

    def standing(self, rows: Iterable[StepRow]) -> dict[int, StepStatus]:
        """How steps stand by their groups, now; those whose group is not there any more are left out."""
        by_child = {row.child_id: row.number for row in rows if row.child_id is not None}
        found = store.child_statuses(self._connection, list(by_child))
        return {
            by_child[child_id]: STANDS.get(status, StepStatus.RUNNING) if is_over else StepStatus.RUNNING
            for child_id, (status, is_over) in found.items()
        }

    def given(self, row: StepRow) -> Given:
        """What a step has given that completed: the results of a map by the place in the list; of a workflow, which it was."""
        if row.child_id is None or row.kind is Kind.BATCH:
            return Given(StepStatus.COMPLETED)
        if row.kind is Kind.WORKFLOW:
            return Given(StepStatus.COMPLETED, {"workflow_id": str(row.child_id)})
        size = store.size_of_results(self._connection, row.child_id)
        if size > self._means.largest:
            return Given(
                StepStatus.COMPLETED, note=f"together they have {size} bytes, more than a payload may have"
            )
        return store.results_of(self._connection, row.child_id)

    def stop(self, row: StepRow, why: str) -> None:
        """Asks a step that runs to stop."""
        if row.child_id is None:
            return
        if row.kind is not Kind.WORKFLOW:
            control_store.ask_cancel(self._connection, row.child_id, why)
            return
        store.lock(self._connection, row.child_id)
        if store.ask_cancel(self._connection, row.child_id, why):
            self._run_child(row.child_id, retries=False)

    def retry(self, row: StepRow) -> bool:
        """Has what failed of a step begin again; False where the step has to begin anew."""
        if row.child_id is None:
            return False
        if row.kind is not Kind.WORKFLOW:
            if row.status is not StepStatus.FAILED:
                return False
            control_store.ask_retry(self._connection, row.child_id)
            control_store.retry_members(self._connection, row.child_id, LOOKED_AT)
            return True
        store.lock(self._connection, row.child_id)
        steps = store.steps(self._connection, row.child_id)
        if not steps or any(step.undoes is not None and step.job_id is not None for step in steps):
            return False
        self._run_child(row.child_id, retries=True)
        return True

    def _run_child(self, child_id: UUID, *, retries: bool) -> None:
        child = store.find(self._connection, child_id)
        if child is not None and (retries or child.status is not Status.COMPLETED):
            self._merge(self._run(self._connection, self._means, child, retries=retries))
