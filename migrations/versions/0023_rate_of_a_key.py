"""The jobs that unique keys name, by an index: a job shows the key that it holds. Only adds."""

from __future__ import annotations

from alembic import op

revision = "0023"
down_revision = "0020"
branch_labels = None
depends_on = None

CONTRACT = "drops only what an interrupted run of this migration left behind: an index that nothing can use"


def upgrade() -> None:
    """Applies this change; may be run again after it was interrupted."""
    with op.get_context().autocommit_block():
        op.drop_index("unique_keys_by_job", "unique_keys", if_exists=True, postgresql_concurrently=True)
        op.create_index("unique_keys_by_job", "unique_keys", ["job_id"], postgresql_concurrently=True)


def downgrade() -> None:
    """Takes this change back."""
    op.drop_index("unique_keys_by_job", "unique_keys")
