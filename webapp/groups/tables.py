"""The tables of groups: each group with its counters, and the notes of members' ends that are not counted yet.

No foreign key leads from jobs to groups: it would be looked up for each member. Triggers of `jobs` and `groups` write the notes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from webapp.infra.postgres.base import TIME, Base


class GroupRecord(Base):
    """A batch or a workflow. No counter is in an index, so that a count is written beside the row's last version."""

    __tablename__ = "groups"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    name: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    tenant_id: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    submitted_by: Mapped[int | None] = mapped_column(Integer)
    request_id: Mapped[str | None] = mapped_column(Text)
    traceparent: Mapped[str | None] = mapped_column(Text)
    #: The group of which it is a member.
    parent_id: Mapped[UUID | None] = mapped_column(Uuid)
    #: How many members there are, and what those came to whose ends are counted by now.
    total: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    completed: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    failed: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    cancelled: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    skipped: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    options: Mapped[Any] = mapped_column(JSONB, server_default=text("'{}'"))
    complete_job_id: Mapped[UUID | None] = mapped_column(Uuid)
    success_job_id: Mapped[UUID | None] = mapped_column(Uuid)
    failure_job_id: Mapped[UUID | None] = mapped_column(Uuid)
    callback_url: Mapped[str | None] = mapped_column(Text)
    callback_job_id: Mapped[UUID | None] = mapped_column(Uuid)
    idempotency_key: Mapped[str | None] = mapped_column(Text)
    fingerprint: Mapped[bytes | None] = mapped_column(LargeBinary)
    deadline: Mapped[datetime | None] = mapped_column(TIME)
    cancel_requested_at: Mapped[datetime | None] = mapped_column(TIME)
    cancel_reason: Mapped[str | None] = mapped_column(Text)
    watched: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    #: From then on only its own members add others.
    closed_at: Mapped[datetime | None] = mapped_column(TIME)
    #: When its last member ended; NULL again when one is queued again.
    finished_at: Mapped[datetime | None] = mapped_column(TIME)
    #: Why it was closed where no one asked for that.
    closed_why: Mapped[str | None] = mapped_column(Text)
    #: Failed members that ended until then are being queued again; those after `retry_after` by id are left to do.
    retry_until: Mapped[datetime | None] = mapped_column(TIME)
    retry_after: Mapped[UUID | None] = mapped_column(Uuid)
    #: How many members had ended at two moments: what the rate goes by.
    pace: Mapped[Any | None] = mapped_column(JSONB)

    __table_args__ = (
        CheckConstraint("kind IN ('batch', 'workflow')", name="groups_kind_known"),
        CheckConstraint(
            "completed >= 0 AND failed >= 0 AND cancelled >= 0 AND skipped >= 0"
            " AND completed + failed + cancelled + skipped <= total",
            name="groups_counts",
        ),
        Index("groups_by_parent", "parent_id", "id", postgresql_where=text("parent_id IS NOT NULL")),
        Index("groups_by_tenant", "tenant_id", "kind", "id"),
        Index(
            "groups_by_idempotency_key",
            *("kind", "idempotency_key"),
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        Index("groups_finished", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
        Index("groups_by_kind", "kind", "id"),
        Index("groups_unfinished", "kind", "id", postgresql_where=text("finished_at IS NULL")),
        Index("groups_by_name", "name", "id", postgresql_where=text("name IS NOT NULL")),
        Index("groups_to_close", "deadline", postgresql_where=text("kind = 'batch' AND closed_at IS NULL")),
        Index(
            "groups_to_cancel",
            "id",
            postgresql_where=text(
                "kind = 'batch' AND finished_at IS NULL AND cancel_requested_at IS NOT NULL"
            ),
        ),
        Index("groups_to_retry", "id", postgresql_where=text("retry_until IS NOT NULL")),
        Index(
            "groups_deadlines",
            "deadline",
            postgresql_where=text(
                "kind = 'workflow' AND finished_at IS NULL AND cancel_requested_at IS NULL"
            ),
        ),
        {"postgresql_with": {"fillfactor": "50"}},
    )


class GroupEnd(Base):
    """A member's end, or its return among those that wait, until it is counted."""

    __tablename__ = "group_ends"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    group_id: Mapped[UUID] = mapped_column(Uuid)
    member_id: Mapped[UUID] = mapped_column(Uuid)
    #: NULL: it had not ended.
    was: Mapped[str | None] = mapped_column(Text)
    #: NULL: it was queued again.
    became: Mapped[str | None] = mapped_column(Text)
    noted_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())

    __table_args__ = (Index("group_ends_by_group", "group_id"),)
