"""create jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies this change."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), server_default=sa.text("5"), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'queued'"), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("retry_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("max_retries", sa.Integer(), nullable=False),
        sa.Column("timeout", sa.Double(), nullable=False),
        sa.Column("run_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("dispatched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("worker_id", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'processing') = (lease_expires_at IS NOT NULL)", name="jobs_lease_while_processing"
        ),
        sa.CheckConstraint(
            "(status = 'processing') = (worker_id IS NOT NULL)", name="jobs_worker_while_processing"
        ),
        sa.CheckConstraint(
            "(status IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL)",
            name="jobs_finished_when_final",
        ),
        sa.CheckConstraint("jsonb_typeof(payload) = 'object'", name="jobs_payload_is_object"),
        sa.CheckConstraint("result IS NULL OR status = 'completed'", name="jobs_result_when_completed"),
        sa.CheckConstraint(
            "status IN ('queued', 'processing', 'completed', 'failed', 'cancelled')", name="jobs_status_known"
        ),
        sa.CheckConstraint("(attempt = 0) = (last_attempt_at IS NULL)", name="jobs_attempted_when_claimed"),
        sa.CheckConstraint("length(idempotency_key) BETWEEN 1 AND 255", name="jobs_key_length"),
        sa.CheckConstraint("max_retries BETWEEN 0 AND 100", name="jobs_max_retries_in_range"),
        sa.CheckConstraint("priority BETWEEN 0 AND 9", name="jobs_priority_in_range"),
        sa.CheckConstraint(
            "retry_count >= 0 AND retry_count <= attempt", name="jobs_retries_within_attempts"
        ),
        sa.CheckConstraint("timeout > 0", name="jobs_timeout_positive"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("jobs_by_status", "jobs", ["status", "id"], unique=False)
    op.create_index(
        "jobs_dispatched",
        "jobs",
        ["queue", "dispatched_at"],
        unique=False,
        postgresql_where=sa.text("status = 'queued' AND dispatched_at IS NOT NULL"),
    )
    op.create_index(
        "jobs_finished",
        "jobs",
        ["finished_at"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index("jobs_idempotency_key", "jobs", ["idempotency_key"], unique=True)
    op.create_index(
        "jobs_leases",
        "jobs",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text("status = 'processing'"),
    )
    op.create_index(
        "jobs_undispatched",
        "jobs",
        ["queue", sa.literal_column("priority DESC"), "run_at"],
        unique=False,
        postgresql_where=sa.text("status = 'queued' AND dispatched_at IS NULL"),
    )

    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("error_type", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("dead_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("requeued_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("reason IN ('exhausted', 'discarded')", name="dead_letters_reason_known"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("dead_letters_by_job", "dead_letters", ["job_id"], unique=False)
    op.create_index(
        "dead_letters_open",
        "dead_letters",
        ["job_id"],
        unique=True,
        postgresql_where=sa.text("requeued_at IS NULL"),
    )

    op.create_table(
        "job_attempts",
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("error_type", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "outcome IN ('completed', 'failed', 'lost', 'released', 'cancelled')",
            name="job_attempts_outcome_known",
        ),
        sa.CheckConstraint("attempt >= 1", name="job_attempts_from_one"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "attempt"),
    )


def downgrade() -> None:
    """Takes this change back."""
    op.drop_table("job_attempts")
    op.drop_index(
        "dead_letters_open", table_name="dead_letters", postgresql_where=sa.text("requeued_at IS NULL")
    )
    op.drop_index("dead_letters_by_job", table_name="dead_letters")

    op.drop_table("dead_letters")
    op.drop_index(
        "jobs_undispatched",
        table_name="jobs",
        postgresql_where=sa.text("status = 'queued' AND dispatched_at IS NULL"),
    )
    op.drop_index("jobs_leases", table_name="jobs", postgresql_where=sa.text("status = 'processing'"))
    op.drop_index("jobs_idempotency_key", table_name="jobs")
    op.drop_index("jobs_finished", table_name="jobs", postgresql_where=sa.text("finished_at IS NOT NULL"))
    op.drop_index(
        "jobs_dispatched",
        table_name="jobs",
        postgresql_where=sa.text("status = 'queued' AND dispatched_at IS NOT NULL"),
    )
    op.drop_index("jobs_by_status", table_name="jobs")

    op.drop_table("jobs")
