"""A completed job whose result could not be kept says why in a column of its own, and never as if that were its result."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies this change; what an earlier release said in place of a result stays where it is."""
    op.add_column("jobs", sa.Column("result_note", sa.Text(), nullable=True))


def downgrade() -> None:
    """Takes this change back."""
    op.drop_column("jobs", "result_note")
