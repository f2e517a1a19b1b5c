"""Keys of jobs: whose work each is, and an index by which they are found. Jobs without one are not in it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

CONTRACT = "drops only what an interrupted run of this migration left behind: an index that nothing can use"

_MAKE = """
        CREATE OR REPLACE FUNCTION djps_make_history(name text, since timestamptz, until timestamptz) RETURNS void
        LANGUAGE plpgsql AS $$
        BEGIN
            EXECUTE format('CREATE TABLE %I (LIKE jobs_living INCLUDING DEFAULTS,
                PRIMARY KEY (id),
                CONSTRAINT %I CHECK (finished_at IS NOT NULL AND status IN (''completed'', ''failed'', ''cancelled'')
                                     AND lease_expires_at IS NULL AND worker_id IS NULL
                                     AND (result IS NULL OR status = ''completed'')))', name, name || '_final');
            EXECUTE format('CREATE INDEX %I ON %I (status, id)', name || '_by_status', name);
            EXECUTE format('CREATE INDEX %I ON %I (task, id)', name || '_by_task', name);
            EXECUTE format('CREATE INDEX %I ON %I (queue, id)', name || '_by_queue', name);{more}
            EXECUTE format('CREATE INDEX %I ON %I (id) WHERE ended_by IS NULL OR attempt > 1
                OR status <> ''completed''', name || '_recorded', name);
            EXECUTE format('CREATE INDEX %I ON %I USING gin (tags) WHERE tags <> ''{{}}''', name || '_tags', name);
            EXECUTE format('CREATE INDEX %I ON %I (finished_at) WHERE finished_at IS NOT NULL
                AND callback_url IS NOT NULL AND callback_job_id IS NULL', name || '_callbacks', name);
            EXECUTE format('ALTER TABLE jobs ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, since, until);
        END $$"""
_BY_KEY = """
            EXECUTE format('CREATE INDEX %I ON %I (key, id) WHERE key IS NOT NULL', name || '_by_key', name);"""
_DAYS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'jobs'::regclass AND inhrelid <> 'jobs_living'::regclass"


def _days() -> list[str]:
    """The partitions that there are; none where the SQL is only printed."""
    if context.is_offline_mode():
        return []
    return list(op.get_bind().execute(sa.text(_DAYS)).scalars())


def upgrade() -> None:
    """Applies this change while jobs are submitted and run; may be run again after it was interrupted."""
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE jobs ADD COLUMN IF NOT EXISTS key text")
        # A day that is made from here on has its index.
        op.execute(_MAKE.format(more=_BY_KEY))
        tables = {"jobs_living": "jobs_by_key"} | {day: f"{day}_by_key" for day in _days()}
        for table, name in tables.items():
            # What an interrupted run leaves behind is an index that is not valid.
            op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
            op.create_index(
                name,
                table,
                ["key", "id"],
                postgresql_where=sa.text("key IS NOT NULL"),
                postgresql_concurrently=True,
            )


def downgrade() -> None:
    """Takes this change back; the indexes go with the column."""
    op.execute(_MAKE.format(more=""))
    op.drop_column("jobs", "key")
