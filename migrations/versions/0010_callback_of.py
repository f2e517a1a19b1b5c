"""A callback's row says whose end it tells of: what is signed as a callback is what DJPS itself made, whatever its payload says."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies this change; a callback that was made before is sent as the `http` job that it was."""
    op.add_column("jobs", sa.Column("callback_of", sa.Uuid(), nullable=True))


def downgrade() -> None:
    """Takes this change back."""
    op.drop_column("jobs", "callback_of")
