"""The record of acts: who changed what, when and why. Rows are only added; months are partitions. Only adds.

A process of the release before does its acts without a line.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from webapp.audit.tables import Xid8

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def _text(name: str, *, nullable: bool = True) -> sa.Column:
    return sa.Column(name, sa.Text(), nullable=nullable)


def upgrade() -> None:
    """Applies this change."""
    op.create_table(
        "audit_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("xid", Xid8(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        _text("event", nullable=False),
        sa.Column("success", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        *(_text(name, nullable=False) for name in ("actor_kind", "actor_id", "actor_name")),
        *map(_text, ("address", "request_id", "target_kind", "target_id")),
        *(sa.Column(name, sa.Integer()) for name in ("matched", "changed")),
        _text("reason"),
        sa.Column("details", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.PrimaryKeyConstraint("id", "at"),
        postgresql_partition_by="RANGE (at)",
    )
    for column in ("event", "actor", "target"):
        name = column if column == "event" else f"{column}_id"
        op.create_index(f"audit_events_by_{column}", "audit_events", [name, "id"])
    op.execute("""
        CREATE FUNCTION djps_keep_audit() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'the record of acts is only added to: % of % is refused', TG_OP, TG_TABLE_NAME
                  USING ERRCODE = 'insufficient_privilege';
        END $$""")
    # A row's trigger is one of each partition as well; a TRUNCATE's is not.
    op.execute("""
        CREATE TRIGGER audit_events_kept BEFORE UPDATE OR DELETE ON audit_events
        FOR EACH ROW EXECUTE FUNCTION djps_keep_audit()""")
    op.execute("""
        CREATE TRIGGER audit_events_not_emptied BEFORE TRUNCATE ON audit_events
        FOR EACH STATEMENT EXECUTE FUNCTION djps_keep_audit()""")
    op.execute("""
        CREATE FUNCTION djps_make_audit_month(name text, since timestamptz, until timestamptz) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            EXECUTE format('CREATE TABLE %I PARTITION OF audit_events FOR VALUES FROM (%L) TO (%L)', name, since, until);
            EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION djps_keep_audit()',
                           name || '_not_emptied', name);
        END $$""")
    op.execute("""
        CREATE FUNCTION djps_renew_audit_rest() RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            DROP TABLE IF EXISTS audit_events_rest;
            CREATE TABLE audit_events_rest PARTITION OF audit_events DEFAULT;
            CREATE TRIGGER audit_events_rest_not_emptied BEFORE TRUNCATE ON audit_events_rest
            FOR EACH STATEMENT EXECUTE FUNCTION djps_keep_audit();
        END $$""")
    op.execute("SELECT djps_renew_audit_rest()")
    # The sweep `keep_history` makes those that follow.
    op.execute("""
        SELECT djps_make_audit_month('audit_events_' || to_char(month, 'YYYYMM'), month AT TIME ZONE 'UTC',
                                     (month + interval '1 month') AT TIME ZONE 'UTC')
          FROM generate_series(0, 2) AS number,
               LATERAL (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => number)) AS months(month)""")


def downgrade() -> None:
    """Takes this change back: the record is gone."""
    op.drop_table("audit_events")
    for function in ("djps_renew_audit_rest", "djps_make_audit_month", "djps_keep_audit"):
        op.execute(f"DROP FUNCTION {function}")
