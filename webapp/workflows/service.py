"""The front door of workflows: submit, look at, cancel and retry them. Commits first, then tells the workers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine

from webapp.audit.model import Act, Event, Named
from webapp.audit.service import AuditRecord
from webapp.flow.reach import EVERYTHING, Reach
from webapp.infra.postgres.engine import in_one_trip, in_transaction
from webapp.jobs import retention
from webapp.jobs.errors import KeyElsewhere, KeyReused
from webapp.jobs.submission import Origin
from webapp.workflows import store
from webapp.workflows.advancer import Advancer
from webapp.workflows.advancing import Advance
from webapp.workflows.errors import (
    NothingToRetry,
    UnknownStep,
    UnknownWorkflow,
    WorkflowEnded,
    WorkflowGone,
)
from webapp.workflows.explain import Explanation, explain, explain_step
from webapp.workflows.means import Done, Means, tell
from webapp.workflows.model import Status, StepRow, StepStatus, WorkflowRow, WorkflowSpec
from webapp.workflows.preparing import Prepared, Preparing

logger = logging.getLogger(__name__)


class Submitted(NamedTuple):
    """A workflow that is stored.

    Args:
        created: False where its idempotency key was used for the same request before.
    """

    workflow: WorkflowRow
    created: bool


class Workflows:
    """Takes workflows in, and answers for them. One with a queue that a caller does not reach is not there.

    Args:
        engine: the database.
        means: what they are moved on with.
        audit: notes who steers them; None: DJPS itself does.
        retention_days: days that one is kept after its end; 0: for ever.
    """

    def __init__(
        self, engine: Engine, means: Means, audit: AuditRecord | None = None, *, retention_days: int = 0
    ) -> None:
        self._engine = engine
        self._means = means
        self._audit = audit or AuditRecord(engine)
        self._retention_days = retention_days
        self._advancer = Advancer(engine, means)

    def submit(self, spec: WorkflowSpec, origin: Origin, reach: Reach, key: str | None = None) -> Submitted:
        """Stores a workflow and has its first steps begin, in one transaction.

        Args:
            key: its idempotency key.

        Raises:
            WorkflowRefused, StepPayloadRefused: a field breaks a rule; nothing is stored.
            OutOfReach: a queue of a step is not within reach.
            KeyReused: the key belongs to another request.
            KeyElsewhere: the key belongs to a workflow that is not within reach.
        """
        prepared = Preparing(self._means.making, reach, origin).prepared(spec, key=key)
        workflow_id, created, done = in_transaction(self._engine, partial(self._stored, prepared))
        if done is not None:
            tell(self._means, done)
            logger.info("workflow was submitted", extra={"workflow_id": str(workflow_id)})
        found = in_one_trip(self._engine, lambda connection: store.find(connection, workflow_id, reach))
        if found is None:
            raise KeyElsewhere("idempotency_key", key or "")
        return Submitted(found, created)

    def _stored(self, prepared: Prepared, connection: Connection) -> tuple[UUID, bool, Done | None]:
        new = prepared.new
        if not store.insert(connection, new, prepared.steps):
            owner = store.by_key(connection, new.idempotency_key) if new.idempotency_key else None
            if owner is None:
                # A first try of this request has stored it, and its answer was lost.
                return new.id, True, None
            if owner[1] != new.fingerprint:
                raise KeyReused(new.idempotency_key or "", None)
            return owner[0], owner[0] == new.id, None
        return new.id, True, self._advanced(connection, new.id)

    def _advanced(self, connection: Connection, workflow_id: UUID) -> Done:
        workflow = store.try_lock(connection, workflow_id)
        if workflow is None:
            # It was deleted for its age between two statements.
            raise UnknownWorkflow(workflow_id)
        return Advance(connection, self._means, workflow).run()

    def get(self, workflow_id: UUID, reach: Reach) -> WorkflowRow:
        """One workflow.

        Raises:
            UnknownWorkflow, WorkflowGone: there is none with this id within reach.
        """
        return in_one_trip(self._engine, lambda connection: self._found(connection, workflow_id, reach))

    def watch(self, workflow_id: UUID, reach: Reach) -> WorkflowRow:
        """One workflow, which from now on tells of its changes. Errors as for `get`."""

        def watched(connection: Connection) -> WorkflowRow:
            self._found(connection, workflow_id, reach)
            store.watch(connection, workflow_id)
            return self._found(connection, workflow_id, reach)

        return in_one_trip(self._engine, watched)

    def page(
        self,
        reach: Reach,
        *,
        status: Status | None = None,
        name: str | None = None,
        before: UUID | None = None,
        limit: int = 100,
    ) -> list[WorkflowRow]:
        """Workflows, the newest first; arguments as for `store.page`."""
        return in_one_trip(
            self._engine,
            partial(store.page, reach=reach, status=status, name=name, before=before, limit=limit),
        )

    def steps(self, workflow_id: UUID, reach: Reach) -> tuple[WorkflowRow, list[StepRow]]:
        """A workflow with all of its steps, by number. Errors as for `get`."""

        def look(connection: Connection) -> tuple[WorkflowRow, list[StepRow]]:
            found = self._found(connection, workflow_id, reach)
            return found, store.steps(connection, workflow_id)

        return in_one_trip(self._engine, look)

    def explain(self, workflow_id: UUID, reach: Reach, workers: Callable[[], int | None]) -> Explanation:
        """Why a workflow is not done. Errors as for `get`.

        Args:
            workers: how many live workers do what beat asks for; None when that is not known.
        """
        workflow, steps = self.steps(workflow_id, reach)
        return explain(workflow, steps, workers())

    def explain_step(
        self, workflow_id: UUID, name: str, reach: Reach
    ) -> tuple[StepRow, list[str], Explanation]:
        """A step, the names of all steps by number, and why it does not run.

        Raises:
            UnknownStep: the workflow has none of this name; else as for `get`.
        """
        _, steps = self.steps(workflow_id, reach)
        found = next((step for step in steps if step.name == name), None)
        if found is None:
            raise UnknownStep(workflow_id, name)
        return found, [step.name for step in steps], explain_step(found, steps)

    def cancel(self, workflow_id: UUID, reach: Reach, reason: str | None = None) -> WorkflowRow:
        """Cancels a workflow: what waits will not run, what runs is asked to stop, what runs at the end in any case does.

        Asking twice changes nothing.

        Raises:
            WorkflowEnded: it has ended, and was not cancelled; else as for `get`.
        """

        def once(connection: Connection) -> Done | None:
            found = self._locked(connection, workflow_id, reach)
            if found.status.is_final:
                if found.status is Status.CANCELLED:
                    return None
                raise WorkflowEnded(workflow_id, found.status.value)
            if not store.ask_cancel(connection, workflow_id, reason):
                return None
            self._note(connection, Event.WORKFLOW_CANCEL, workflow_id, reason)
            return self._advanced(connection, workflow_id)

        return self._steered(workflow_id, reach, in_transaction(self._engine, once))

    def retry(self, workflow_id: UUID, reach: Reach, reason: str | None = None) -> WorkflowRow:
        """Has what failed or was cancelled run again; steps that were left out on that account wait again.

        Raises:
            NothingToRetry: nothing failed, or what its steps did was undone; else as for `get`.
        """

        def once(connection: Connection) -> Done:
            found = self._locked(connection, workflow_id, reach)
            steps = store.steps(connection, workflow_id)
            if any(step.undoes is not None and step.job_id is not None for step in steps):
                raise NothingToRetry(workflow_id, "what its steps have done was undone; submit it anew")
            if not any(step.status.is_broken for step in steps) and not _was_cut_short(found, steps):
                raise NothingToRetry(workflow_id, "no step of it failed or was cancelled")
            retried = Advance(connection, self._means, found).retry()
            self._note(connection, Event.WORKFLOW_RETRY, workflow_id, reason, changed=retried)
            return self._advanced(connection, workflow_id)

        return self._steered(workflow_id, reach, in_transaction(self._engine, once))

    def _steered(self, workflow_id: UUID, reach: Reach, done: Done | None) -> WorkflowRow:
        if done is not None:
            tell(self._means, done)
            # Jobs that were cancelled at once are noted.
            self._advancer.after([workflow_id])
        return self.get(workflow_id, reach)

    def _locked(self, connection: Connection, workflow_id: UUID, reach: Reach) -> WorkflowRow:
        self._found(connection, workflow_id, reach)
        store.lock(connection, workflow_id)
        return self._found(connection, workflow_id, EVERYTHING)

    def _found(self, connection: Connection, workflow_id: UUID, reach: Reach) -> WorkflowRow:
        found = store.find(connection, workflow_id, reach)
        if found is not None:
            return found
        past = retention.is_past(workflow_id, datetime.now(UTC), self._retention_days)
        raise WorkflowGone(workflow_id) if past else UnknownWorkflow(workflow_id)

    def _note(
        self,
        connection: Connection,
        event: Event,
        workflow_id: UUID,
        reason: str | None,
        changed: int | None = None,
    ) -> None:
        """Puts an act on record, in its transaction."""
        act = Act(event, Named("workflow", str(workflow_id)), reason=reason, changed=changed)
        self._audit.note(connection, act)


def _was_cut_short(workflow: WorkflowRow, steps: list[StepRow]) -> bool:
    """True if it was cancelled before all of its steps had their turn."""
    return workflow.status is Status.CANCELLED and any(step.status is StepStatus.SKIPPED for step in steps)
