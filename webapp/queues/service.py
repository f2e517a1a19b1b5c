"""The front door: submit a job, dispatch what is due. Commits first, then publishes.

A 2xx is never given before the commit, and a message is never sent before it either: a worker that is
quicker than the commit would find nothing to claim.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice, zip_longest
from typing import Any
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from uuid_utils.compat import uuid7

from webapp.infra.broker.client import Broker
from webapp.infra.broker.messages import JobHint
from webapp.infra.postgres.database_errors import is_lock_of
from webapp.infra.postgres.engine import in_one_trip, in_transaction
from webapp.infra.postgres.literals import json_of
from webapp.infra.telemetry import metrics
from webapp.infra.telemetry.logs import bound_field
from webapp.infra.telemetry.traceparent import here
from webapp.jobs import bulk, control, insert, store
from webapp.jobs.errors import (
    ExpiredAlready,
    JobEnded,
    JobError,
    KeyOfPruned,
    KeyRace,
    KeyReused,
    NotForRetry,
    OptionRefused,
    PayloadRefused,
    UnknownQueue,
    UnknownTask,
)
from webapp.jobs.handlers import Handler, HandlerRegistry
from webapp.jobs.lookup import Lookup
from webapp.jobs.options import NO_OPTIONS
from webapp.jobs.states import JobStatus
from webapp.jobs.submission import (
    Accepted,
    Limits,
    Placed,
    Submission,
    check_callback,
    fingerprint,
    first_given,
    terms_of,
)
from webapp.queues import tickets
from webapp.queues.outbox import Outbox
from webapp.queues.tickets import LOOKED_AT, MOST_TICKETS, Ticket, Waiting, tickets_for

logger = logging.getLogger(__name__)

#: A job that was sent and not claimed is sent again after this long when its queue is empty, seconds.
REDISPATCH_WHEN_EMPTY = 5.0
#: Messages of a queue while the pace of a task at its head is not known.
FIRST_MESSAGES = 16
#: Refusals of a batch that name the handler that was meant; ten thousand of them would take many seconds.
MOST_SUGGESTIONS = 100
#: Why a request is refused by what is known today: its answer is another where its key was used before.
REFUSALS = (OptionRefused, PayloadRefused)


class Queue(Lookup):
    """Takes jobs in and sends due ones to the broker.

    Args:
        engine: the database.
        broker: where hints are sent.
        registry: what can run.
        limits: the defaults of a job.
    """

    def __init__(self, engine: Engine, broker: Broker, registry: HandlerRegistry, limits: Limits) -> None:
        super().__init__(engine, limits.retention_days)
        self._broker = broker
        self._registry = registry
        self._limits = limits
        self._outbox = Outbox(broker, self._hand_back)

    def handler_for(self, payload: dict[str, Any], *, suggest: bool = True) -> Handler:
        """The handler that runs a job with this payload.

        Args:
            suggest: an error names the handler that was probably meant.

        Raises:
            UnknownTask: `payload["task"]` names none, and the default does not stand in for it.
        """
        found = self._registry.get(payload.get("task"))
        if found is None and not (self._limits.only_known and "task" in payload):
            found = self._registry.get(self._limits.default_handler)
        if found is None:
            raise UnknownTask(payload.get("task"), self._registry.names(), suggest=suggest)
        return found

    def can_judge(self, payload: dict[str, Any]) -> bool:
        """True if this process knows what runs a job with this payload, whatever HANDLERS the workers have."""
        return (
            self._limits.only_known
            or "task" not in payload
            or self._registry.get(payload["task"]) is not None
        )

    def submit(self, submission: Submission) -> Accepted:
        """Stores a job, commits, and tells the workers.

        With Redis away the job stays undispatched and the answer is the same: the dispatcher sends it later.

        Raises:
            UnknownTask: no handler can run it.
            OptionRefused: nobody listens to the queue it asks for, or it would expire before it is due.
            PayloadRefused: the payload does not fit its handler's model.
            KeyReused: its key belongs to another request.
            KeyOfPruned: its key was used for this request, and the job is gone.
            KeyRace: the request that owns its key is not through yet.
        """
        try:
            job = self._new_job(submission)
        except REFUSALS:
            # The first of two equal requests may have come in time, or before a deploy that changed what is taken.
            if (before := self._answered_before(submission)) is not None:
                return before
            raise
        stored, created = self._store(job, dispatched=self._is_sent_at_once(job))
        if created:
            metrics.jobs_created.inc()
            if stored.dispatched_at is not None:
                self._outbox.put([_hint(job)])
        return Accepted(stored, created)

    def _is_sent_at_once(self, job: insert.NewJob) -> bool:
        """Tells whether a submission tells the workers itself.

        Where quick jobs come in a crowd they are left in the table, for tickets: a thousand messages with a job each take
        far longer than a thousand jobs.
        """
        if not self._broker.has_room(job.queue):
            return False
        return not self._broker.is_crowded(job.queue, MOST_TICKETS) or not self._broker.is_quick(job.task)

    def submit_many(self, submissions: Sequence[Submission]) -> list[Placed | JobError]:
        """Stores many jobs in one transaction; each has its own answer, in the order they were given.

        One that cannot be stored (its task is unknown, its key belongs to another request) does not keep the
        others from it. The same key twice in one batch is one job.

        Raises:
            KeyRace: a request that owns one of the keys is not through yet; nothing was stored.
        """
        answers: dict[int, Placed | JobError] = {}
        wanted: dict[int, insert.NewJob] = {}
        for number, submission in enumerate(submissions):
            try:
                wanted[number] = self._new_job(submission, suggest=len(answers) < MOST_SUGGESTIONS)
            except REFUSALS as error:
                answers[number] = error
        self._answer_repeated(submissions, answers)
        created, owners = self._store_many(list(wanted.values()))
        for number, job in wanted.items():
            owner, known = owners.get(job.idempotency_key or "", (job.id, job.fingerprint))
            if job.id in created:
                answers[number] = Placed(job.id, created=True)
            elif known == job.fingerprint:
                answers[number] = Placed(owner, created=False)
            else:
                answers[number] = KeyReused(job.idempotency_key or "", owner)
        return [answers[number] for number in range(len(submissions))]

    def _store_many(
        self, jobs: Sequence[insert.NewJob]
    ) -> tuple[dict[UUID, bool], dict[str, tuple[UUID, bytes]]]:
        """Stores a batch and tells the workers; returns the ids that are new, and who owns the keys."""
        if not jobs:
            return {}, {}
        send = self._broker.has_room_for(jobs)
        try:
            with self._engine.begin() as connection:
                bulk.allow_time(connection)
                created = insert.insert_many(connection, jobs, dispatched=send, key_ttl=self._limits.key_ttl)
                taken = [job.idempotency_key for job in jobs if job.idempotency_key and job.id not in created]
                owners = insert.find_by_keys(connection, taken) if taken else {}
        except DBAPIError as error:
            if is_lock_of(error, insert.KEYS):
                raise KeyRace("of this batch") from error
            raise
        if any(key not in owners for key in taken):
            raise KeyRace("of this batch")
        metrics.jobs_created.inc(len(created))
        if hints := [_hint(job) for job in jobs if created.get(job.id)]:
            self._outbox.put(hints)
        return created, owners

    def _new_job(self, submission: Submission, *, suggest: bool = True) -> insert.NewJob:
        found = self.handler_for(submission.payload, suggest=suggest)
        found.check(submission.payload)
        asked = submission.options
        if asked.queue is not None and asked.queue not in (known := self._registry.queues()):
            raise UnknownQueue(asked.queue, known)
        if asked.callback_url is not None:
            check_callback(asked.callback_url)
        if asked.expires_at is not None and asked.is_late(datetime.now(UTC)):
            # By this machine's clock, as a courtesy; a job that is stored is judged by PostgreSQL's.
            raise ExpiredAlready(asked.expires_at)
        request_id = bound_field("request_id")
        return insert.NewJob(
            id=uuid7(),
            task=found.name,
            payload=json_of(submission.payload),
            queue=asked.queue or found.queue,
            max_retries=first_given(asked.max_retries, found.max_retries, self._limits.max_retries),
            timeout=first_given(asked.timeout, found.timeout, self._limits.timeout),
            idempotency_key=submission.idempotency_key,
            fingerprint=fingerprint(submission),
            request_id=str(request_id) if request_id is not None else None,
            traceparent=here(),
            terms=terms_of(found, asked) if asked is not NO_OPTIONS or found.sets_terms else None,
        )

    def _answered_before(self, submission: Submission) -> Accepted | None:
        """The job of the same request under the same key, if there is one.

        Raises:
            KeyOfPruned: there was one, and it is gone.
        """
        key = submission.idempotency_key
        if key is None:
            return None
        owner = in_one_trip(self._engine, lambda connection: insert.find_by_key(connection, key))
        if owner is None or owner.fingerprint != fingerprint(submission):
            return None
        if owner.job is None:
            raise KeyOfPruned(key, owner.job_id)
        return Accepted(owner.job, created=False)

    def _answer_repeated(
        self, submissions: Sequence[Submission], answers: dict[int, Placed | JobError]
    ) -> None:
        """Puts the job of the same request under the same key in the place of a refusal, where there is one."""
        keys = {number: key for number in answers if (key := submissions[number].idempotency_key)}
        if not keys:
            return
        owners = in_one_trip(
            self._engine, lambda connection: insert.find_by_keys(connection, list(keys.values()))
        )
        for number, key in keys.items():
            job_id, known = owners.get(key, (None, b""))
            if job_id is not None and known == fingerprint(submissions[number]):
                answers[number] = Placed(job_id, created=False)

    def _store(self, job: insert.NewJob, *, dispatched: bool) -> tuple[store.JobRow, bool]:
        key = job.idempotency_key
        try:
            inserted, owner = in_one_trip(
                self._engine,
                lambda connection: insert.insert_or_find(
                    connection, job, dispatched=dispatched, key_ttl=self._limits.key_ttl
                ),
            )
        except DBAPIError as error:
            if key is not None and is_lock_of(error, insert.KEYS):
                raise KeyRace(key) from error
            raise
        if inserted is not None:
            return inserted, True
        if owner is None:
            raise KeyRace(key or "")
        if owner.fingerprint != job.fingerprint:
            raise KeyReused(key or "", owner.job_id)
        if owner.job is None:
            raise KeyOfPruned(key or "", owner.job_id)
        return owner.job, owner.job_id == job.id

    def _hand_back(self, ids: Sequence[UUID]) -> None:
        """Leaves jobs to the dispatcher; should this fail too, `REDISPATCH_AFTER` brings them back."""
        metrics.dispatch_failures.inc(len(ids))
        try:
            with self._engine.begin() as connection:
                store.mark_undispatched(connection, ids)
        except SQLAlchemyError:
            logger.warning("job could not be handed back to the dispatcher", extra={"jobs": len(ids)})

    def cancel(self, job_id: UUID, reason: str | None = None) -> tuple[store.JobRow, control.CancelAnswer]:
        """Cancels a job that waits, or asks one that runs to stop; asking twice changes nothing.

        Returns the job as it stands, and what became of it: `CANCELLED` or `ASKED`.

        Raises:
            JobNotFound: there is none with this id.
            JobGone: it was deleted for its age.
            JobEnded: it completed or failed before, or its last attempt did.
        """
        answer, job = in_transaction(
            self._engine,
            lambda connection: (
                control.ask_cancel(connection, job_id, reason or control.REQUESTED),
                self.found(connection, job_id),
            ),
        )
        if answer is control.CancelAnswer.NOTHING:
            if job.status != JobStatus.CANCELLED:
                raise JobEnded(job_id, job.status)
            return job, control.CancelAnswer.CANCELLED
        if answer is control.CancelAnswer.CANCELLED:
            metrics.jobs_cancelled.inc()
        logger.info("job's cancellation was asked", extra={"job_id": str(job_id), "answer": answer.value})
        return job, answer

    def requeue(self, job_id: UUID) -> store.JobRow:
        """Queues a failed or cancelled job once more with a fresh budget of retries; the dispatcher sends it.

        Raises:
            JobNotFound: there is none with this id.
            JobGone: it was deleted for its age.
            NotForRetry: it is neither failed nor cancelled.
        """
        with self._engine.begin() as connection:
            changed = control.requeue(connection, job_id)
            job = self.found(connection, job_id)
        if not changed:
            raise NotForRetry(job_id, job.status)
        metrics.jobs_requeued.inc()
        logger.info("job was queued once more by request", extra={"job_id": str(job_id)})
        return job

    def dispatch(self, queue: str, *, buffer: int, redispatch_after: float) -> dict[str, int]:
        """Fills one broker queue up to `buffer` from what is due; returns how many messages were sent, by reason.

        Quick jobs get tickets and stay where they are; the others get a message each.

        Args:
            buffer: most messages of the queue in Redis.
            redispatch_after: seconds before a job that was sent and not claimed is sent again.
        """
        length = self._broker.length(queue)
        if length is None:
            return {}
        age = min(REDISPATCH_WHEN_EMPTY, redispatch_after) if length == 0 else redispatch_after
        room = buffer - length
        # Redis is asked before the transaction begins, not while it is open.
        head = (
            in_one_trip(self._engine, lambda connection: tickets.look_at_head(connection, queue))
            if room > 0
            else {}
        )
        unknown = [task for task in head if not self._broker.knows_pace(task)]
        quick = {task: waiting for task, waiting in head.items() if self._broker.is_quick(task)}
        if unknown:
            # A moment from now the first jobs tell how quick they are; a thousand messages would be far too many by then.
            room = min(room, FIRST_MESSAGES - length)
        slow_waits = room > 0 and len(quick) < len(head)
        with self._engine.begin() as connection:
            named = tickets.count_named(connection, queue, buffer) if quick and length >= MOST_TICKETS else 0
            room_for_tickets = MOST_TICKETS - max(0, length - named)
            # Where no ticket fits in, quick jobs take their turn with the slow ones: else these would pass them for ever.
            besides = list(quick) if room_for_tickets > 0 else []
            due = store.take_due(connection, queue, room, besides=besides) if slow_waits else []
            room -= len(due)
            silent = store.take_unclaimed(connection, queue, room, age) if room > 0 else []
        sent: dict[str, int] = {}
        for reason, hints in (("due", due), ("unclaimed", silent)):
            if hints and self._broker.send_hints(hints):
                sent[reason] = len(hints)
            elif hints:
                self._hand_back([hint.id for hint in hints])
        given_out = self._send_tickets(queue, quick, room_for_tickets)
        if given_out:
            sent["ticket"] = given_out
        for reason, count in sent.items():
            metrics.jobs_dispatched.labels(reason).inc(count)
        return sent

    def _send_tickets(self, queue: str, quick: Mapping[str, Waiting], room: int) -> int:
        """Sends tickets for what waits at the head of a queue, as many as there is work for; returns how many."""
        goes_on = sum(waiting.jobs for waiting in quick.values()) >= LOOKED_AT
        each = [
            [Ticket(queue, task, waiting.timeout, waiting.priority)]
            * tickets_for(waiting.jobs, self._broker.chunk_size(task), goes_on=goes_on)
            for task, waiting in quick.items()
        ]
        in_turn = (ticket for turn in zip_longest(*each) for ticket in turn if ticket is not None)
        wanted = list(islice(in_turn, max(0, room)))
        return len(wanted) if wanted and self._broker.send_tickets(wanted) else 0

    def send_each(self, hints: Sequence[JobHint]) -> bool:
        """Sends a message for each of these jobs, which are marked as dispatched; False when they are left to the dispatcher."""
        sent = self._broker.send_each(hints)
        if not sent:
            self._hand_back([hint.id for hint in hints])
        return sent

    def flush(self) -> bool:
        """Waits until the hints of what was submitted here are on their way; False when that takes too long."""
        return self._outbox.flush()

    def refill(self) -> int:
        """Takes back every job whose message was lost with Redis's memory; returns how many there were."""
        if not self._broker.available() or not self._broker.lost_messages():
            return 0
        with self._engine.begin() as connection:
            taken_back = bulk.forget_dispatched(connection)
        self._broker.begin_epoch()
        if taken_back:
            logger.warning("broker had lost its messages, they are sent again", extra={"jobs": taken_back})
        return taken_back

    def seconds_to_next_due(self, queues: Sequence[str], within: float) -> float | None:
        """Seconds until the next undispatched job is due, when that is less than `within`."""
        with self._engine.connect() as connection:
            return store.seconds_to_next_due(connection, queues, within)


def _hint(job: insert.NewJob) -> store.Hint:
    return store.Hint(job.id, job.task, job.queue, job.timeout, job.priority)
