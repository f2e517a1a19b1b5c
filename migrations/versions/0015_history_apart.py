"""Jobs that ended lie apart from those that live: a partition for each day of their ends, which goes as a whole when it is old.

The table that was there becomes the default partition, where jobs live; only the catalog changes. What ended in it before
stays there until it is old. Code of the release before works on: it names no index of `jobs` in an ON CONFLICT, and does a
transaction again that met a row on its way.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

CONTRACT = (
    "the table is renamed and stands behind its old name in the same transaction; the foreign key only deleted,"
    " which pruning does now; nothing writes to pruned_jobs any more"
)


def upgrade() -> None:
    """Applies this change."""
    op.execute("ALTER TABLE dead_letters DROP CONSTRAINT dead_letters_job_id_fkey")
    op.execute("DROP TRIGGER jobs_watched ON jobs")
    op.add_column("jobs", sa.Column("ended_by", sa.Text()))
    op.add_column("jobs", sa.Column("run_began_at", sa.DateTime(timezone=True)))
    op.add_column("jobs", sa.Column("run_ended_at", sa.DateTime(timezone=True)))
    op.execute("ALTER TABLE jobs RENAME TO jobs_living")
    op.execute("CREATE TABLE jobs (LIKE jobs_living INCLUDING DEFAULTS) PARTITION BY RANGE (finished_at)")
    op.execute("ALTER TABLE jobs ATTACH PARTITION jobs_living DEFAULT")
    op.execute("""
        CREATE TRIGGER jobs_watched AFTER UPDATE OF status, progress ON jobs
        FOR EACH ROW WHEN (NEW.watched) EXECUTE FUNCTION djps_tell_watchers()""")
    # An UPDATE that moves a row is an INSERT where the row goes.
    op.execute("""
        CREATE TRIGGER jobs_moved AFTER INSERT ON jobs
        FOR EACH ROW WHEN (NEW.watched) EXECUTE FUNCTION djps_tell_watchers()""")
    op.execute("""
        CREATE FUNCTION djps_make_history(name text, since timestamptz, until timestamptz) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            EXECUTE format('CREATE TABLE %I (LIKE jobs_living INCLUDING DEFAULTS,
                PRIMARY KEY (id),
                CONSTRAINT %I CHECK (finished_at IS NOT NULL AND status IN (''completed'', ''failed'', ''cancelled'')
                                     AND lease_expires_at IS NULL AND worker_id IS NULL
                                     AND (result IS NULL OR status = ''completed'')))', name, name || '_final');
            EXECUTE format('CREATE INDEX %I ON %I (status, id)', name || '_by_status', name);
            EXECUTE format('CREATE INDEX %I ON %I (task, id)', name || '_by_task', name);
            EXECUTE format('CREATE INDEX %I ON %I (queue, id)', name || '_by_queue', name);
            EXECUTE format('CREATE INDEX %I ON %I (id) WHERE ended_by IS NULL OR attempt > 1
                OR status <> ''completed''', name || '_recorded', name);
            EXECUTE format('CREATE INDEX %I ON %I USING gin (tags) WHERE tags <> ''{}''', name || '_tags', name);
            EXECUTE format('CREATE INDEX %I ON %I (finished_at) WHERE finished_at IS NOT NULL
                AND callback_url IS NOT NULL AND callback_job_id IS NULL', name || '_callbacks', name);
            EXECUTE format('ALTER TABLE jobs ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, since, until);
        END $$""")
    # A new database begins with two weeks. Days of a table with jobs in it are made by the sweep `keep_history`.
    op.execute("""
        SELECT djps_make_history('jobs_' || to_char(day, 'YYYYMMDD'), day AT TIME ZONE 'UTC',
                                 (day + interval '1 day') AT TIME ZONE 'UTC')
          FROM generate_series(0, 14) AS number,
               LATERAL (SELECT date_trunc('day', now() AT TIME ZONE 'UTC') + make_interval(days => number)) AS days(day)
         WHERE NOT EXISTS (SELECT FROM jobs)""")
    op.execute("""
        CREATE VIEW attempts AS
        SELECT job_id, attempt, worker_id, started_at, ended_at, outcome, error_type, error_message, traceback, death_reason
          FROM job_attempts
         UNION ALL
        SELECT id, attempt, ended_by, coalesce(run_began_at, last_attempt_at), coalesce(run_ended_at, finished_at),
               'completed', NULL, NULL, NULL, NULL
          FROM jobs WHERE status = 'completed' AND ended_by IS NOT NULL""")
    op.execute("DROP TABLE pruned_jobs")


def downgrade() -> None:
    """Takes this change back; all that ended is copied."""
    op.execute("""
        CREATE TABLE pruned_jobs (id UUID NOT NULL, pruned_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
                                  CONSTRAINT pruned_jobs_pkey PRIMARY KEY (id))""")
    op.execute("INSERT INTO job_attempts SELECT * FROM attempts ON CONFLICT DO NOTHING")
    op.execute("DROP VIEW attempts")
    op.execute("""
        DO $$
        DECLARE name text;
        BEGIN
            FOR name IN SELECT inhrelid::regclass::text FROM pg_inherits
                         WHERE inhparent = 'jobs'::regclass AND inhrelid <> 'jobs_living'::regclass LOOP
                EXECUTE format('ALTER TABLE jobs DETACH PARTITION %s', name);
                EXECUTE format('INSERT INTO jobs_living SELECT * FROM %s', name);
                EXECUTE format('DROP TABLE %s', name);
            END LOOP;
        END $$""")
    op.execute("DROP FUNCTION djps_make_history")
    op.execute("ALTER TABLE jobs DETACH PARTITION jobs_living")
    op.execute("DROP TABLE jobs")
    op.execute("ALTER TABLE jobs_living RENAME TO jobs")
    for column in ("run_ended_at", "run_began_at", "ended_by"):
        op.drop_column("jobs", column)
    op.execute("""
        CREATE TRIGGER jobs_watched AFTER UPDATE OF status, progress ON jobs
        FOR EACH ROW WHEN (NEW.watched) EXECUTE FUNCTION djps_tell_watchers()""")
    op.execute("DELETE FROM dead_letters WHERE job_id NOT IN (SELECT id FROM jobs)")
    op.create_foreign_key(
        "dead_letters_job_id_fkey", "dead_letters", "jobs", ["job_id"], ["id"], ondelete="CASCADE"
    )
