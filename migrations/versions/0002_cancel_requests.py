"""Let a running job be asked to stop."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CONTRACT = "the rule is about a column that earlier code does not know, and leaves NULL"
BLOCKS = "before the first release: no table is large yet"


def upgrade() -> None:
    """Applies this change."""
    op.add_column("jobs", sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True))
    op.create_check_constraint(
        "jobs_cancel_asked_of_running", "jobs", "status <> 'queued' OR cancel_requested_at IS NULL"
    )


def downgrade() -> None:
    """Takes this change back."""
    op.drop_constraint("jobs_cancel_asked_of_running", "jobs", type_="check")
    op.drop_column("jobs", "cancel_requested_at")
