"""Open dead letters are counted where they come and go, and each host leaves a sample of what it did every ten seconds.

Triggers note how many letters of a group were opened or closed, in the transaction that does it, whatever statement that is. What is there
already is noted by one statement, which may be run at any time: what is counted, and what is noted and not counted yet, is taken from it in
the same snapshot.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

BLOCKS = "what is noted is a row for each group of alike letters, which are few; reading the letters locks none of them"
CONTRACT = "the index that is dropped is what an interrupted run of this migration left behind; no ON CONFLICT names it"

_OPEN = "requeued_at IS NULL AND discarded_at IS NULL"
#: What makes letters alike is their tenant, task, queue, error and fingerprint. A letter of an early release has no task or queue: an empty
#: text stands for that.
_CAME = """
    CREATE OR REPLACE FUNCTION djps_note_new_letters() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO letter_notes (tenant_id, task, queue, error_type, fingerprint, opened, closed)
        SELECT tenant_id, coalesce(task, ''), coalesce(queue, ''), coalesce(error_type, ''), fingerprint, count(*), 0 FROM came WHERE requeued_at IS NULL AND discarded_at IS NULL GROUP BY 1, 2, 3, 4, 5;
        RETURN NULL;
    END $$"""
_CHANGED = """
    CREATE OR REPLACE FUNCTION djps_note_changed_letters() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO letter_notes (tenant_id, task, queue, error_type, fingerprint, opened, closed)
        SELECT tenant_id, coalesce(task, ''), coalesce(queue, ''), coalesce(error_type, ''), fingerprint, count(*) FILTER (WHERE step > 0), count(*) FILTER (WHERE step < 0)
          FROM (SELECT now_is.*, (now_is.requeued_at IS NULL AND now_is.discarded_at IS NULL)::int
                               - (was.requeued_at IS NULL AND was.discarded_at IS NULL)::int AS step
                  FROM now_is JOIN was ON was.id = now_is.id) AS steps
         WHERE step <> 0 GROUP BY 1, 2, 3, 4, 5;
        RETURN NULL;
    END $$"""
_LEFT = """
    CREATE OR REPLACE FUNCTION djps_note_gone_letters() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO letter_notes (tenant_id, task, queue, error_type, fingerprint, opened, closed)
        SELECT tenant_id, coalesce(task, ''), coalesce(queue, ''), coalesce(error_type, ''), fingerprint, 0, count(*) FROM gone WHERE requeued_at IS NULL AND discarded_at IS NULL GROUP BY 1, 2, 3, 4, 5;
        RETURN NULL;
    END $$"""
_TRIGGERS = {
    "letters_came": ("INSERT", "NEW TABLE AS came", "djps_note_new_letters"),
    "letters_changed": ("UPDATE", "OLD TABLE AS was NEW TABLE AS now_is", "djps_note_changed_letters"),
    "letters_left": ("DELETE", "OLD TABLE AS gone", "djps_note_gone_letters"),
}
#: What is there and not counted; the same as `webapp/dead_letters/sql/tallies.sql: recount`. It is no event of now, so it has no time.
_RECOUNT = """
    INSERT INTO letter_notes (tenant_id, task, queue, error_type, fingerprint, opened, closed, at)
    SELECT tenant_id, task, queue, error_type, fingerprint, greatest(sum(n), 0), greatest(-sum(n), 0), NULL
      FROM (SELECT tenant_id, coalesce(task, '') AS task, coalesce(queue, '') AS queue, coalesce(error_type, '') AS error_type,
                   fingerprint, 1 AS n
              FROM dead_letters WHERE requeued_at IS NULL AND discarded_at IS NULL
             UNION ALL SELECT tenant_id, task, queue, error_type, fingerprint, closed - opened FROM letter_notes
             UNION ALL SELECT tenant_id, task, queue, error_type, fingerprint, -open FROM letter_groups) AS figures
     GROUP BY 1, 2, 3, 4, 5 HAVING sum(n) <> 0"""


def upgrade() -> None:
    """Applies this change while jobs die and are requeued; may be run again after it was interrupted."""
    op.execute("""
        CREATE TABLE IF NOT EXISTS letter_groups (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            tenant_id int NOT NULL, task text NOT NULL, queue text NOT NULL, error_type text NOT NULL, fingerprint text NOT NULL,
            open bigint NOT NULL DEFAULT 0,
            CONSTRAINT letter_groups_of UNIQUE (fingerprint, task, queue, error_type, tenant_id))
        WITH (fillfactor = 70)""")
    op.execute("""
        CREATE TABLE IF NOT EXISTS letter_notes (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            tenant_id int NOT NULL, task text NOT NULL, queue text NOT NULL, error_type text NOT NULL, fingerprint text NOT NULL,
            opened bigint NOT NULL, closed bigint NOT NULL, at timestamptz DEFAULT now())
        WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 10000)""")
    op.execute("""
        CREATE TABLE IF NOT EXISTS letter_hours (
            group_id bigint NOT NULL, hour timestamptz NOT NULL, opened bigint NOT NULL DEFAULT 0, closed bigint NOT NULL DEFAULT 0,
            PRIMARY KEY (group_id, hour))""")
    op.execute("CREATE INDEX IF NOT EXISTS letter_hours_by_hour ON letter_hours (hour)")
    op.execute("""
        CREATE TABLE IF NOT EXISTS samples (
            span int NOT NULL, at timestamptz NOT NULL, host text NOT NULL, figures jsonb NOT NULL,
            PRIMARY KEY (span, at, host), CONSTRAINT samples_span_known CHECK (span IN (10, 60, 3600)))""")
    for function in (_CAME, _CHANGED, _LEFT):
        op.execute(function)
    for name, (event, tables, function) in _TRIGGERS.items():
        # It waits for who writes letters at the moment, so that all who do from here on leave notes.
        op.execute(f"""
            CREATE OR REPLACE TRIGGER {name} AFTER {event} ON dead_letters REFERENCING {tables}
            FOR EACH STATEMENT EXECUTE FUNCTION {function}()""")
    with op.get_context().autocommit_block():
        op.drop_index("dead_letters_of_group", "dead_letters", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            "dead_letters_of_group",
            "dead_letters",
            ["fingerprint", sa.text("coalesce(task, '')"), sa.text("coalesce(queue, '')"), "id"],
            postgresql_where=sa.text(_OPEN),
            postgresql_concurrently=True,
        )
        op.execute(_RECOUNT)


def downgrade() -> None:
    """Takes this change back: the letters stay, and are counted one by one again."""
    for name in _TRIGGERS:
        op.execute(f"DROP TRIGGER {name} ON dead_letters")
    for function in ("new", "changed", "gone"):
        op.execute(f"DROP FUNCTION djps_note_{function}_letters")
    op.drop_index("dead_letters_of_group", "dead_letters")
    for table in ("samples", "letter_hours", "letter_notes", "letter_groups"):
        op.drop_table(table)
