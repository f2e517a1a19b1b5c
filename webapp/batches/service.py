"""The front door of batches: make them, add jobs, close them, look at them. Commits. What is done to a batch as a whole is in `control.py`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from uuid_utils.compat import uuid7

from webapp.audit.model import Act, Named
from webapp.audit.model import Event as Audited
from webapp.audit.service import AuditRecord
from webapp.batches import course, listing, members, store
from webapp.batches.course import CallbackTerms, Followed
from webapp.batches.errors import (
    BatchClosed,
    BatchGone,
    BatchKeyReused,
    PartBusy,
    PartReused,
    UnknownBatch,
)
from webapp.batches.explain import Explanation, explain
from webapp.batches.model import FIRST_PART, BatchRow, Member, PartKey, Status
from webapp.batches.requests import Added, Items, Wanted, options_of
from webapp.batches.store import NewBatch
from webapp.flow.book import FlowBook
from webapp.flow.reach import Reach
from webapp.infra.postgres.database_errors import is_lock_of
from webapp.infra.postgres.engine import in_one_trip, in_transaction
from webapp.infra.telemetry import metrics
from webapp.jobs import retention
from webapp.jobs.origins import of_request
from webapp.jobs.service import Jobs
from webapp.jobs.submission import Origin, Rules, check_callback

logger = logging.getLogger(__name__)


class Made(NamedTuple):
    """A batch that was made, or was before by the same request.

    Args:
        answers: of the jobs that came with it.
    """

    batch: BatchRow
    answers: members.Answers
    is_new: bool


class _KeyMet(Exception):
    """A batch with this idempotency key is there."""


class Batches:
    """Makes batches, and answers for them.

    Args:
        engine: the database.
        jobs: takes the members in.
        rules: what may be submitted.
        book: knows which queues and tasks have limits.
        callbacks: how callbacks are stored.
        audit: notes who closes batches; None: DJPS itself does.
    """

    def __init__(
        self,
        engine: Engine,
        jobs: Jobs,
        rules: Rules,
        book: FlowBook,
        *,
        callbacks: CallbackTerms,
        audit: AuditRecord | None = None,
    ) -> None:
        self._engine = engine
        self._jobs = jobs
        self._rules = rules
        self._book = book
        self._callbacks = callbacks
        self._audit = audit or AuditRecord(engine)

    def create(self, wanted: Wanted, reach: Reach, items: Items | None = None) -> Made:
        """Makes a batch, with jobs that come with it, in one transaction.

        Args:
            items: the jobs; None: it comes without any.

        Raises:
            BatchFieldRefused: a job of an event could not be submitted, or it would be too deep.
            BatchKeyReused: its key was used with another request.
            UnknownBatch, BatchGone, BatchClosed, NotAMember: of its parent.
            OptionRefused: its callback may not be called.
            KeyRace, UniqueRace: as for jobs; nothing was stored.
        """
        key = wanted.idempotency_key and reach.kept(wanted.idempotency_key)
        if key is not None and (before := self._made_before(key, wanted, reach)) is not None:
            return before
        new = self._new(wanted, reach, key)
        try:
            answers, followed = self._stored(new, wanted, reach, items)
        except _KeyMet:
            again = None if key is None else self._made_before(key, wanted, reach)
            # Else it is this one: the first try was committed, and its answer was lost.
            return again or Made(self.get(new.id, reach), [], is_new=True)
        course.tell(followed)
        metrics.batches_created.inc()
        return Made(self.get(new.id, reach), answers, is_new=True)

    def _new(self, wanted: Wanted, reach: Reach, key: str | None) -> NewBatch:
        """The checked and complete batch."""
        if wanted.callback_url is not None:
            check_callback(wanted.callback_url)
        if wanted.parent is not None:
            self.get(wanted.parent, reach)
        origin = of_request(reach)
        return NewBatch(
            uuid7(),
            wanted.name,
            reach.home,
            reach.key,
            options_of(wanted, self._rules, origin),
            wanted.callback_url,
            wanted.open_for,
            request_id=origin.request_id,
            traceparent=origin.traceparent,
            parent=wanted.parent,
            idempotency_key=key,
            fingerprint=wanted.fingerprint if key is not None else None,
        )

    def _stored(
        self, new: NewBatch, wanted: Wanted, reach: Reach, items: Items | None
    ) -> tuple[members.Answers, Followed]:
        """Stores a batch with its first jobs; returns what they are answered, and what followed where it is closed."""
        followed = Followed()

        def first(connection: Connection) -> None:
            if not store.make(connection, new):
                raise _KeyMet

        def last(connection: Connection) -> None:
            nonlocal followed
            if wanted.parent is not None:
                members.join_parent(connection, wanted.parent, wanted.member)
            if wanted.close:
                store.close(connection, new.id)
                followed = self._judged(connection, [new.id])

        def alone(connection: Connection) -> None:
            first(connection)
            last(connection)

        if items is None:
            in_transaction(self._engine, alone)
            return [], followed
        adding = members.Adding(new.id, PartKey(FIRST_PART), b"", items.answers_of, first=first, last=last)
        self._jobs.submit_many(items.submissions, reach, joining=adding)
        return adding.answers, followed

    def _made_before(self, key: str, wanted: Wanted, reach: Reach) -> Made | None:
        """The batch that the same request made before."""

        def look(connection: Connection) -> Made | None:
            owner = store.by_key(connection, key)
            if owner is None:
                return None
            found = listing.find(connection, owner[0], reach)
            if owner[1] != wanted.fingerprint or found is None:
                raise BatchKeyReused(wanted.idempotency_key or "", None if found is None else owner[0])
            part = store.find_part(connection, found.id, PartKey(FIRST_PART))
            return Made(found, [] if part is None else part.answers, is_new=False)

        return in_one_trip(self._engine, look)

    def add(
        self,
        batch_id: UUID,
        part: str,
        items: Items,
        reach: Reach,
        *,
        member: Member | None = None,
        origin: Origin | None = None,
    ) -> Added:
        """Adds jobs to a batch under the name of a part: the same again is answered as before, and stores nothing.

        Args:
            member: which adds them from inside; its batch may be closed.
            origin: where they come from; None: from the request that is being answered.

        Raises:
            UnknownBatch, BatchGone: there is none within reach.
            BatchClosed: it takes no more.
            NotAMember: the member does not run in this attempt.
            PartReused: the part was sent with other jobs.
            PartBusy: it is just being added.
            KeyRace, UniqueRace: as for jobs; nothing was stored.
        """
        name = PartKey(part) if member is None else PartKey(part, member.job_id)

        def look(connection: Connection) -> tuple[BatchRow, store.PartRow | None]:
            return self._found(connection, batch_id, reach), store.find_part(connection, batch_id, name)

        for _ in range(2):
            found, before = in_one_trip(self._engine, look)
            if before is not None:
                if before.fingerprint != items.fingerprint:
                    raise PartReused(part)
                return Added(before.answers, is_new=False)
            if member is None and found.closed_at is not None:
                raise BatchClosed(batch_id)
            adding = members.Adding(batch_id, name, items.fingerprint, items.answers_of, member=member)
            try:
                with _named_part(part):
                    self._jobs.submit_many(items.submissions, reach, origin, adding)
            except members.PartTaken:
                continue
            return Added(adding.answers, is_new=True)
        raise PartBusy(part)

    def close(self, batch_id: UUID, reach: Reach) -> BatchRow:
        """Has a batch take no more members; one that is closed stays as it is.

        Raises:
            UnknownBatch, BatchGone: there is none within reach.
        """

        def once(connection: Connection) -> tuple[BatchRow, Followed | None]:
            self._found(connection, batch_id, reach)
            followed = None
            if store.close(connection, batch_id):
                self._audit.note(connection, Act(Audited.BATCH_CLOSE, Named("batch", str(batch_id))))
                followed = self._judged(connection, [batch_id])
            return self._found(connection, batch_id, reach), followed

        batch, followed = in_transaction(self._engine, once)
        if followed is not None:
            course.tell(followed)
        return batch

    def get(self, batch_id: UUID, reach: Reach) -> BatchRow:
        """A batch, with counts that are exact at one moment.

        Raises:
            UnknownBatch, BatchGone: there is none within reach.
        """
        return in_one_trip(self._engine, partial(self._found, batch_id=batch_id, reach=reach))

    def watch(self, batch_id: UUID, reach: Reach) -> BatchRow:
        """A batch, which from now on tells of its changes.

        Raises:
            UnknownBatch, BatchGone: there is none within reach.
        """

        def watched(connection: Connection) -> BatchRow:
            self._found(connection, batch_id, reach)
            listing.watch(connection, batch_id)
            return self._found(connection, batch_id, reach)

        return in_one_trip(self._engine, watched)

    def page(
        self,
        reach: Reach,
        *,
        status: Status | None = None,
        name: str | None = None,
        parent: UUID | None = None,
        before: UUID | None = None,
        limit: int = 20,
    ) -> list[BatchRow]:
        """Batches from the newest on; arguments as for `listing.page`."""
        given = {"status": status, "name": name, "parent": parent, "before": before, "limit": limit}
        return in_one_trip(self._engine, partial(listing.page, reach=reach, **given))  # type: ignore[arg-type] # by name

    def explain(self, batch_id: UUID, reach: Reach, workers: Callable[[], int | None]) -> Explanation:
        """Why a batch is not over.

        Args:
            workers: how many live workers do what beat asks for; None when that is not known.

        Raises:
            UnknownBatch, BatchGone: there is none within reach.
        """

        def look(connection: Connection) -> Explanation:
            batch = self._found(connection, batch_id, reach)
            return explain(batch, listing.unfinished(connection, batch_id), workers)

        return in_one_trip(self._engine, look)

    def _judged(self, connection: Connection, ids: Sequence[UUID]) -> Followed:
        return course.judge(connection, ids, self._book.rules(), self._callbacks)

    def _found(self, connection: Connection, batch_id: UUID, reach: Reach) -> BatchRow:
        found = listing.find(connection, batch_id, reach)
        if found is not None:
            return found
        if retention.is_past(batch_id, datetime.now(UTC), self._rules.limits.retention_days):
            raise BatchGone(batch_id)
        raise UnknownBatch(batch_id)


@contextmanager
def _named_part(part: str) -> Iterator[None]:
    """Names a part as what it is that another request holds for too long."""
    try:
        yield
    except DBAPIError as error:
        if is_lock_of(error, "batch_parts"):
            raise PartBusy(part) from error
        raise
