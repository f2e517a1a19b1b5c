"""The tables of what the database knows of handlers and of the settings, to judge submissions that come by `djps_submit`."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Boolean, CheckConstraint, Double, Integer, SmallInteger, Text, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from webapp.infra.postgres.base import TIME, Base


class KnownHandler(Base):
    """A handler as the maintenance workers have it; NULL where it leaves something to the settings."""

    __tablename__ = "known_handlers"

    task: Mapped[str] = mapped_column(Text, primary_key=True)
    queue: Mapped[str] = mapped_column(Text)
    max_retries: Mapped[int | None] = mapped_column(Integer)
    timeout: Mapped[float | None] = mapped_column(Double)
    priority: Mapped[int | None] = mapped_column(SmallInteger)
    backoff: Mapped[Any | None] = mapped_column(JSONB)
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    expires_in: Mapped[float | None] = mapped_column(Double)
    #: Its worker checks payloads that came by `djps_submit`.
    has_model: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))


class SubmissionRules(Base):
    """The settings that submissions are held to. One row, or none before a process has said them."""

    __tablename__ = "submission_rules"

    one: Mapped[bool] = mapped_column(Boolean, primary_key=True, server_default=text("true"))
    #: Of all that was said, handlers too: who would say the same writes nothing.
    stamp: Mapped[str] = mapped_column(Text)
    max_payload_bytes: Mapped[int] = mapped_column(Integer)
    max_retries: Mapped[int] = mapped_column(Integer)
    timeout: Mapped[float] = mapped_column(Double)
    key_ttl: Mapped[float] = mapped_column(Double)
    default_task: Mapped[str] = mapped_column(Text)
    only_known: Mapped[bool] = mapped_column(Boolean)
    queues: Mapped[list[str]] = mapped_column(ARRAY(Text))
    told_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())

    __table_args__ = (CheckConstraint("one", name="submission_rules_one"),)


class UncountedJob(Base):
    """A job that came by `djps_submit` and is not in `jobs_created_total` yet."""

    __tablename__ = "uncounted_jobs"

    job_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
