"""Queues of keys of the API: a key may see and steer jobs of those alone. Only adds.

NULL, and every key of the release before: of all. An API of the release before lets a key with queues reach all of them, so give keys
queues when the last of these has gone.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies this change."""
    op.add_column("access_keys", sa.Column("queues", postgresql.ARRAY(sa.Text())))


def downgrade() -> None:
    """Takes this change back: a key that had queues is revoked, for it would reach all."""
    op.execute("UPDATE access_keys SET revoked_at = coalesce(revoked_at, now()) WHERE queues IS NOT NULL")
    op.drop_column("access_keys", "queues")
