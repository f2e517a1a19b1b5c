"""An index of the running jobs that were asked to stop: every worker looks for its own once a second."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BLOCKS = "before the first release: no table is large yet"


def upgrade() -> None:
    """Applies this change."""
    op.create_index(
        "jobs_cancel_asked",
        "jobs",
        ["cancel_requested_at"],
        postgresql_where=sa.text("status = 'processing' AND cancel_requested_at IS NOT NULL"),
    )


def downgrade() -> None:
    """Takes this change back."""
    op.drop_index("jobs_cancel_asked", "jobs")
