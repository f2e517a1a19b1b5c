"""The table of steps. A workflow itself is a row of `groups`.

No foreign key leads there: it would be looked up for each step, in the transaction that has just stored the row.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Boolean,
    CheckConstraint,
    Integer,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.orm import Mapped, mapped_column

from webapp.infra.postgres.base import TIME, Base


class StepRecord(Base):
    """A step of a workflow: what it is, which never changes, and how it stands."""

    __tablename__ = "workflow_steps"

    workflow_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    #: Larger than those of the steps that it waits for.
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    #: As text, so that numbers of payloads stay as they were sent.
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    after: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    when: Mapped[str] = mapped_column(Text)
    on_failure: Mapped[str] = mapped_column(Text)
    #: The step that it undoes. NULL: it is the client's.
    undoes: Mapped[int | None] = mapped_column(Integer)
    #: Where its job waits, since its workflow was submitted. NULL: it has no job of its own.
    queue: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, server_default=text("'waiting'"))
    reason: Mapped[str | None] = mapped_column(Text)
    is_asked: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    job_id: Mapped[UUID | None] = mapped_column(Uuid)
    child_id: Mapped[UUID | None] = mapped_column(Uuid)
    released_at: Mapped[datetime | None] = mapped_column(TIME)
    finished_at: Mapped[datetime | None] = mapped_column(TIME)

    __table_args__ = (
        UniqueConstraint("workflow_id", "name", name="workflow_steps_names"),
        CheckConstraint(
            "status IN ('waiting', 'running', 'completed', 'failed', 'cancelled', 'skipped')",
            name="workflow_steps_status_known",
        ),
        CheckConstraint(
            "(status IN ('waiting', 'skipped')) = (released_at IS NULL)", name="workflow_steps_released"
        ),
        CheckConstraint(
            "(status IN ('waiting', 'running')) = (finished_at IS NULL)", name="workflow_steps_finished"
        ),
    )
