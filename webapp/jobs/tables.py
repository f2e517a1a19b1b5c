"""The tables of jobs, their attempts and dead letters. CHECKs guard the state machine in the database itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    JSON,
    Boolean,
    CheckConstraint,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import BigInteger

from webapp.infra.postgres.base import TIME, Base

#: Longest idempotency key, characters.
MAX_KEY_LENGTH = 255

#: Longest mark that another tenant than the default one keeps its keys behind, characters.
_MARK = 12
#: What indexes have that are for other tenants.
_OTHERS = "tenant_id <> 1"

#: A job of a lane that takes a slot of its limits.
_HELD_IN_LANE = "status = 'processing' AND lane IS NOT NULL"


class JobColumns:
    """One accepted job: the record that everything else is derived from."""

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    task: Mapped[str] = mapped_column(Text)
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    queue: Mapped[str] = mapped_column(Text)
    priority: Mapped[int] = mapped_column(SmallInteger, server_default=text("5"))
    status: Mapped[str] = mapped_column(Text, server_default=text("'queued'"))
    attempt: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    retry_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    max_retries: Mapped[int] = mapped_column(Integer)
    timeout: Mapped[float] = mapped_column(Double)
    run_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    dispatched_at: Mapped[datetime | None] = mapped_column(TIME)
    lease_expires_at: Mapped[datetime | None] = mapped_column(TIME)
    worker_id: Mapped[str | None] = mapped_column(Text)
    idempotency_key: Mapped[str | None] = mapped_column(Text)
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    result: Mapped[Any | None] = mapped_column(JSONB)
    last_error: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    last_attempt_at: Mapped[datetime | None] = mapped_column(TIME)
    finished_at: Mapped[datetime | None] = mapped_column(TIME)
    cancel_requested_at: Mapped[datetime | None] = mapped_column(TIME)
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    expires_at: Mapped[datetime | None] = mapped_column(TIME)
    backoff: Mapped[Any | None] = mapped_column(JSONB)
    callback_url: Mapped[str | None] = mapped_column(Text)
    callback_job_id: Mapped[UUID | None] = mapped_column(Uuid)
    callback_of: Mapped[UUID | None] = mapped_column(Uuid)
    #: Payload and result as they were given, where `jsonb` would give them back otherwise; see `literals.kept_as_sent`.
    payload_as_sent: Mapped[Any | None] = mapped_column(JSON)
    result_as_sent: Mapped[Any | None] = mapped_column(JSON)
    cancel_reason: Mapped[str | None] = mapped_column(Text)
    progress: Mapped[Any | None] = mapped_column(JSONB)
    #: Why the result of a completed job was not kept; else NULL.
    result_note: Mapped[str | None] = mapped_column(Text)
    watched: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    #: Whose end of the newest attempt is on record: of the one that completed the job here alone, of others in `job_attempts` too.
    ended_by: Mapped[str | None] = mapped_column(Text)
    #: When the attempt that completed the job ran, where that is not from its claim to the job's end.
    run_began_at: Mapped[datetime | None] = mapped_column(TIME)
    run_ended_at: Mapped[datetime | None] = mapped_column(TIME)
    traceparent: Mapped[str | None] = mapped_column(Text)
    #: Whose work it is, in the client's words: what jobs are found by, and what they will share limits by.
    key: Mapped[str | None] = mapped_column(Text)
    #: Where it waits and runs under limits: a number for its queue and key. NULL: beside the lanes.
    lane: Mapped[int | None] = mapped_column(BigInteger)
    #: Attempts that it had when it was queued again by hand: those after them are of its new submission. NULL: it never was.
    attempts_before: Mapped[int | None] = mapped_column(Integer)
    #: Whose it is.
    tenant_id: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    #: The number of the key of the API by which it came. NULL: by none.
    submitted_by: Mapped[int | None] = mapped_column(Integer)
    #: The batch or workflow that it belongs to. NULL: to none.
    group_id: Mapped[UUID | None] = mapped_column(Uuid)


class Job(JobColumns, Base):
    """All jobs: what every statement names. Its partitions are `jobs_living` and a table for each day of history.

    A job moves to its day in the UPDATE that ends it, for `finished_at` is what the table is parted by. No index spans them all.
    """

    __tablename__ = "jobs"


class LivingJob(JobColumns, Base):
    """The jobs that have not ended: the default partition. What ended on a day that has no table is here as well."""

    __tablename__ = "jobs_living"

    __table_args__ = (
        CheckConstraint(
            "status IN ('queued', 'processing', 'completed', 'failed', 'cancelled')", name="jobs_status_known"
        ),
        CheckConstraint("priority BETWEEN 0 AND 9", name="jobs_priority_in_range"),
        CheckConstraint("retry_count >= 0 AND retry_count <= attempt", name="jobs_retries_within_attempts"),
        CheckConstraint("max_retries BETWEEN 0 AND 100", name="jobs_max_retries_in_range"),
        CheckConstraint("timeout > 0", name="jobs_timeout_positive"),
        CheckConstraint(
            "(status = 'processing') = (lease_expires_at IS NOT NULL)", name="jobs_lease_while_processing"
        ),
        CheckConstraint(
            "(status = 'processing') = (worker_id IS NOT NULL)", name="jobs_worker_while_processing"
        ),
        CheckConstraint(
            "(status IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL)",
            name="jobs_finished_when_final",
        ),
        CheckConstraint("(attempt = 0) = (last_attempt_at IS NULL)", name="jobs_attempted_when_claimed"),
        CheckConstraint(
            "status <> 'queued' OR cancel_requested_at IS NULL", name="jobs_cancel_asked_of_running"
        ),
        CheckConstraint("result IS NULL OR status = 'completed'", name="jobs_result_when_completed"),
        CheckConstraint("jsonb_typeof(payload) = 'object'", name="jobs_payload_is_object"),
        CheckConstraint(
            f"length(idempotency_key) BETWEEN 1 AND {MAX_KEY_LENGTH + _MARK}", name="jobs_key_length"
        ),
        # Of other tenants than the default one alone: who has no other pays for none of it.
        Index("jobs_by_tenant", "tenant_id", "id", postgresql_where=text(_OTHERS)),
        Index(
            "jobs_tenant_waiting",
            *("queue", "tenant_id"),
            postgresql_where=text(f"status = 'queued' AND {_OTHERS}"),
        ),
        Index(
            "jobs_undispatched",
            *("queue", text("priority DESC"), "run_at"),
            postgresql_where=text("status = 'queued' AND dispatched_at IS NULL"),
        ),
        Index(
            "jobs_dispatched",
            *("queue", "dispatched_at"),
            postgresql_where=text("status = 'queued' AND dispatched_at IS NOT NULL"),
        ),
        Index("jobs_leases", "lease_expires_at", postgresql_where=text("status = 'processing'")),
        # Those that run are few, and `jobs_leases` has them; here each claim would pay for an entry.
        Index("jobs_at_rest", "status", "id", postgresql_where=text("status <> 'processing'")),
        Index("jobs_finished", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
        # Of finished jobs only: an index of all would be written at submission, claim and settle.
        Index("jobs_finished_by_task", "task", "id", postgresql_where=text("finished_at IS NOT NULL")),
        Index("jobs_finished_by_queue", "queue", "id", postgresql_where=text("finished_at IS NOT NULL")),
        Index(
            "jobs_tags",
            "tags",
            postgresql_using="gin",
            postgresql_with={"fastupdate": "on"},
            postgresql_where=text("tags <> '{}'"),
        ),
        Index("jobs_by_key", "key", "id", postgresql_where=text("key IS NOT NULL")),
        Index("jobs_by_group", "group_id", "id", postgresql_where=text("group_id IS NOT NULL")),
        # Of a key that waits in one queue, the longest waiting first: what a bound of each key counts.
        Index(
            "jobs_key_waiting",
            *("queue", "key", "run_at"),
            postgresql_where=text("status = 'queued' AND key IS NOT NULL"),
        ),
        Index(
            "jobs_lane_heads",
            *("lane", "task", text("priority DESC"), "run_at", "id"),
            postgresql_where=text("status = 'queued' AND lane IS NOT NULL"),
        ),
        Index(
            "jobs_lane_begun",
            *("lane", "run_at", "id"),
            postgresql_where=text(
                "status = 'queued' AND lane IS NOT NULL AND attempt > coalesce(attempts_before, 0)"
            ),
        ),
        Index("jobs_lane_holders", "lane", "worker_id", postgresql_where=text(_HELD_IN_LANE)),
        Index("jobs_queue_holders", "queue", "worker_id", postgresql_where=text(_HELD_IN_LANE)),
        Index("jobs_task_holders", "task", "worker_id", postgresql_where=text(_HELD_IN_LANE)),
        Index(
            "jobs_expiring",
            "expires_at",
            postgresql_where=text("status = 'queued' AND expires_at IS NOT NULL"),
        ),
        Index(
            "jobs_cancel_asked",
            "cancel_requested_at",
            postgresql_where=text("status = 'processing' AND cancel_requested_at IS NOT NULL"),
        ),
        Index(
            "jobs_callbacks",
            "finished_at",
            postgresql_where=text(
                "finished_at IS NOT NULL AND callback_url IS NOT NULL AND callback_job_id IS NULL"
            ),
        ),
    )


class IdempotencyKey(Base):
    """A key that a client has used: until it runs out, its job is the answer to the same request.

    No foreign key: a key outlives a job that is pruned early.
    """

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    job_id: Mapped[UUID] = mapped_column(Uuid)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(TIME)

    __table_args__ = (
        CheckConstraint(
            f"length(key) BETWEEN 1 AND {MAX_KEY_LENGTH + _MARK}", name="idempotency_keys_length"
        ),
        Index("idempotency_keys_by_end", "expires_at"),
    )


class UniqueKey(Base):
    """The job that holds a unique key: for as long as `until` says, and while its own row is in the states that are asked.

    No foreign key: what a row says of a job that is gone counts no more.
    """

    __tablename__ = "unique_keys"

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    job_id: Mapped[UUID] = mapped_column(Uuid)
    until: Mapped[datetime] = mapped_column(TIME)

    __table_args__ = (
        CheckConstraint(f"length(key) BETWEEN 1 AND {200 + _MARK}", name="unique_keys_length"),
        Index("unique_keys_by_job", "job_id"),
    )


class Attempt(Base):
    """How one attempt of a job ended; written in the statement that ends it."""

    __tablename__ = "job_attempts"

    # No foreign key: the statement that writes an attempt has just changed its job, and pruning deletes both.
    # Checking that cost a fifth of a settle.
    job_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    worker_id: Mapped[str] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(TIME)
    ended_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    outcome: Mapped[str] = mapped_column(Text)
    error_type: Mapped[str | None] = mapped_column(Text)
    error_message: Mapped[str | None] = mapped_column(Text)
    traceback: Mapped[str | None] = mapped_column(Text)
    #: Why it was the job's last one; None where another followed.
    death_reason: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint(
            "outcome IN ('completed', 'failed', 'lost', 'released', 'cancelled', 'snoozed')",
            name="job_attempts_outcome_known",
        ),
        CheckConstraint("attempt >= 1", name="job_attempts_from_one"),
    )


class JobLogPart(Base):
    """What an attempt logged within a second, where its handler's lines are kept: at most the last 200 of each job."""

    __tablename__ = "job_logs"

    # No foreign key, as of attempts.
    job_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer)
    #: Lines that the attempt had written before, lost ones included.
    before: Mapped[int] = mapped_column(Integer)
    lines: Mapped[int] = mapped_column(Integer)
    #: Bytes of their texts.
    size: Mapped[int] = mapped_column(Integer)
    #: For each line when it was written, its level, and its text.
    body: Mapped[Any] = mapped_column(JSON)
    written_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())

    __table_args__ = (
        CheckConstraint("before >= 0 AND lines >= 1", name="job_logs_counted"),
        Index("job_logs_by_age", "written_at"),
    )


#: A dead letter that no one has dealt with yet.
_LETTER_OPEN = "requeued_at IS NULL AND discarded_at IS NULL"


class DeadLetter(Base):
    """A job that exhausted its retries or was discarded, and what became of it."""

    __tablename__ = "dead_letters"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    # No foreign key: jobs move to their day of history, and pruning deletes both.
    job_id: Mapped[UUID] = mapped_column(Uuid)
    reason: Mapped[str] = mapped_column(Text)
    error_type: Mapped[str | None] = mapped_column(Text)
    error_message: Mapped[str | None] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(Text)
    task: Mapped[str | None] = mapped_column(Text)
    queue: Mapped[str | None] = mapped_column(Text)
    dead_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    requeued_at: Mapped[datetime | None] = mapped_column(TIME)
    discarded_at: Mapped[datetime | None] = mapped_column(TIME)
    resolved_by: Mapped[str | None] = mapped_column(Text)
    resolved_why: Mapped[str | None] = mapped_column(Text)
    #: Whose job it is.
    tenant_id: Mapped[int] = mapped_column(Integer, server_default=text("1"))

    __table_args__ = (
        CheckConstraint("reason IN ('exhausted', 'discarded')", name="dead_letters_reason_known"),
        Index("dead_letters_open", "job_id", unique=True, postgresql_where=text(_LETTER_OPEN)),
        Index("dead_letters_alike", "task", "fingerprint", postgresql_where=text(_LETTER_OPEN)),
        # The newest and the oldest of those alike.
        Index(
            "dead_letters_of_group",
            *("fingerprint", text("coalesce(task, '')"), text("coalesce(queue, '')"), "id"),
            postgresql_where=text(_LETTER_OPEN),
        ),
        Index("dead_letters_by_job", "job_id"),
        Index("dead_letters_by_tenant", "tenant_id", "id", postgresql_where=text(_OTHERS)),
    )
