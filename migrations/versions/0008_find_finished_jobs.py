"""Indexes that find finished jobs by task and by queue. Only finished ones are in them, so that submitting and claiming pay nothing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

#: Read by the contract test on migrations.
CONTRACT = "drops only what an interrupted run of this migration left behind: an index that nothing can use"

_INDEXES = {"jobs_finished_by_task": ["task", "id"], "jobs_finished_by_queue": ["queue", "id"]}


def upgrade() -> None:
    """Applies this change while jobs are submitted and run; may be run again after it was interrupted."""
    with op.get_context().autocommit_block():
        for name, columns in _INDEXES.items():
            # What an interrupted run leaves behind is an index that is not valid.
            op.drop_index(name, "jobs", if_exists=True, postgresql_concurrently=True)
            op.create_index(
                name,
                "jobs",
                columns,
                postgresql_where=sa.text("finished_at IS NOT NULL"),
                postgresql_concurrently=True,
            )


def downgrade() -> None:
    """Takes this change back."""
    with op.get_context().autocommit_block():
        for name in _INDEXES:
            op.drop_index(name, "jobs", postgresql_concurrently=True)
