"""Seals over the record of acts, each a digest of some thousand lines and of the seal before. Only adds.

A process of the release before knows nothing of seals, and its lines are sealed as all others.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from webapp.audit.tables import Xid8

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

#: Why it may.
BLOCKS = "the record is as young as this release, and a line is an act by hand: 10,000 of them are indexed in some 20 ms"

_INDEX = "audit_events_by_xid"


def upgrade() -> None:
    """Applies this change."""
    # A partitioned table's cannot be made concurrently.
    op.create_index(_INDEX, "audit_events", ["xid", "id"])
    op.create_table(
        "audit_seals",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("server", sa.BigInteger(), nullable=False),
        sa.Column("after_id", sa.BigInteger(), nullable=False),
        sa.Column("up_to_xid", Xid8(), nullable=False),
        sa.Column("up_to_id", sa.BigInteger(), nullable=False),
        sa.Column("greatest_id", sa.BigInteger(), nullable=False),
        sa.Column("oldest_at", sa.DateTime(timezone=True)),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("previous", sa.LargeBinary(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("hmac", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.execute("""
        CREATE TRIGGER audit_seals_kept BEFORE UPDATE OR DELETE ON audit_seals
        FOR EACH ROW EXECUTE FUNCTION djps_keep_audit()""")
    op.execute("""
        CREATE TRIGGER audit_seals_not_emptied BEFORE TRUNCATE ON audit_seals
        FOR EACH STATEMENT EXECUTE FUNCTION djps_keep_audit()""")


def downgrade() -> None:
    """Takes this change back: the seals are gone."""
    op.drop_table("audit_seals")
    op.drop_index(_INDEX, "audit_events")
