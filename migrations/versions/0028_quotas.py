"""Quotas of keys of the API: how much one may submit and read. Only adds.

NULL, and every key of the release before: as much as all others. An API of the release before knows none and lets such a key use as
much as it likes.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies this change."""
    op.add_column("access_keys", sa.Column("quotas", postgresql.JSONB()))


def downgrade() -> None:
    """Takes this change back."""
    op.drop_column("access_keys", "quotas")
