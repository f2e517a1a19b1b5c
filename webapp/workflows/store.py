"""Runs the statements about workflows and their steps. Functions take a connection and never commit."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, text

from webapp.flow.reach import EVERYTHING, Reach
from webapp.groups.model import Totals
from webapp.infra.postgres.literals import array_of, json_of, optional_array_of, text_array_of
from webapp.infra.postgres.sql_files import read_sql
from webapp.jobs.retention import may_end_from
from webapp.workflows.graphs import Placed
from webapp.workflows.inputs import Given
from webapp.workflows.model import Kind, OnFailure, Status, StepRow, StepStatus, When, WorkflowRow

_WORKFLOWS = {
    name: text(read_sql(__file__, "workflows", name))
    for name in (
        *("insert", "by_key", "find", "page", "try_lock", "lock", "take_notes", "has_notes", "note_itself"),
        *("move", "ask_cancel", "resume", "watch", "look", "noted", "overdue", "prune", "overdue_by_notes"),
        *("sign_callback", "note_member"),
    )
}
_STEPS = {
    name: text(read_sql(__file__, "steps", name))
    for name in (
        "insert",
        "all",
        "specs",
        "move",
        "jobs",
        "results",
        "size_of_results",
        "results_of",
        "children",
    )
}
#: Groups with notes that are looked at for workflows that are not moved on.
COUNTED_UP_TO = 1_000


class NewStep(NamedTuple):
    """A step that is to be stored.

    Args:
        document: what it was asked for, as it is kept.
        queue: where its job waits; None: it has none of its own.
    """

    placed: Placed
    document: Mapping[str, Any]
    queue: str | None


@dataclass(frozen=True, slots=True)
class NewWorkflow:
    """A workflow that is to be stored; fields as of `WorkflowRow`."""

    id: UUID
    name: str | None
    tenant: int
    submitted_by: int | None
    request_id: str | None
    traceparent: str | None
    parent_id: UUID | None
    total: int
    options: Mapping[str, Any]
    callback_url: str | None
    idempotency_key: str | None
    fingerprint: bytes | None
    deadline: datetime | None


@dataclass(slots=True)
class Move:
    """How a step stands from now on.

    Args:
        before: how it stood.
    """

    row: StepRow
    before: StepStatus

    @property
    def ends(self) -> bool:
        """True if the step ends by it, as far as can be said now."""
        return self.row.status.is_final and self.row.status is not self.before


def insert(connection: Connection, new: NewWorkflow, steps: Sequence[NewStep]) -> bool:
    """Stores a workflow with its steps; False where its idempotency key was used, or it is there already."""
    values = {name: getattr(new, name) for name in NewWorkflow.__slots__}
    stored = connection.execute(_WORKFLOWS["insert"], values | {"options": json_of(new.options)}).first()
    if stored is None:
        return False
    connection.execute(_STEPS["insert"], {"workflow_id": new.id} | _values_of(steps))
    return True


def _values_of(steps: Sequence[NewStep]) -> dict[str, str]:
    """New steps as columns."""
    nodes = [one.placed.node for one in steps]
    return {
        "numbers": array_of(node.number for node in nodes),
        "names": text_array_of(node.name for node in nodes),
        "kinds": text_array_of(one.placed.spec.kind.value for one in steps),
        "specs": text_array_of(json_of(one.document) for one in steps),
        "afters": text_array_of(array_of(node.after) for node in nodes),
        "whens": text_array_of(node.when.value for node in nodes),
        "policies": text_array_of(node.on_failure.value for node in nodes),
        "undoes": optional_array_of(node.undoes for node in nodes),
        "queues": text_array_of(one.queue for one in steps),
    }


def by_key(connection: Connection, key: str) -> tuple[UUID, bytes] | None:
    """The workflow that was made under an idempotency key, and the fingerprint of its request."""
    row = connection.execute(_WORKFLOWS["by_key"], {"key": key}).first()
    return None if row is None else (row[0], bytes(row[1]))


def _of(row: Row[Any]) -> WorkflowRow:
    own: list[Any] = list(row)
    return WorkflowRow(*[*own[:2], Status(own[2]), *own[3:9], Totals(*own[9:14]), *own[14:]])


def _within(reach: Reach) -> dict[str, Any]:
    queues = None if reach.queues is None else json.dumps(sorted(reach.queues))
    return {"tenant": reach.number, "queues": queues}


def find(connection: Connection, workflow_id: UUID, reach: Reach = EVERYTHING) -> WorkflowRow | None:
    """One workflow; one that is not wholly within reach is not there."""
    row = connection.execute(_WORKFLOWS["find"], {"id": workflow_id} | _within(reach)).first()
    return None if row is None else _of(row)


def page(
    connection: Connection,
    reach: Reach,
    *,
    status: Status | None,
    name: str | None,
    before: UUID | None,
    limit: int,
) -> list[WorkflowRow]:
    """Workflows, the newest first.

    Args:
        before: only those that are older than this one.
    """
    values = {"status": status and status.value, "name": name, "before": before, "limit": limit}
    return [_of(row) for row in connection.execute(_WORKFLOWS["page"], values | _within(reach))]


def try_lock(connection: Connection, workflow_id: UUID) -> WorkflowRow | None:
    """Locks a workflow; None where another session has it, or there is none."""
    row = connection.execute(_WORKFLOWS["try_lock"], {"id": workflow_id}).first()
    return None if row is None else _of(row)


def lock(connection: Connection, workflow_id: UUID) -> None:
    """Locks a workflow, and waits for who has it."""
    connection.execute(_WORKFLOWS["lock"], {"id": workflow_id})


def take_notes(connection: Connection, workflow_id: UUID) -> set[UUID]:
    """Takes the notes of a workflow that is locked; returns of which members there were some."""
    return set(connection.execute(_WORKFLOWS["take_notes"], {"id": workflow_id}).scalars())


def has_notes(connection: Connection, workflow_id: UUID) -> bool:
    """True if the end of a member is noted."""
    return bool(connection.execute(_WORKFLOWS["has_notes"], {"id": workflow_id}).scalar_one())


def note_itself(connection: Connection, workflow_id: UUID) -> None:
    """Asks for another look at a workflow of which something is left to do."""
    connection.execute(_WORKFLOWS["note_itself"], {"id": workflow_id})


def note_member(connection: Connection, group_id: UUID, member_id: UUID) -> None:
    """Notes that a member ended in another way than before."""
    connection.execute(_WORKFLOWS["note_member"], {"group_id": group_id, "member_id": member_id})


def sign_callback(connection: Connection, job_id: UUID, workflow_id: UUID) -> None:
    """Has a job that was just stored be the callback of a workflow."""
    connection.execute(_WORKFLOWS["sign_callback"], {"job_id": job_id, "workflow_id": workflow_id})


def ask_cancel(connection: Connection, workflow_id: UUID, reason: str | None) -> bool:
    """Notes that a workflow is to be cancelled; False where that was asked before."""
    return bool(connection.execute(_WORKFLOWS["ask_cancel"], {"id": workflow_id, "reason": reason}).rowcount)


def resume(connection: Connection, workflow_id: UUID) -> None:
    """Lets a workflow go on that was to be cancelled."""
    connection.execute(_WORKFLOWS["resume"], {"id": workflow_id})


def watch(connection: Connection, workflow_id: UUID) -> None:
    """Makes a workflow that has not ended tell of its changes."""
    connection.execute(_WORKFLOWS["watch"], {"id": workflow_id})


def move(connection: Connection, workflow: WorkflowRow, status: Status, totals: Totals) -> None:
    """Writes how a workflow stands, with the jobs that follow its end as the row has them."""
    values = {
        "id": workflow.id,
        "status": status.value,
        "is_final": status.is_final,
        **totals._asdict(),
        **{f"{one}_job_id": getattr(workflow, f"{one}_job_id") for one in ("complete", "success", "failure")},
        "callback_job_id": workflow.callback_job_id,
    }
    connection.execute(_WORKFLOWS["move"], values)


def look(connection: Connection) -> tuple[bool, bool]:
    """True if something is noted of any group, and if a deadline has passed; one exchange."""
    row = connection.execute(_WORKFLOWS["look"]).one()
    return row[0], row[1]


def noted(connection: Connection, after: UUID, limit: int) -> list[tuple[UUID, bool]]:
    """The next groups by id that have notes, and whether each is a workflow."""
    return [
        (row[0], row[1]) for row in connection.execute(_WORKFLOWS["noted"], {"after": after, "limit": limit})
    ]


def overdue(connection: Connection, limit: int) -> list[UUID]:
    """Workflows that are past their deadline, and were not asked to stop."""
    return list(connection.execute(_WORKFLOWS["overdue"], {"limit": limit}).scalars())


def prune(connection: Connection, *, days: int, limit: int) -> int:
    """Deletes workflows that ended more than so many days ago, with their steps; returns how many."""
    return int(connection.execute(_WORKFLOWS["prune"], {"days": days, "limit": limit}).scalar_one())


def overdue_by_notes(connection: Connection, seconds: float) -> int:
    """How many workflows have notes, and were not moved on for so many seconds."""
    values = {"seconds": seconds, "most": COUNTED_UP_TO}
    return int(connection.execute(_WORKFLOWS["overdue_by_notes"], values).scalar_one())


def _step(row: Row[Any]) -> StepRow:
    own: list[Any] = list(row)
    kind, when, policy, status = Kind(own[2]), When(own[4]), OnFailure(own[5]), StepStatus(own[7])
    return StepRow(*[*own[:2], kind, tuple(own[3]), when, policy, own[6], status, *own[8:]])


def steps(connection: Connection, workflow_id: UUID) -> list[StepRow]:
    """All steps of a workflow, by number."""
    return [_step(row) for row in connection.execute(_STEPS["all"], {"workflow_id": workflow_id})]


def specs(
    connection: Connection, workflow_id: UUID, numbers: Iterable[int]
) -> dict[int, tuple[dict[str, Any], str | None]]:
    """What these steps were asked for, and where their jobs wait."""
    values = {"workflow_id": workflow_id, "numbers": array_of(numbers)}
    return {row[0]: (row[1], row[2]) for row in connection.execute(_STEPS["specs"], values)}


def move_steps(connection: Connection, workflow_id: UUID, moves: Sequence[Move]) -> int:
    """Writes how steps stand; returns how many were as they were said to be before."""
    if not moves:
        return 0
    rows = [one.row for one in moves]
    values = {
        "workflow_id": workflow_id,
        "numbers": array_of(row.number for row in rows),
        "statuses": text_array_of(row.status.value for row in rows),
        "reasons": text_array_of(row.reason for row in rows),
        "asked": optional_array_of(row.is_asked for row in rows),
        "job_ids": text_array_of(_id(row.job_id) for row in rows),
        "child_ids": text_array_of(_id(row.child_id) for row in rows),
        "before": text_array_of(one.before.value for one in moves),
    }
    return connection.execute(_STEPS["move"], values).rowcount


def _id(given: UUID | None) -> str | None:
    return None if given is None else str(given)


def job_statuses(connection: Connection, ids: Collection[UUID]) -> dict[UUID, str]:
    """How jobs stand now; those that are not there are left out."""
    if not ids:
        return {}
    values = {"ids": array_of(ids), "since": may_end_from(*ids)}
    return {row[0]: row[1] for row in connection.execute(_STEPS["jobs"], values)}


def results(connection: Connection, ids: Collection[UUID]) -> dict[UUID, Given]:
    """What jobs that completed have given; those that are not there are left out."""
    if not ids:
        return {}
    values = {"ids": array_of(ids), "since": may_end_from(*ids)}
    rows = connection.execute(_STEPS["results"], values)
    return {row[0]: Given(StepStatus.COMPLETED, row[1], row[2]) for row in rows}


def size_of_results(connection: Connection, child_id: UUID) -> int:
    """How large the results of a batch's members are together, bytes."""
    values = {"child_id": child_id, "since": may_end_from(child_id)}
    return int(connection.execute(_STEPS["size_of_results"], values).scalar_one())


def results_of(connection: Connection, child_id: UUID) -> Given:
    """The results of a batch's members, in the order of their ids."""
    values = {"child_id": child_id, "since": may_end_from(child_id)}
    rows = connection.execute(_STEPS["results_of"], values).all()
    note = next((row[1] for row in rows if row[1] is not None), None)
    return Given(StepStatus.COMPLETED, [row[0] for row in rows], note)


def child_statuses(connection: Connection, ids: Collection[UUID]) -> dict[UUID, tuple[str, bool]]:
    """How groups stand that are steps, and whether they have ended."""
    if not ids:
        return {}
    return {
        row[0]: (row[1], row[2]) for row in connection.execute(_STEPS["children"], {"ids": array_of(ids)})
    }
