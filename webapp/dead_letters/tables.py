"""The tables that count dead letters: how many of each group are open, what happened to them by the hour, and what is not counted yet.

Triggers of `dead_letters` write the notes. What makes letters alike is never NULL here: an empty text stands for what an early release did
not write.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Identity, Index, Integer, Text, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from webapp.infra.postgres.base import TIME, Base


class _Alike:
    """What letters of one group have in common."""

    tenant_id: Mapped[int] = mapped_column(Integer)
    task: Mapped[str] = mapped_column(Text)
    queue: Mapped[str] = mapped_column(Text)
    error_type: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(Text)


class LetterGroup(_Alike, Base):
    """How many letters of a group were open when its notes were counted last."""

    __tablename__ = "letter_groups"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    open: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))

    __table_args__ = (
        UniqueConstraint(
            *("fingerprint", "task", "queue", "error_type", "tenant_id"), name="letter_groups_of"
        ),
        {"postgresql_with": {"fillfactor": "70"}},
    )


class LetterNote(_Alike, Base):
    """That letters of a group were opened or closed, until it is counted."""

    __tablename__ = "letter_notes"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    opened: Mapped[int] = mapped_column(BigInteger)
    closed: Mapped[int] = mapped_column(BigInteger)
    #: NULL: it is no event, but what a recount has found.
    at: Mapped[datetime | None] = mapped_column(TIME, server_default=func.now())


class LetterHour(Base):
    """How many letters of a group were opened and closed in an hour."""

    __tablename__ = "letter_hours"

    group_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    hour: Mapped[datetime] = mapped_column(TIME, primary_key=True)
    opened: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    closed: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))

    __table_args__ = (Index("letter_hours_by_hour", "hour"),)
