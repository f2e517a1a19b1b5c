"""The tables of schedules: what is due, what each of their versions is, and what became of each time.

Nothing refers to a schedule by a foreign key: it would be looked up for each firing, whose transaction holds its row.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, Integer, SmallInteger, Text, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import BigInteger

from webapp.infra.postgres.base import TIME, Base


class ScheduleRecord(Base):
    """A schedule as it stands: narrow, for each firing writes it anew. What it is stands in its version."""

    __tablename__ = "schedules"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    #: Where its jobs wait: who reaches this queue sees and steers it.
    queue: Mapped[str] = mapped_column(Text)
    version: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    #: NULL: it is not paused.
    paused_at: Mapped[datetime | None] = mapped_column(TIME)
    paused_by: Mapped[str | None] = mapped_column(Text)
    pause_note: Mapped[str | None] = mapped_column(Text)
    #: Failures before do not count.
    resumed_at: Mapped[datetime | None] = mapped_column(TIME)
    #: Its next nominal time, and the same with its jitter; NULL: there is none.
    next_at: Mapped[datetime | None] = mapped_column(TIME)
    due_at: Mapped[datetime | None] = mapped_column(TIME)
    #: The newest time that was dealt with.
    last_at: Mapped[datetime | None] = mapped_column(TIME)
    #: The job of its last firing.
    open_job_id: Mapped[UUID | None] = mapped_column(Uuid)
    buffered: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    fired: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    skipped: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    #: By which rules of time zones `next_at` was computed.
    tz_version: Mapped[str] = mapped_column(Text)
    #: Firings of times until then are not all on record any more.
    pruned_until: Mapped[datetime | None] = mapped_column(TIME)

    __table_args__ = (
        CheckConstraint("last_at IS NULL OR next_at > last_at", name="schedules_go_forward"),
        CheckConstraint("buffered >= 0", name="schedules_buffered"),
        Index(
            "schedules_due", "due_at", postgresql_where=text("due_at IS NOT NULL AND paused_at IS NULL")
        ),
        Index(
            "schedules_waiting", "id", postgresql_where=text("buffered > 0 AND paused_at IS NULL")
        ),
        Index("schedules_by_rules", "tz_version", "id"),
    )  # fmt: skip


class ScheduleVersion(Base):
    """A version of a schedule; it is never changed."""

    __tablename__ = "schedule_versions"

    schedule_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    #: As text, so that numbers of payloads stay as they were sent.
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    changed_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    changed_by: Mapped[str | None] = mapped_column(Text)
    why: Mapped[str | None] = mapped_column(Text)


class FiringRecord(Base):
    """What became of a time; the primary key is what lets each time fire once."""

    __tablename__ = "firings"

    schedule_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    at: Mapped[datetime] = mapped_column(TIME, primary_key=True)
    #: 0; more for a time that was fired again; -1 for one that stands for several.
    round: Mapped[int] = mapped_column(
        SmallInteger, primary_key=True, autoincrement=False, server_default=text("0")
    )
    kind: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    until: Mapped[datetime | None] = mapped_column(TIME)
    job_id: Mapped[UUID | None] = mapped_column(Uuid)
    version: Mapped[int] = mapped_column(Integer)
    fired_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())

    __table_args__ = (
        Index("firings_waiting", "schedule_id", "at", "round", postgresql_where=text("outcome = 'buffered'")),
        Index("firings_by_age", "schedule_id", "fired_at"),
    )
