"""The index that lists jobs by status leaves out those that run, so that a claim does not pay for it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

#: Read by the contract test on migrations.
CONTRACT = "drops an index that no ON CONFLICT names; earlier code lists running jobs by `jobs_leases`, which has few rows"

_OLD, _NEW = "jobs_by_status", "jobs_at_rest"
_COLUMNS = ["status", "id"]


def upgrade() -> None:
    """Applies this change while jobs are submitted and run; may be run again after it was interrupted."""
    with op.get_context().autocommit_block():
        # What an interrupted run leaves behind is an index that is not valid.
        op.drop_index(_NEW, "jobs", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            _NEW,
            "jobs",
            _COLUMNS,
            postgresql_where=sa.text("status <> 'processing'"),
            postgresql_concurrently=True,
        )
        op.drop_index(_OLD, "jobs", if_exists=True, postgresql_concurrently=True)


def downgrade() -> None:
    """Takes this change back."""
    with op.get_context().autocommit_block():
        op.drop_index(_OLD, "jobs", if_exists=True, postgresql_concurrently=True)
        op.create_index(_OLD, "jobs", _COLUMNS, postgresql_concurrently=True)
        op.drop_index(_NEW, "jobs", postgresql_concurrently=True)
