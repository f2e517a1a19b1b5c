"""Moves one workflow on, in one transaction: looks how its steps stand now, decides, has steps begin, and writes it all down.

The workflow's row is locked from the first look to the commit. What a note says is not believed: it names a member, and how that stands is
looked up after the notes were taken, so what is decided by is at least as new as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from sqlalchemy import Connection
from uuid_utils.compat import uuid7

from webapp.jobs import control
from webapp.jobs.making import Asked, Refusal, submission_of
from webapp.jobs.model import CancelAnswer
from webapp.jobs.states import JobStatus
from webapp.jobs.submission import NewJob
from webapp.workflows import ending, store
from webapp.workflows.children import Children, NoRoom
from webapp.workflows.decisions import Decision, Situation, decide
from webapp.workflows.documents import step_of
from webapp.workflows.inputs import Given, Unfit, with_inputs
from webapp.workflows.means import Done, Means, origin_of, store_jobs
from webapp.workflows.model import LONGEST_REASON, Kind, StepRow, StepSpec, StepStatus, Why, WorkflowRow
from webapp.workflows.store import Move

#: Jobs that are asked to stop in one transaction; the others are asked in the next one.
MOST_STOPS = 200
#: What a step has given whose job is not there any more.
GONE = Given(StepStatus.COMPLETED, note="its job was deleted for its age")
#: Why a job was asked to stop.
CANCELLED = "its workflow was cancelled"
FAILED_FAST = "another step of its workflow failed"
#: How a step stands, by the status of its job.
_STANDS = {
    JobStatus.QUEUED: StepStatus.RUNNING,
    JobStatus.PROCESSING: StepStatus.RUNNING,
    JobStatus.COMPLETED: StepStatus.COMPLETED,
    JobStatus.FAILED: StepStatus.FAILED,
    JobStatus.CANCELLED: StepStatus.CANCELLED,
}


class Advance:
    """One workflow that is locked, on its way.

    Args:
        connection: of the transaction that has locked it.
        means: what it is moved on with.
        workflow: as it stood.
    """

    def __init__(self, connection: Connection, means: Means, workflow: WorkflowRow) -> None:
        self._connection = connection
        self._means = means
        self._workflow = workflow
        self._before: list[StepRow] = []
        self._rows: list[StepRow] = []
        #: Something is left to do, and no end of a job will ask for it.
        self._is_left = False
        self._was_taken_back = False
        self._done = Done(workflow.status, parent_id=workflow.parent_id)
        self._children = Children(connection, means, workflow, _run, self._done)

    def run(self, *, looks_at_all: bool = False) -> Done:
        """Does what follows.

        Args:
            looks_at_all: at every job that runs, and not only at those of which something is noted.
        """
        noted = store.take_notes(self._connection, self._workflow.id)
        self._before = store.steps(self._connection, self._workflow.id)
        self._rows = list(self._before)
        self._look(noted, looks_at_all=looks_at_all)
        decision = self._go_on()
        self._stop(decision.stops)
        self._write(decision)
        return self._done

    def retry(self) -> int:
        """Has failed steps begin again, or their jobs, before what follows is done; returns how many there were."""
        broken = [row for row in store.steps(self._connection, self._workflow.id) if row.status.is_broken]
        store.resume(self._connection, self._workflow.id)
        self._workflow = replace(self._workflow, cancel_requested_at=None)
        moves = [
            Move(row, before.status) for row, before in zip(self._begun_again(broken), broken, strict=True)
        ]
        store.move_steps(self._connection, self._workflow.id, moves)
        return len(broken)

    def _begun_again(self, broken: Sequence[StepRow]) -> list[StepRow]:
        """Steps whose jobs are queued again, or that wait to begin anew where there is nothing to be queued."""
        jobs = [row.job_id for row in broken if row.job_id is not None and row.child_id is None]
        there = store.job_statuses(self._connection, jobs)
        if there:
            control.requeue_many(self._connection, list(there), ended_from=self._workflow.created_at)
        found = []
        for row in broken:
            goes_on = row.job_id in there if row.child_id is None else self._children.retry(row)
            if goes_on:
                found.append(replace(row, status=StepStatus.RUNNING, reason=None, is_asked=False))
            else:
                anew = {"job_id": None, "child_id": None, "reason": None, "is_asked": False}
                found.append(replace(row, status=StepStatus.WAITING, **anew))  # type: ignore[arg-type] # as named
        return found

    def _look(self, noted: Collection[UUID], *, looks_at_all: bool) -> None:
        """Has steps stand as their jobs do now."""
        self._look_at_children(noted, looks_at_all=looks_at_all)
        by_job = {row.job_id: row for row in self._rows if row.job_id is not None and row.child_id is None}
        wanted = by_job.keys() & noted
        if looks_at_all:
            wanted |= {job_id for job_id, row in by_job.items() if row.status is StepStatus.RUNNING}
        statuses = store.job_statuses(self._connection, wanted)
        for job_id in wanted:
            row = by_job[job_id]
            if job_id in statuses:
                self._stand(row, _STANDS[JobStatus(statuses[job_id])])
            elif not row.status.is_final:
                self._stand(row, StepStatus.FAILED, f"{Why.JOB_GONE}: it was deleted before its end was seen")
        if self._was_taken_back and self._workflow.status.is_final:
            self._resume()

    def _look_at_children(self, noted: Collection[UUID], *, looks_at_all: bool) -> None:
        """Has steps stand as their groups do now."""
        wanted = [
            row
            for row in self._rows
            if row.child_id is not None
            and (row.child_id in noted or (looks_at_all and row.status is StepStatus.RUNNING))
        ]
        found = self._children.standing(wanted) if wanted else {}
        for row in wanted:
            if row.number in found:
                self._stand(row, found[row.number])
            elif not row.status.is_final:
                self._stand(row, StepStatus.FAILED, f"{Why.JOB_GONE}: it was deleted before its end was seen")

    def _stand(self, row: StepRow, status: StepStatus, reason: str | None = None) -> None:
        if status is row.status:
            return
        is_back = row.status.is_final and status is StepStatus.RUNNING
        self._was_taken_back = self._was_taken_back or is_back
        is_asked = row.is_asked and not is_back
        self._rows[row.number] = replace(row, status=status, reason=reason, is_asked=is_asked)

    def _resume(self) -> None:
        """A workflow that had ended goes on, as a job of it was queued again: so do those that were stopped on its account."""
        store.resume(self._connection, self._workflow.id)
        self._workflow = replace(self._workflow, cancel_requested_at=None)
        stopped = [row for row in self._rows if row.status is StepStatus.CANCELLED and row.is_asked]
        for row in self._begun_again(stopped):
            self._rows[row.number] = row

    def _go_on(self) -> Decision:
        """Decides and has steps begin, until nothing more follows."""
        while True:
            decision = decide(self._situation())
            if not decision.begins or not self._begin(decision.begins):
                return decision

    def _situation(self) -> Situation:
        return Situation(
            [row.node for row in self._rows],
            {row.number: row.status for row in self._rows if _has_begun(row)},
            frozenset(row.number for row in self._rows if row.is_asked),
            fail_fast=bool(self._workflow.options.get("fail_fast")),
            is_cancelled=self._workflow.cancel_requested_at is not None,
        )

    def _begin(self, numbers: Sequence[int]) -> bool:
        """Has steps begin; True if one failed instead, so that there is more to decide."""
        specs = store.specs(self._connection, self._workflow.id, numbers)
        steps = {number: step_of(document) for number, (document, _) in specs.items()}
        given = self._given(steps.values())
        asked: dict[int, Asked] = {}
        has_failed = False
        for number, step in steps.items():
            try:
                if step.kind is Kind.JOB:
                    asked[number] = self._asked(step, specs[number][1], given)
                else:
                    begun = self._children.begin(step, specs[number][1], given)
                    self._run_step(number, begun.job_id, begun.child_id)
            except NoRoom as full:
                self._wait_for_room(number, full.refused)
            except Unfit as unfit:
                self._fail(number, unfit.reason)
                has_failed = True
        return self._store(asked) or has_failed

    def _store(self, asked: Mapping[int, Asked]) -> bool:
        """Stores the jobs of steps; True if one was refused."""
        has_failed = False
        jobs: list[NewJob] = []
        for number, made in zip(asked, self._means.making.made(list(asked.values())), strict=True):
            if isinstance(made, NewJob):
                jobs.append(made)
                self._run_step(number, made.id)
            elif made.is_full:
                self._wait_for_room(number, made)
            else:
                self._fail(number, _reason(Why.REFUSED, made))
                has_failed = True
        store_jobs(self._connection, self._means, jobs, self._done)
        return has_failed

    def _run_step(self, number: int, job_id: UUID | None, child_id: UUID | None = None) -> None:
        begun = {"reason": None, "job_id": job_id, "child_id": child_id}
        self._rows[number] = replace(self._rows[number], status=StepStatus.RUNNING, **begun)  # type: ignore[arg-type] # as named

    def _wait_for_room(self, number: int, refused: Refusal) -> None:
        self._is_left = True
        self._rows[number] = replace(self._rows[number], reason=_reason(Why.QUEUE_FULL, refused))

    def _asked(self, step: StepSpec, queue: str | None, given: Mapping[str, Given]) -> Asked:
        """The job of a step, with what it takes.

        Raises:
            Unfit: it cannot be put together.
        """
        job = step.job or {}
        payload = with_inputs(job["payload"], step.inputs, given, self._means.largest)
        return Asked(
            submission_of(job, payload), uuid7(), origin_of(self._workflow), queue, self._workflow.id
        )

    def _given(self, steps: Iterable[StepSpec]) -> dict[str, Given]:
        """What the steps have given of which these take something."""
        names = _sources_of(steps)
        wanted = [row for row in self._rows if row.name in names]
        completed = [row for row in wanted if row.status is StepStatus.COMPLETED]
        found = store.results(self._connection, [row.job_id for row in completed if row.job_id is not None])
        results = {row.name: Given(row.status) for row in wanted}
        for row in completed:
            results[row.name] = (
                self._children.given(row) if row.job_id is None else found.get(row.job_id, GONE)
            )
        return results

    def _fail(self, number: int, reason: str) -> None:
        row = replace(self._rows[number], status=StepStatus.FAILED, reason=reason[:LONGEST_REASON])
        self._rows[number] = row

    def _stop(self, numbers: Sequence[int]) -> None:
        """Asks what runs to stop. One that waits is cancelled at once, which is noted and seen at the next look."""
        self._is_left = self._is_left or len(numbers) > MOST_STOPS
        why = FAILED_FAST
        if self._workflow.cancel_requested_at is not None:
            given = self._workflow.cancel_reason
            why = f"{CANCELLED}: {given}" if given else CANCELLED
        for number in numbers[:MOST_STOPS]:
            row = self._rows[number]
            if row.child_id is not None:
                self._children.stop(row, why[:LONGEST_REASON])
            elif row.job_id is not None:
                answer = control.ask_cancel(self._connection, row.job_id, why[:LONGEST_REASON])
                self._done.cancelled += answer is CancelAnswer.CANCELLED
            self._rows[number] = replace(row, is_asked=True)

    def _write(self, decision: Decision) -> None:
        """Writes how the steps and the workflow stand, and makes what follows its end."""
        moves = self._moves(decision)
        if store.move_steps(self._connection, self._workflow.id, moves) != len(moves):
            raise RuntimeError("a step is not as it was seen under the lock of its workflow")
        self._done.steps.update(move.row.status for move in moves if move.ends)
        self._done.status = decision.status
        workflow, ends = self._workflow, self._ends(decision)
        if ends or not decision.status.is_final:
            # The next end is told of anew.
            workflow = replace(workflow, callback_job_id=None)
        if ends:
            workflow = ending.follow(self._connection, self._means, workflow, decision, self._done)
            self._tell_parent(workflow)
        if moves or ends or decision.status is not self._workflow.status:
            store.move(self._connection, workflow, decision.status, decision.totals)
        if self._is_left:
            store.note_itself(self._connection, workflow.id)

    def _moves(self, decision: Decision) -> list[Move]:
        rows = [self._as_decided(row, decision) for row in self._rows]
        return [
            Move(row, before.status) for row, before in zip(rows, self._before, strict=True) if row != before
        ]

    def _ends(self, decision: Decision) -> bool:
        """True if the workflow ends by this, for the first time or in another way than before."""
        is_other = decision.status is not self._workflow.status or self._was_taken_back
        self._done.has_ended = decision.status.is_final and is_other
        return self._done.has_ended

    def _tell_parent(self, workflow: WorkflowRow) -> None:
        """Notes an end of a workflow that had ended before, and has not been open in between: by itself its row would tell of none."""
        if self._workflow.finished_at is not None and workflow.parent_id is not None:
            store.note_member(self._connection, workflow.parent_id, workflow.id)

    def _as_decided(self, row: StepRow, decision: Decision) -> StepRow:
        """A step as it is to be written."""
        if _has_begun(row):
            return row
        status, why = decision.stands[row.number]
        is_full = row.why is Why.QUEUE_FULL and status is StepStatus.WAITING and row.number in decision.begins
        return row if is_full else replace(row, status=status, reason=why and why.value, is_asked=False)


def _run(connection: Connection, means: Means, workflow: WorkflowRow, *, retries: bool = False) -> Done:
    """Moves a workflow on that is locked; where it is to be retried, after what failed of it was begun again."""
    if not retries:
        return Advance(connection, means, workflow).run()
    advance = Advance(connection, means, workflow)
    advance.retry()
    again = store.find(connection, workflow.id)
    return Advance(connection, means, again or workflow).run()


def _sources_of(steps: Iterable[StepSpec]) -> set[str]:
    """The names of the steps of which these take something."""
    taken = [source for step in steps for source in (*step.inputs.values(), step.over) if source is not None]
    return {source.step for source in taken}


def _has_begun(row: StepRow) -> bool:
    """True for a step that has a job, or failed without one."""
    return row.status not in {StepStatus.WAITING, StepStatus.SKIPPED}


def _reason(why: Why, refused: Refusal) -> str:
    return f"{why}: {refused.words}"[:LONGEST_REASON]
