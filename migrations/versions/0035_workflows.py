"""Workflows: their steps, which wait here and not among the jobs. Only adds a table, and an index for deadlines."""

from __future__ import annotations

from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies this change."""
    # Each step is written a few times, and none of its indexes has what changes.
    op.execute("""
        CREATE TABLE IF NOT EXISTS workflow_steps (
            workflow_id uuid NOT NULL, number int NOT NULL,
            name text NOT NULL, kind text NOT NULL, spec json NOT NULL, after int[] NOT NULL,
            "when" text NOT NULL, on_failure text NOT NULL, undoes int, queue text,
            status text NOT NULL DEFAULT 'waiting', reason text, is_asked boolean NOT NULL DEFAULT false,
            job_id uuid, child_id uuid, released_at timestamptz, finished_at timestamptz,
            PRIMARY KEY (workflow_id, number),
            CONSTRAINT workflow_steps_names UNIQUE (workflow_id, name),
            CONSTRAINT workflow_steps_status_known
                CHECK (status IN ('waiting', 'running', 'completed', 'failed', 'cancelled', 'skipped')),
            CONSTRAINT workflow_steps_released CHECK ((status IN ('waiting', 'skipped')) = (released_at IS NULL)),
            CONSTRAINT workflow_steps_finished CHECK ((status IN ('waiting', 'running')) = (finished_at IS NULL)))
        WITH (fillfactor = 70)""")
    with op.get_context().autocommit_block():
        op.execute("""
            CREATE INDEX CONCURRENTLY IF NOT EXISTS groups_deadlines ON groups (deadline)
             WHERE kind = 'workflow' AND finished_at IS NULL AND cancel_requested_at IS NULL""")


def downgrade() -> None:
    """Takes this change back: the steps of workflows are gone, and their jobs stay."""
    op.execute("DROP INDEX IF EXISTS groups_deadlines")
    op.drop_table("workflow_steps")
