"""Queues and tasks that can be paused, and the record of who did it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def _pause() -> list[sa.Column]:
    return [
        sa.Column("paused_at", sa.DateTime(timezone=True)),
        sa.Column("paused_by", sa.Text()),
        sa.Column("paused_why", sa.Text()),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
    ]


def upgrade() -> None:
    """Applies this change."""
    op.create_table("queues", sa.Column("name", sa.Text(), primary_key=True), *_pause())
    op.create_table(
        "task_limits",
        sa.Column("task", sa.Text(), primary_key=True),
        *_pause(),
        sa.Column("has_aside", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.create_table(
        "flow_changes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("who", sa.Text()),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("old", postgresql.JSONB(), nullable=False),
        sa.Column("new", postgresql.JSONB(), nullable=False),
        sa.Column("why", sa.Text()),
    )
    op.create_index("flow_changes_by_target", "flow_changes", ["target", "id"])


def downgrade() -> None:
    """Takes this change back; what is paused starts again, and jobs that were set aside are left to the dispatcher."""
    op.execute(
        "UPDATE jobs_living SET dispatched_at = NULL WHERE status = 'queued' AND dispatched_at = 'infinity'"
    )
    op.drop_table("flow_changes")
    op.drop_table("task_limits")
    op.drop_table("queues")
