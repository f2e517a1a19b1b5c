"""The tables of access control: tenants, keys, their secrets' hashes, and the stamp by which processes see that either has changed."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    ARRAY,
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


class TenantRow(Base):
    """Whose jobs and keys there are; number 1 is the default one, which there always is."""

    __tablename__ = "tenants"

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    slug: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    #: Since when its keys are refused; NULL: they are not.
    suspended_at: Mapped[datetime | None] = mapped_column(TIME)
    #: How much it may use, by the names of `webapp.access.quotas`; NULL: as much as all others.
    quotas: Mapped[dict[str, int] | None] = mapped_column(JSONB)

    __table_args__ = (
        Index("tenants_by_slug", "slug", unique=True),
        CheckConstraint("id >= 1", name="tenants_from_one"),
    )


class AccessKeyRow(Base):
    """A key; what is good for it is in `access_secrets`."""

    __tablename__ = "access_keys"

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    #: Whose rows it reaches.
    tenant_id: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    name: Mapped[str] = mapped_column(Text)
    #: A named set of scopes; NULL: it has only those of its own.
    role: Mapped[str | None] = mapped_column(Text)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    #: From where it may be shown; empty: from everywhere.
    networks: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    #: Of which queues it may see and steer jobs; NULL: of all.
    queues: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    #: How much it may use, by the names of `webapp.access.quotas`; NULL: as much as all others.
    quotas: Mapped[dict[str, int] | None] = mapped_column(JSONB)
    created_by: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    #: NULL: it is good until it is revoked.
    expires_at: Mapped[datetime | None] = mapped_column(TIME)
    revoked_at: Mapped[datetime | None] = mapped_column(TIME)
    #: Written in batches, about once a minute.
    last_used_at: Mapped[datetime | None] = mapped_column(TIME)
    last_used_from: Mapped[str | None] = mapped_column(Text)


class AccessSecret(Base):
    """The hash of a secret that is good for a key: one for each, and two while a key is rotated."""

    __tablename__ = "access_secrets"

    hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    key_id: Mapped[int] = mapped_column(Integer)
    #: Its last characters, by which its owner tells it from others.
    hint: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    #: NULL: it is good as long as its key.
    expires_at: Mapped[datetime | None] = mapped_column(TIME)

    __table_args__ = (Index("access_secrets_by_key", "key_id"),)


class AccessState(Base):
    """One row: a stamp that is new after each change of keys; no row: there was none yet."""

    __tablename__ = "access_state"

    single: Mapped[bool] = mapped_column(Boolean, primary_key=True, server_default=text("true"))
    stamp: Mapped[UUID] = mapped_column(Uuid)

    __table_args__ = (CheckConstraint("single", name="access_state_has_one_row"),)
