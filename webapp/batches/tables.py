"""The table of parts: what was sent to a batch under which name, and what that was answered.

Nothing refers to the batch by a foreign key: it would be looked up for each part. Parts go with their batch.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, LargeBinary, Text, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.orm import Mapped, mapped_column

from webapp.infra.postgres.base import TIME, Base


class BatchPart(Base):
    """A part of a batch; its primary key is what lets it be added once.

    The ids of its jobs are kept by themselves, 16 bytes each: the parts of a batch of a million members are 16 MB.
    """

    __tablename__ = "batch_parts"

    group_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    #: The member that added it from inside; all zeros: it came from outside.
    member_id: Mapped[UUID] = mapped_column(
        Uuid, primary_key=True, server_default=text("'00000000-0000-0000-0000-000000000000'")
    )
    part: Mapped[str] = mapped_column(Text, primary_key=True)
    #: SHA-256 of its jobs.
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    #: The job of each item that was stored, in their order; NULL for others.
    ids: Mapped[list[UUID | None]] = mapped_column(ARRAY(Uuid), server_default=text("'{}'"))
    #: What the others were answered, by their number; as text, for an answer repeats what was sent, and `jsonb` takes no character 0.
    others: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    #: When it was added.
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
