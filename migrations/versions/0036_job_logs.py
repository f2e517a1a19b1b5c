"""What handlers log, where it is kept: a row for what an attempt wrote within a second. Only adds a table of its own."""

from __future__ import annotations

from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies this change."""
    op.execute("""
        CREATE TABLE job_logs (
            job_id uuid NOT NULL, number bigint GENERATED ALWAYS AS IDENTITY, attempt int NOT NULL,
            before int NOT NULL, lines int NOT NULL, size int NOT NULL, body json NOT NULL,
            written_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (job_id, number),
            CONSTRAINT job_logs_counted CHECK (before >= 0 AND lines >= 1))""")
    op.execute("CREATE INDEX job_logs_by_age ON job_logs (written_at)")


def downgrade() -> None:
    """Takes this change back: lines that were kept are gone."""
    op.drop_table("job_logs")
