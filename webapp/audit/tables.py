"""The tables of the record: its lines, whose months are partitions that migrations and a sweep make, and its seals."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import UserDefinedType

from webapp.infra.postgres.base import TIME, Base


class Xid8(UserDefinedType[str]):
    """A transaction's number, which is never used again: PostgreSQL's xid8."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Its name in PostgreSQL."""
        return "xid8"


# SQLAlchemy does not know the type, and would warn where it looks at the table.
ischema_names.setdefault("xid8", Xid8)


class AuditEventRow(Base):
    """An act on record. Rows are only added: triggers refuse the rest. Old months go as a whole."""

    __tablename__ = "audit_events"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    #: The transaction that wrote it, which is that of the act.
    xid: Mapped[str] = mapped_column(Xid8, server_default=text("pg_current_xact_id()"))
    event: Mapped[str] = mapped_column(Text)
    success: Mapped[bool] = mapped_column(Boolean, server_default=text("true"))
    actor_kind: Mapped[str] = mapped_column(Text)
    actor_id: Mapped[str] = mapped_column(Text)
    actor_name: Mapped[str] = mapped_column(Text)
    address: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(Text)
    target_kind: Mapped[str | None] = mapped_column(Text)
    target_id: Mapped[str | None] = mapped_column(Text)
    matched: Mapped[int | None] = mapped_column(Integer)
    changed: Mapped[int | None] = mapped_column(Integer)
    reason: Mapped[str | None] = mapped_column(Text)
    details: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    #: Whose key did it. NULL: one of the default tenant, or no key; so lines of releases before have the same digest.
    tenant_id: Mapped[int | None] = mapped_column(Integer)

    __table_args__ = (
        PrimaryKeyConstraint("id", "at"),
        Index("audit_events_by_event", "event", "id"),
        Index("audit_events_by_actor", "actor_id", "id"),
        Index("audit_events_by_target", "target_id", "id"),
        # In this order they are sealed.
        Index("audit_events_by_xid", "xid", "id"),
        Index("audit_events_by_tenant", "tenant_id", "id", postgresql_where=text("tenant_id IS NOT NULL")),
        {"postgresql_partition_by": "RANGE (at)"},
    )


class AuditSealRow(Base):
    """A seal over lines of the record. Rows are only added: triggers refuse the rest. They stay when their lines go.

    The number is given by its writer, one more than the seal's before: it has no gaps, and no two seals follow the same one.
    """

    __tablename__ = "audit_seals"

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    sealed_at: Mapped[datetime] = mapped_column(TIME)
    #: PostgreSQL's system identifier: of the server that has numbered the transactions.
    server: Mapped[int] = mapped_column(BigInteger)
    #: Lines of that numbering have greater ids.
    after_id: Mapped[int] = mapped_column(BigInteger)
    up_to_xid: Mapped[str] = mapped_column(Xid8)
    up_to_id: Mapped[int] = mapped_column(BigInteger)
    #: Of all lines that are sealed.
    greatest_id: Mapped[int] = mapped_column(BigInteger)
    #: Of these lines; none where the seal has none.
    oldest_at: Mapped[datetime | None] = mapped_column(TIME)
    events: Mapped[int] = mapped_column(Integer)
    previous: Mapped[bytes] = mapped_column(LargeBinary)
    sha256: Mapped[bytes] = mapped_column(LargeBinary)
    hmac: Mapped[bytes | None] = mapped_column(LargeBinary)
