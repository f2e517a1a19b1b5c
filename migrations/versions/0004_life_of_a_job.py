"""Room for what a client may ask of a job, and for what became of it. Only adds, so old and new code run side by side."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

CONTRACT = (
    "the rule about outcomes is widened; the index of open letters allows more, and no ON CONFLICT named it"
)
BLOCKS = "before the first release: no table is large yet"

_TIME = sa.DateTime(timezone=True)
_NOW = sa.text("now()")
_JSON = postgresql.JSONB(astext_type=sa.Text())


def _job_columns() -> tuple[sa.Column, ...]:
    return (
        sa.Column("tags", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("expires_at", _TIME, nullable=True),
        sa.Column("backoff", _JSON, nullable=True),
        sa.Column("callback_url", sa.Text(), nullable=True),
        sa.Column("callback_job_id", sa.UUID(), nullable=True),
        sa.Column("cancel_reason", sa.Text(), nullable=True),
        sa.Column("progress", _JSON, nullable=True),
        sa.Column("watched", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=True),
    )


def _letter_columns() -> tuple[sa.Column, ...]:
    return (
        sa.Column("task", sa.Text(), nullable=True),
        sa.Column("queue", sa.Text(), nullable=True),
        sa.Column("discarded_at", _TIME, nullable=True),
        sa.Column("resolved_by", sa.Text(), nullable=True),
        sa.Column("resolved_why", sa.Text(), nullable=True),
    )


_OPEN = "requeued_at IS NULL AND discarded_at IS NULL"
_OUTCOMES = "outcome IN ('completed', 'failed', 'lost', 'released', 'cancelled'{})"


def upgrade() -> None:
    """Applies this change."""
    for column in _job_columns():
        op.add_column("jobs", column)
    op.create_index(
        "jobs_tags",
        "jobs",
        ["tags"],
        postgresql_using="gin",
        postgresql_with={"fastupdate": "on"},
        postgresql_where=sa.text("tags <> '{}'"),
    )
    op.create_index(
        "jobs_expiring",
        "jobs",
        ["expires_at"],
        postgresql_where=sa.text("status = 'queued' AND expires_at IS NOT NULL"),
    )
    op.create_index(
        "jobs_callbacks",
        "jobs",
        ["finished_at"],
        postgresql_where=sa.text(
            "finished_at IS NOT NULL AND callback_url IS NOT NULL AND callback_job_id IS NULL"
        ),
    )
    op.drop_constraint("job_attempts_outcome_known", "job_attempts", type_="check")
    op.create_check_constraint("job_attempts_outcome_known", "job_attempts", _OUTCOMES.format(", 'snoozed'"))
    op.create_table(
        "pruned_jobs",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("pruned_at", _TIME, server_default=_NOW, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("pruned_jobs_by_age", "pruned_jobs", ["pruned_at"])
    for column in _letter_columns():
        op.add_column("dead_letters", column)
    op.execute("UPDATE dead_letters d SET task = j.task, queue = j.queue FROM jobs j WHERE j.id = d.job_id")
    op.drop_index("dead_letters_open", "dead_letters")
    op.create_index(
        "dead_letters_open", "dead_letters", ["job_id"], unique=True, postgresql_where=sa.text(_OPEN)
    )
    op.create_index(
        "dead_letters_alike", "dead_letters", ["task", "fingerprint"], postgresql_where=sa.text(_OPEN)
    )


def downgrade() -> None:
    """Takes this change back."""
    op.drop_index("dead_letters_alike", "dead_letters")
    op.drop_index("dead_letters_open", "dead_letters")
    op.execute("UPDATE dead_letters SET requeued_at = discarded_at WHERE requeued_at IS NULL")
    op.create_index(
        "dead_letters_open",
        "dead_letters",
        ["job_id"],
        unique=True,
        postgresql_where=sa.text("requeued_at IS NULL"),
    )
    for column in reversed(_letter_columns()):
        op.drop_column("dead_letters", column.name)
    op.drop_table("pruned_jobs")
    op.drop_constraint("job_attempts_outcome_known", "job_attempts", type_="check")
    op.execute("UPDATE job_attempts SET outcome = 'released' WHERE outcome = 'snoozed'")
    op.create_check_constraint("job_attempts_outcome_known", "job_attempts", _OUTCOMES.format(""))
    for name in ("jobs_callbacks", "jobs_expiring", "jobs_tags"):
        op.drop_index(name, "jobs")
    for column in reversed(_job_columns()):
        op.drop_column("jobs", column.name)
