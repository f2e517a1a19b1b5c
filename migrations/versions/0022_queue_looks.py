"""Bounds of submissions: up to where a queue takes jobs, what was found when it was last looked at, and an index by which a key's
waiting jobs are counted.

Only adds. A job without a key is not in the index.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

CONTRACT = "drops only what an interrupted run of this migration left behind: an index that nothing can use"

INDEX = "jobs_key_waiting"
COLUMNS = {"max_depth": "int", "max_age": "float8", "key_max_depth": "int"}


def upgrade() -> None:
    """Applies this change while jobs are submitted and run; may be run again after it was interrupted."""
    with op.get_context().autocommit_block():
        for name, kind in COLUMNS.items():
            op.execute(f"ALTER TABLE queues ADD COLUMN IF NOT EXISTS {name} {kind}")
        # Each look writes its row anew, in place.
        op.execute("""
            CREATE TABLE IF NOT EXISTS queue_looks (
                queue text PRIMARY KEY, at float8 NOT NULL DEFAULT 0, took float8 NOT NULL DEFAULT 0,
                depth int NOT NULL DEFAULT 0, oldest float8 NOT NULL DEFAULT 0,
                old_since float8, too_old boolean NOT NULL DEFAULT false, full_since float8,
                drain float8 NOT NULL DEFAULT 0, surplus int NOT NULL DEFAULT 0)
            WITH (fillfactor = 50)""")
        op.drop_index(INDEX, "jobs_living", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            INDEX,
            "jobs_living",
            ["queue", "key", "run_at"],
            postgresql_where=sa.text("status = 'queued' AND key IS NOT NULL"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    """Takes this change back: every submission is taken."""
    op.drop_index(INDEX, "jobs_living")
    op.drop_table("queue_looks")
    for name in COLUMNS:
        op.drop_column("queues", name)
