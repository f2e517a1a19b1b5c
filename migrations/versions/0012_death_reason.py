"""An attempt's row says why it was the job's last: the dead letter task must not guess it from the name of a class."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies this change; of an attempt that ended before, the name of its error's class still tells."""
    op.add_column("job_attempts", sa.Column("death_reason", sa.Text(), nullable=True))


def downgrade() -> None:
    """Takes this change back."""
    op.drop_column("job_attempts", "death_reason")
