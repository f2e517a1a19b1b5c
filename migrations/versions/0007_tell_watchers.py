"""Jobs that somebody waits for tell of their changes; those that nobody waits for pay a look at one column."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies this change."""
    op.execute("""
        CREATE FUNCTION djps_tell_watchers() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify('djps_watched', NEW.id::text);
            RETURN NULL;
        END $$""")
    op.execute("""
        CREATE TRIGGER jobs_watched AFTER UPDATE OF status, progress ON jobs
        FOR EACH ROW WHEN (NEW.watched) EXECUTE FUNCTION djps_tell_watchers()""")


def downgrade() -> None:
    """Takes this change back."""
    op.execute("DROP TRIGGER jobs_watched ON jobs")
    op.execute("DROP FUNCTION djps_tell_watchers()")
