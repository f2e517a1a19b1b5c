"""Tenants: whose each job, dead letter and act is, and which key submitted a job. Only adds, but for two rules that are replaced by wider ones.

All that is there is the default tenant's, and so is what a process of the release before stores: no row is written anew. Such a
process keeps no tenants apart, so a second one is made only when the last of them has gone. The indexes hold nothing of the default
tenant: who has no other pays for none.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

CONTRACT = (
    "the rules of length that are dropped are added anew and wider, so what code of before writes meets them; the indexes that are"
    " dropped are what an interrupted run of this migration left behind"
)
#: Why it may.
BLOCKS = "the record of acts gets an index of lines of other tenants, and there are none: 10,000 lines are looked at in some 5 ms"

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
            EXECUTE format('CREATE INDEX %I ON %I (queue, id)', name || '_by_queue', name);
            EXECUTE format('CREATE INDEX %I ON %I (key, id) WHERE key IS NOT NULL', name || '_by_key', name);{more}
            EXECUTE format('CREATE INDEX %I ON %I (id) WHERE ended_by IS NULL OR attempt > 1
                OR status <> ''completed''', name || '_recorded', name);
            EXECUTE format('CREATE INDEX %I ON %I USING gin (tags) WHERE tags <> ''{{}}''', name || '_tags', name);
            EXECUTE format('CREATE INDEX %I ON %I (finished_at) WHERE finished_at IS NOT NULL
                AND callback_url IS NOT NULL AND callback_job_id IS NULL', name || '_callbacks', name);
            EXECUTE format('ALTER TABLE jobs ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, since, until);
        END $$"""
_BY_TENANT = """
            EXECUTE format('CREATE INDEX %I ON %I (tenant_id, id) WHERE tenant_id <> 1', name || '_by_tenant', name);"""
_DAYS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'jobs'::regclass AND inhrelid <> 'jobs_living'::regclass"
#: Table, column and name of the rule, and by how much longer a key may be that is kept behind the mark of its tenant.
_LENGTHS = (
    ("jobs_living", "idempotency_key", "jobs_key_length", 255),
    ("idempotency_keys", "key", "idempotency_keys_length", 255),
    ("unique_keys", "key", "unique_keys_length", 200),
)
_LONGEST_MARK = 12
_OTHERS = "tenant_id <> 1"


def make_history(more: str) -> str:
    """The function that makes a day, with the index of tenants and others after it."""
    return _MAKE.format(more=_BY_TENANT + more)


def _days() -> list[str]:
    """The partitions that there are; none where the SQL is only printed."""
    if context.is_offline_mode():
        return []
    return list(op.get_bind().execute(sa.text(_DAYS)).scalars())


def _bound_lengths(longer: int, more: str = "") -> None:
    for table, column, name, most in _LENGTHS:
        op.execute(
            f"ALTER TABLE {table} DROP CONSTRAINT {name},"
            f" ADD CONSTRAINT {name} CHECK (length({column}) BETWEEN 1 AND {most + longer}){more}"
        )


def _index(name: str, table: str, columns: list[str], where: str) -> None:
    # What an interrupted run leaves behind is an index that is not valid.
    op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
    op.create_index(name, table, columns, postgresql_where=sa.text(where), postgresql_concurrently=True)


def upgrade() -> None:
    """Applies this change while jobs are submitted and run; may be run again after it was interrupted."""
    op.create_table(
        "tenants",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("suspended_at", sa.DateTime(timezone=True)),
        sa.Column("quotas", postgresql.JSONB()),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("id >= 1", name="tenants_from_one"),
        if_not_exists=True,
    )
    op.create_index("tenants_by_slug", "tenants", ["slug"], unique=True, if_not_exists=True)
    # The first row has the number 1.
    op.execute(
        "INSERT INTO tenants (slug, name) VALUES ('default', 'the default tenant') ON CONFLICT DO NOTHING"
    )
    op.add_column("dead_letters", _tenant(), if_not_exists=True)
    op.add_column("audit_events", sa.Column("tenant_id", sa.Integer()), if_not_exists=True)
    # A partitioned table's cannot be made concurrently.
    op.create_index(
        "audit_events_by_tenant",
        "audit_events",
        ["tenant_id", "id"],
        postgresql_where=sa.text("tenant_id IS NOT NULL"),
        if_not_exists=True,
    )
    with op.get_context().autocommit_block():
        _bound_lengths(_LONGEST_MARK, " NOT VALID")
        for table, _, name, _ in _LENGTHS:
            # Looks at each row, while others write.
            op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")
        op.execute(
            "ALTER TABLE jobs ADD COLUMN IF NOT EXISTS tenant_id int NOT NULL DEFAULT 1, ADD COLUMN IF NOT EXISTS submitted_by int"
        )
        # A day that is made from here on has its index.
        op.execute(make_history(""))
        _index("dead_letters_by_tenant", "dead_letters", ["tenant_id", "id"], _OTHERS)
        _index(
            "jobs_tenant_waiting", "jobs_living", ["queue", "tenant_id"], f"status = 'queued' AND {_OTHERS}"
        )
        for table, name in (
            {"jobs_living": "jobs_by_tenant"} | {day: f"{day}_by_tenant" for day in _days()}
        ).items():
            _index(name, table, ["tenant_id", "id"], _OTHERS)


def _tenant() -> sa.Column[int]:
    return sa.Column("tenant_id", sa.Integer(), server_default=sa.text("1"), nullable=False)


def downgrade() -> None:
    """Takes this change back: what other tenants had is for all to see, so their keys are revoked; the indexes go with the columns."""
    op.execute("UPDATE access_keys SET revoked_at = coalesce(revoked_at, now()) WHERE tenant_id <> 1")
    op.execute(_MAKE.format(more=""))
    op.drop_column("jobs", "submitted_by")
    op.drop_column("jobs", "tenant_id")
    op.drop_column("audit_events", "tenant_id")
    op.drop_column("dead_letters", "tenant_id")
    op.drop_table("tenants")
    for table, column in (("idempotency_keys", "key"), ("unique_keys", "key")):
        op.execute(f"DELETE FROM {table} WHERE {column} LIKE chr(31) || '%'")  # noqa: S608 - names of our own
    op.execute("UPDATE jobs_living SET idempotency_key = NULL WHERE idempotency_key LIKE chr(31) || '%'")
    _bound_lengths(0)
