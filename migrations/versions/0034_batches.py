"""Batches: the parts that were sent to them, and what is known of a batch that is closed, cancelled or queued again in portions.

Adds a table, and columns to tables of the release before that are NULL or have a default; so its code goes on.
"""

from __future__ import annotations

from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

BLOCKS = "groups are as young as this release: a few thousand of them are indexed in some milliseconds"

_COLUMNS = {
    "closed_why": "text",
    "retry_until": "timestamptz",
    "retry_after": "uuid",
    "pace": "jsonb",
}


def upgrade() -> None:
    """Applies this change."""
    op.execute("""
        CREATE TABLE batch_parts (
            group_id uuid NOT NULL, member_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000', part text NOT NULL,
            fingerprint bytea NOT NULL, ids uuid[] NOT NULL DEFAULT '{}', others json,
            created_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (group_id, member_id, part))""")
    for name, kind in _COLUMNS.items():
        op.execute(f"ALTER TABLE groups ADD COLUMN {name} {kind}")
    # How long the oldest note waits says whether ends are counted at all.
    op.execute("ALTER TABLE group_ends ADD COLUMN noted_at timestamptz NOT NULL DEFAULT now()")
    # None of them has a counter, so a count is written beside the row's last version as before.
    for name, columns, where in (
        ("groups_by_name", "name, id", "name IS NOT NULL"),
        ("groups_to_close", "deadline", "kind = 'batch' AND closed_at IS NULL"),
        (
            "groups_to_cancel",
            "id",
            "kind = 'batch' AND finished_at IS NULL AND cancel_requested_at IS NOT NULL",
        ),
        ("groups_to_retry", "id", "retry_until IS NOT NULL"),
    ):
        op.execute(f"CREATE INDEX {name} ON groups ({columns}) WHERE {where}")


def downgrade() -> None:
    """Takes this change back: what parts were answered is gone, their jobs stay."""
    for name in ("groups_by_name", "groups_to_close", "groups_to_cancel", "groups_to_retry"):
        op.drop_index(name, "groups")
    op.drop_column("group_ends", "noted_at")
    for name in _COLUMNS:
        op.drop_column("groups", name)
    op.drop_table("batch_parts")
