"""Payloads and results with numbers that jsonb gives back in another form are kept as they were given, beside it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies this change; earlier code reads and writes the jsonb columns, which have every value as before."""
    op.add_column("jobs", sa.Column("payload_as_sent", sa.JSON(), nullable=True))
    op.add_column("jobs", sa.Column("result_as_sent", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Takes this change back."""
    op.drop_column("jobs", "result_as_sent")
    op.drop_column("jobs", "payload_as_sent")
