"""Schedules: when each is due, its versions, and what became of each time. Only adds tables of its own."""

from __future__ import annotations

from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies this change."""
    # Each firing writes its row anew.
    op.execute("""
        CREATE TABLE schedules (
            id uuid PRIMARY KEY, name text NOT NULL UNIQUE, queue text NOT NULL, version int NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
            paused_at timestamptz, paused_by text, pause_note text, resumed_at timestamptz,
            next_at timestamptz, due_at timestamptz, last_at timestamptz, open_job_id uuid,
            buffered int NOT NULL DEFAULT 0, fired bigint NOT NULL DEFAULT 0, skipped bigint NOT NULL DEFAULT 0,
            tz_version text NOT NULL, pruned_until timestamptz,
            CONSTRAINT schedules_go_forward CHECK (last_at IS NULL OR next_at > last_at),
            CONSTRAINT schedules_buffered CHECK (buffered >= 0))
        WITH (fillfactor = 70)""")
    op.execute("""
        CREATE INDEX schedules_due ON schedules (due_at) WHERE due_at IS NOT NULL AND paused_at IS NULL""")
    op.execute("CREATE INDEX schedules_waiting ON schedules (id) WHERE buffered > 0 AND paused_at IS NULL")
    op.execute("CREATE INDEX schedules_by_rules ON schedules (tz_version, id)")
    op.execute("""
        CREATE TABLE schedule_versions (
            schedule_id uuid NOT NULL, version int NOT NULL,
            spec json NOT NULL, changed_at timestamptz NOT NULL DEFAULT now(), changed_by text, why text,
            PRIMARY KEY (schedule_id, version))""")
    op.execute("""
        CREATE TABLE firings (
            schedule_id uuid NOT NULL, at timestamptz NOT NULL,
            round smallint NOT NULL DEFAULT 0, kind text NOT NULL, outcome text NOT NULL, reason text,
            until timestamptz, job_id uuid, version int NOT NULL, fired_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (schedule_id, at, round))""")
    op.execute("CREATE INDEX firings_waiting ON firings (schedule_id, at, round) WHERE outcome = 'buffered'")
    op.execute("CREATE INDEX firings_by_age ON firings (schedule_id, fired_at)")


def downgrade() -> None:
    """Takes this change back: schedules and their history are gone."""
    op.drop_table("firings")
    op.drop_table("schedule_versions")
    op.drop_table("schedules")
