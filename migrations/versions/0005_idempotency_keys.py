"""Idempotency keys in a table of their own: they live as long as promised, whatever becomes of their job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CONTRACT = "before the first release: nobody runs the code whose ON CONFLICT named the index"
BLOCKS = "before the first release: no table is large yet"


def upgrade() -> None:
    """Applies this change; keys of the last day are taken over."""
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("length(key) BETWEEN 1 AND 255", name="idempotency_keys_length"),
        sa.PrimaryKeyConstraint("key"),
    )
    op.execute(
        "INSERT INTO idempotency_keys (key, fingerprint, job_id, created_at, expires_at)"
        " SELECT idempotency_key, fingerprint, id, created_at, created_at + interval '1 day' FROM jobs"
        " WHERE idempotency_key IS NOT NULL AND created_at > now() - interval '1 day'"
    )
    op.create_index("idempotency_keys_by_end", "idempotency_keys", ["expires_at"])
    op.drop_index("jobs_idempotency_key", "jobs")


def downgrade() -> None:
    """Takes this change back; of jobs that had the same key one after the other, the newest keeps it."""
    op.execute(
        "UPDATE jobs SET idempotency_key = NULL FROM jobs AS newer"
        " WHERE newer.idempotency_key = jobs.idempotency_key AND newer.id > jobs.id"
    )
    op.create_index(
        "jobs_idempotency_key",
        "jobs",
        ["idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.drop_table("idempotency_keys")
