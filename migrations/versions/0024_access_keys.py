"""Keys of the API, the hashes of their secrets, and a stamp that is new after each change of them. Only adds.

A key has a tenant, of which there is one. An API of the release before asks for no key.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_NO_TEXTS = sa.text("'{}'")


def _time(name: str, *, now: bool = False) -> sa.Column:
    kind = sa.DateTime(timezone=True)
    return (
        sa.Column(name, kind, server_default=sa.func.now(), nullable=False) if now else sa.Column(name, kind)
    )


def upgrade() -> None:
    """Applies this change."""
    op.create_table(
        "access_keys",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), primary_key=True),
        sa.Column("tenant_id", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text()),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), server_default=_NO_TEXTS, nullable=False),
        sa.Column("networks", postgresql.ARRAY(sa.Text()), server_default=_NO_TEXTS, nullable=False),
        sa.Column("created_by", sa.Text()),
        _time("created_at", now=True),
        *map(_time, ("expires_at", "revoked_at", "last_used_at")),
        sa.Column("last_used_from", sa.Text()),
    )
    op.create_table(
        "access_secrets",
        sa.Column("hash", sa.LargeBinary(), primary_key=True),
        sa.Column("key_id", sa.Integer(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        _time("created_at", now=True),
        _time("expires_at"),
    )
    op.create_index("access_secrets_by_key", "access_secrets", ["key_id"])
    op.create_table(
        "access_state",
        sa.Column("single", sa.Boolean(), server_default=sa.text("true"), primary_key=True),
        sa.Column("stamp", sa.Uuid(), nullable=False),
        sa.CheckConstraint("single", name="access_state_has_one_row"),
    )


def downgrade() -> None:
    """Takes this change back: no key is asked for by the release before."""
    op.drop_table("access_state")
    op.drop_table("access_secrets")
    op.drop_table("access_keys")
