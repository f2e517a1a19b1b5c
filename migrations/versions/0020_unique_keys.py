"""Unique keys: which job holds each. Only adds; a job without one pays for none of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies this change."""
    op.create_table(
        "unique_keys",
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("length(key) BETWEEN 1 AND 200", name="unique_keys_length"),
    )


def downgrade() -> None:
    """Takes this change back; jobs that wait for their unique keys' sake are as any other."""
    op.drop_table("unique_keys")
