"""The front door of jobs: submit, cancel, requeue, look up. Commits first, then publishes.

A 2xx is never given before the commit, and a message is never sent before it either: a worker that is
quicker than the commit would find nothing to claim.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from uuid_utils.compat import uuid7

from webapp.audit.service import AuditRecord
from webapp.flow.book import FlowBook
from webapp.flow.model import FlowRules, lane_of
from webapp.flow.reach import Reach
from webapp.infra.postgres.database_errors import is_lock_of
from webapp.infra.postgres.engine import in_one_trip, in_transaction
from webapp.infra.telemetry import metrics
from webapp.jobs import insert
from webapp.jobs.acts import Acts
from webapp.jobs.admission import Admission
from webapp.jobs.batches import Batch, insert_batch, named_races
from webapp.jobs.errors import (
    JobError,
    KeyElsewhere,
    KeyOfPruned,
    KeyRace,
    KeyTaken,
    OptionRefused,
    OutOfReach,
    PayloadRefused,
)
from webapp.jobs.groups import Candidate, Groups, may_join
from webapp.jobs.joining import Hints, Joining
from webapp.jobs.model import JobRow
from webapp.jobs.origins import of_request
from webapp.jobs.submission import Accepted, NewJob, Origin, Placed, Rules, Submission, fingerprint
from webapp.jobs.unique_submissions import UniqueSubmissions
from webapp.jobs.unseen import Unseen, check_reached, hidden, taken_keys, unseen

logger = logging.getLogger(__name__)

#: Refusals of a batch that name the handler that was meant; ten thousand of them would take many seconds.
MOST_SUGGESTIONS = 100
#: Why a request is refused by what is known today: its answer is another where its key was used before.
REFUSALS = (OptionRefused, PayloadRefused)


def in_lane(job: NewJob, rules: FlowRules) -> NewJob:
    """The job in its lane, if its queue or task has limits. Pure."""
    return replace(job, lane=lane_of(job.queue, job.key)) if rules.limits(job.queue, job.task) else job


class Jobs(Acts):
    """Takes jobs in, and answers for them.

    Args:
        engine: the database.
        rules: what is taken.
        hints: tells the workers.
        book: knows what is paused; None: one of its own.
        slot: held while a submission works on the database; waits for it where too many do.
        audit: notes who steers jobs; None: DJPS itself does.
    """

    def __init__(
        self,
        engine: Engine,
        rules: Rules,
        hints: Hints,
        book: FlowBook | None = None,
        *,
        slot: Callable[[], AbstractContextManager[None]] = nullcontext,
        audit: AuditRecord | None = None,
    ) -> None:
        super().__init__(engine, rules.limits.retention_days, audit)
        self._rules = rules
        self._hints = hints
        self._book = book or FlowBook(engine)
        self._slot = slot
        self.admission = Admission(engine, slot)
        self._groups = Groups[insert.Stored](self._store_group)
        self._unique = UniqueSubmissions(engine, self.get, slot, rules.limits.key_ttl)

    def can_judge(self, payload: Mapping[str, object]) -> bool:
        """True if this process knows what runs a job with this payload, whatever HANDLERS the workers have."""
        return self._rules.can_judge(payload)

    def submit(self, submission: Submission, reach: Reach, origin: Origin | None = None) -> Accepted:
        """Stores a job, commits, and tells the workers.

        With Redis away the job stays undispatched and the answer is the same: the dispatcher sends it later. Without an origin it
        comes from the request that is being answered.

        Raises:
            UnknownTask: no handler can run it.
            OptionRefused: no worker listens to the queue it asks for, or it would expire before it is due.
            PayloadRefused: the payload does not fit its handler's model.
            KeyReused: its key belongs to another request.
            KeyOfPruned: its key was used for this request, and the job is gone.
            KeyRace: the request that owns its key is not through yet.
            UniqueHeld: another job holds its unique key, and it asks to be refused then.
            UniqueOfPruned: its unique key is held for a job that is gone.
            UniqueRace: another request with its unique key is not through yet.
            QueueFull, KeyFull: there is no room for it; it was not stored.
            OutOfReach: its queue is not within reach.
            KeyElsewhere: a job that is not within reach has one of its keys; which one is not said.
        """
        check_reached(submission.options.queue, reach)
        try:
            job = self._rules.complete(submission, uuid7(), origin or of_request(reach), datetime.now(UTC))
        except REFUSALS:
            # The first of two equal requests may have come in time, or before a deploy that changed what is taken.
            if (before := self._answered_before(submission, reach)) is not None:
                return before
            raise
        check_reached(job.queue, reach)
        rules = self._book.rules()
        self.admission.admit(job, rules)
        job, is_open = in_lane(job, rules), not rules.closes(job.queue, job.task)
        send = is_open and job.lane is None and self._hints.wants(job.queue, job.task)
        accepted = self._store(job, reach, dispatched=send)
        if accepted.created:
            metrics.jobs_created.inc()
            self.admission.note([job])
        if accepted.is_told:
            if job.lane is not None:
                self._hints.call([job.ticket] if is_open else [])
            else:
                self._hints.put([job.hint._replace(id=accepted.job.id)])
        return accepted

    def submit_many(
        self,
        submissions: Sequence[Submission],
        reach: Reach,
        origin: Origin | None = None,
        joining: Joining | None = None,
    ) -> list[Placed | JobError]:
        """Stores many jobs in one transaction; each has its own answer, in the order they were given.

        One that cannot be stored (its task is unknown, its key belongs to another request) does not keep the
        others from it. The same key twice in one batch is one job.

        Args:
            joining: the group that they join, in that transaction; None: none.

        Raises:
            KeyRace: a request that owns one of the keys is not through yet; nothing was stored.
            UniqueRace: the same of a unique key.
        """
        answers: dict[int, Placed | JobError] = {}
        wanted: dict[int, NewJob] = {}
        origin, now = origin or of_request(reach), datetime.now(UTC)
        for number, submission in enumerate(submissions):
            try:
                check_reached(submission.options.queue, reach)
                job = self._rules.complete(
                    submission, uuid7(), origin, now, suggest=len(answers) < MOST_SUGGESTIONS
                )
                check_reached(job.queue, reach)
                wanted[number] = job
            except (*REFUSALS, OutOfReach) as error:
                answers[number] = error
        self._answer_repeated(submissions, answers, reach)
        refused = self.admission.judge(list(wanted.values()), self._book.rules())
        judged = [job for job in wanted.values() if job.id not in refused]

        def told(batch: Batch, look: Callable[[Collection[UUID | None]], Unseen]) -> list[Placed | JobError]:
            of_each = answers | {
                number: refused.get(job.id) or batch.answer(job) for number, job in wanted.items()
            }
            if not reach.is_everything:
                taken = taken_keys(submissions, of_each)
                of_each |= hidden(taken, look([one.job_id for one in taken.values()]))
            return [of_each[number] for number in range(len(submissions))]

        if joining is None:
            return told(self._store_many(judged, reach), partial(self._unseen, reach=reach))
        return self._join(judged, reach, joining, told)

    def _store_many(self, jobs: Sequence[NewJob], reach: Reach) -> Batch:
        """Stores a batch in one transaction, and tells the workers."""
        return self._stored_together(jobs, reach, lambda _connection, _batch: None) if jobs else Batch()

    def _join(
        self,
        jobs: Sequence[NewJob],
        reach: Reach,
        joining: Joining,
        told: Callable[[Batch, Callable[[Collection[UUID | None]], Unseen]], list[Placed | JobError]],
    ) -> list[Placed | JobError]:
        """The same for members of a group, which may be none: what each is answered is known before the commit."""
        found: list[Placed | JobError] = []

        def end(connection: Connection, batch: Batch) -> None:
            found[:] = told(batch, partial(unseen, connection, reach=reach))
            joining.end(connection, found, len(batch.created))

        members = [replace(job, group=joining.group) for job in jobs]
        self._stored_together(members, reach, end, joining.begin)
        return found

    def _stored_together(
        self,
        jobs: Sequence[NewJob],
        reach: Reach,
        end: Callable[[Connection, Batch], None],
        begin: Callable[[Connection], None] = lambda _connection: None,
    ) -> Batch:
        rules = self._book.rules()
        jobs = [in_lane(job, rules) for job in jobs]
        kinds = Counter((job.queue, job.task) for job in jobs if job.lane is None)
        send = not rules.close_any(kinds) and self._hints.wants_all(kinds)
        given: Any = {"dispatched": send, "key_ttl": self._rules.limits.key_ttl}
        with named_races(), self._engine.begin() as connection:
            begin(connection)
            batch = insert_batch(connection, jobs, reach, **given) if jobs else Batch()
            end(connection, batch)
        metrics.jobs_created.inc(len(batch.created))
        self.admission.note(job for job in jobs if job.id in batch.created)
        self._tell(batch.told)
        return batch

    def _tell(self, jobs: Sequence[NewJob]) -> None:
        """Tells the workers of jobs that they are to be told of."""
        if hints := [job.hint for job in jobs if job.lane is None]:
            self._hints.put(hints)
        if tickets := [job.ticket for job in jobs if job.lane is not None]:
            self._hints.call(tickets)

    def _answered_before(self, submission: Submission, reach: Reach) -> Accepted | None:
        """The job of the same request under the same key, if there is one.

        Raises:
            KeyOfPruned: there was one, and it is gone.
        """
        if submission.idempotency_key is None:
            return None
        key = reach.kept(submission.idempotency_key)
        with self._slot():
            owner = in_one_trip(self._engine, lambda connection: insert.find_by_key(connection, key))
        if owner is None or owner.fingerprint != fingerprint(submission):
            return None
        if owner.job is None:
            raise self._told(KeyOfPruned(key, owner.job_id), reach)
        return Accepted(owner.job, created=False) if reach.has(owner.job.queue) else None

    def _answer_repeated(
        self, submissions: Sequence[Submission], answers: dict[int, Placed | JobError], reach: Reach
    ) -> None:
        """Puts the job of the same request under the same key in the place of a refusal, where there is one."""
        refused = [number for number, answer in answers.items() if not isinstance(answer, OutOfReach)]
        keys = {number: reach.kept(key) for number in refused if (key := submissions[number].idempotency_key)}
        if not keys:
            return
        owners = in_one_trip(
            self._engine, lambda connection: insert.find_by_keys(connection, list(keys.values()))
        )
        for number, key in keys.items():
            job_id, known = owners.get(key, (None, b""))
            if job_id is not None and known == fingerprint(submissions[number]):
                answers[number] = Placed(job_id, created=False)

    def _store(self, job: NewJob, reach: Reach, *, dispatched: bool) -> Accepted:
        """Stores a job, or finds the one that has a key of it."""
        try:
            if job.unique is not None:
                accepted = self._unique.store(job, job.unique, reach, dispatched=dispatched)
            else:
                accepted = self._stored_or_found(job, dispatched=dispatched)
        except KeyTaken as error:
            raise self._told(error, reach) from None
        if not reach.has(accepted.job.queue):
            raise KeyElsewhere("idempotency_key", job.idempotency_key or "")
        return accepted

    def _told(self, taken: KeyTaken, reach: Reach) -> JobError:
        """What is told of a key that another job has: which one only to who may see it."""
        return self._unseen([taken.job_id], reach).told(taken)

    def _unseen(self, ids: Collection[UUID | None], reach: Reach) -> Unseen:
        if reach.is_everything or not any(ids):
            return Unseen()
        with self._slot():
            return in_one_trip(self._engine, lambda connection: unseen(connection, ids, reach))

    def _stored_or_found(self, job: NewJob, *, dispatched: bool) -> Accepted:
        try:
            stored = self._stored(job, dispatched=dispatched)
        except DBAPIError as error:
            if job.idempotency_key is not None and is_lock_of(error, insert.KEYS):
                raise KeyRace(job.idempotency_key) from error
            raise
        return insert.accepted(job, *stored)

    def _stored(self, job: NewJob, *, dispatched: bool) -> insert.Stored:
        """Stores a job: with others, if it meets some; else, or where nothing is known of its group, by itself."""
        if not may_join(job):
            return self._store_alone(job, dispatched=dispatched)
        with_others = self._groups.add(Candidate(job, dispatched))
        return with_others or self._store_again(job, dispatched=dispatched)

    def _store_alone(self, job: NewJob, *, dispatched: bool) -> insert.Stored:
        given: Any = {"job": job, "dispatched": dispatched, "key_ttl": self._rules.limits.key_ttl}
        with self._slot():
            return in_one_trip(
                self._engine,
                lambda connection: insert.insert_or_find(connection, **given),
                if_broken=lambda connection: insert.insert_again_or_find(connection, **given),
            )

    def _store_again(self, job: NewJob, *, dispatched: bool) -> insert.Stored:
        """Stores a job of which it is not known whether its group has."""
        given: Any = {"job": job, "dispatched": dispatched, "key_ttl": self._rules.limits.key_ttl}
        with self._slot():
            return in_transaction(
                self._engine, lambda connection: insert.insert_again_or_find(connection, **given)
            )

    def _store_group(self, group: Sequence[Candidate]) -> Sequence[insert.Stored | None]:
        """What became of each; None where that is not known."""
        if len(group) == 1:
            return [self._store_alone(group[0].job, dispatched=group[0].dispatched)]
        jobs, dispatched = [one.job for one in group], [one.dispatched for one in group]
        unknown: list[JobRow | None] = [None] * len(group)
        try:
            with self._slot():
                rows = in_one_trip(
                    self._engine,
                    lambda connection: insert.insert_group(
                        connection, jobs, dispatched=dispatched, key_ttl=self._rules.limits.key_ttl
                    ),
                    if_broken=lambda _: unknown,
                )
                return [(row, None) if row is not None else None for row in rows]
        except SQLAlchemyError as error:
            logger.warning(
                "jobs could not be stored together",
                extra={"jobs": len(group), "error_type": type(error).__name__},
            )
            return [None] * len(group)

    def flush(self) -> bool:
        """Waits until the hints of what was submitted here are on their way; False when that takes too long."""
        return self._hints.flush()
