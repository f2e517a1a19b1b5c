"""Jobs may belong to a group, a batch or a workflow, and the end of such a job is noted in the transaction that ends it.

Triggers write the notes, so no way to end a job can forget them, those of the release before included. A job's row moves at its end:
it is an INSERT where it goes, and a DELETE from its day when it is queued again. Jobs without a group pay a look at one more column
in triggers that were there before.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

CONTRACT = "the indexes that are dropped are what an interrupted run of this migration left behind; no ON CONFLICT names them"

_DAYS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'jobs'::regclass AND inhrelid <> 'jobs_living'::regclass"
_MEMBERS = "group_id IS NOT NULL"
_BY_GROUP = """
            EXECUTE format('CREATE INDEX %I ON %I (group_id, id) WHERE group_id IS NOT NULL', name || '_by_group', name);
            EXECUTE format('CREATE TRIGGER jobs_returned AFTER DELETE ON %I
                FOR EACH ROW WHEN (OLD.group_id IS NOT NULL) EXECUTE FUNCTION djps_note_return()', name);"""
#: On the tables of days alone: the statements that end jobs, which delete them from among the living, have no such trigger to open.
_RETURNED = """
    CREATE OR REPLACE TRIGGER jobs_returned AFTER DELETE ON {day}
    FOR EACH ROW WHEN (OLD.group_id IS NOT NULL) EXECUTE FUNCTION djps_note_return()"""

#: The release before locks the partition and the whole in one order or the other, so the locks are asked for together, and again: held
#: while another one is waited for, they would end as a deadlock.
_LOCK = """
    DO $$ BEGIN
        FOR number IN 1..100 LOOP
            BEGIN
                SET LOCAL lock_timeout = '100ms';
                LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE;
                SET LOCAL lock_timeout = '5s';
                RETURN;
            EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
                PERFORM pg_sleep(0.1 * random());
            END;
        END LOOP;
        RAISE EXCEPTION 'jobs could not be locked: a long transaction holds it' USING ERRCODE = 'lock_not_available';
    END $$"""
#: A row that stays where it is: in the partition of the living, or there because its day has no table.
_STAYED = """
    CREATE OR REPLACE FUNCTION djps_tell_of_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.watched THEN
            PERFORM pg_notify('djps_watched', NEW.id::text);
        END IF;
        IF NEW.group_id IS NOT NULL AND (OLD.finished_at IS NULL) <> (NEW.finished_at IS NULL) THEN
            INSERT INTO group_ends (group_id, member_id, was, became)
            VALUES (NEW.group_id, NEW.id, CASE WHEN OLD.finished_at IS NOT NULL THEN OLD.status END,
                    CASE WHEN NEW.finished_at IS NOT NULL THEN NEW.status END);
        END IF;
        RETURN NULL;
    END $$"""
_CAME = """
    CREATE OR REPLACE FUNCTION djps_tell_of_arrival() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.watched THEN
            PERFORM pg_notify('djps_watched', NEW.id::text);
        END IF;
        IF NEW.group_id IS NOT NULL AND NEW.finished_at IS NOT NULL THEN
            INSERT INTO group_ends (group_id, member_id, was, became) VALUES (NEW.group_id, NEW.id, NULL, NEW.status);
        END IF;
        RETURN NULL;
    END $$"""
#: A job that is queued again is among the living by now; one that is deleted for its age is not, and is no end to be taken back.
_LEFT = """
    CREATE OR REPLACE FUNCTION djps_note_return() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO group_ends (group_id, member_id, was, became)
        SELECT OLD.group_id, OLD.id, OLD.status, NULL WHERE EXISTS (SELECT FROM jobs_living WHERE id = OLD.id);
        RETURN NULL;
    END $$"""
_GROUP_CHANGED = """
    CREATE OR REPLACE FUNCTION djps_note_group() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO group_ends (group_id, member_id, was, became)
        VALUES (NEW.parent_id, NEW.id, CASE WHEN OLD.finished_at IS NOT NULL THEN OLD.status END,
                CASE WHEN NEW.finished_at IS NOT NULL THEN NEW.status END);
        RETURN NULL;
    END $$"""


def _days() -> list[str]:
    """The partitions that there are; none where the SQL is only printed."""
    if context.is_offline_mode():
        return []
    return list(op.get_bind().execute(sa.text(_DAYS)).scalars())


def _make_history(more: str) -> str:
    before = op.get_context().opts["script"].get_revision("0029").module
    return before.make_history(more)  # type: ignore[no-any-return] # a module of alembic's


def upgrade() -> None:
    """Applies this change while jobs are submitted and run; may be run again after it was interrupted."""
    op.execute("""
        CREATE TABLE IF NOT EXISTS groups (
            id uuid PRIMARY KEY, kind text NOT NULL, name text, status text NOT NULL,
            tenant_id int NOT NULL DEFAULT 1, submitted_by int, request_id text, traceparent text, parent_id uuid,
            total bigint NOT NULL DEFAULT 0, completed bigint NOT NULL DEFAULT 0, failed bigint NOT NULL DEFAULT 0,
            cancelled bigint NOT NULL DEFAULT 0, skipped bigint NOT NULL DEFAULT 0,
            options jsonb NOT NULL DEFAULT '{}', complete_job_id uuid, success_job_id uuid, failure_job_id uuid,
            callback_url text, callback_job_id uuid, idempotency_key text, fingerprint bytea,
            deadline timestamptz, cancel_requested_at timestamptz, cancel_reason text, watched boolean NOT NULL DEFAULT false,
            created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
            closed_at timestamptz, finished_at timestamptz,
            CONSTRAINT groups_kind_known CHECK (kind IN ('batch', 'workflow')),
            CONSTRAINT groups_counts CHECK (completed >= 0 AND failed >= 0 AND cancelled >= 0 AND skipped >= 0
                                            AND completed + failed + cancelled + skipped <= total))
        WITH (fillfactor = 50)""")
    # No counter is in an index, so that a count is written beside the row's last version.
    op.execute(
        "CREATE INDEX IF NOT EXISTS groups_by_parent ON groups (parent_id, id) WHERE parent_id IS NOT NULL"
    )
    op.execute("CREATE INDEX IF NOT EXISTS groups_by_tenant ON groups (tenant_id, kind, id)")
    op.execute(
        "CREATE UNIQUE INDEX IF NOT EXISTS groups_by_idempotency_key ON groups (kind, idempotency_key) WHERE idempotency_key IS NOT NULL"
    )
    op.execute(
        "CREATE INDEX IF NOT EXISTS groups_finished ON groups (finished_at) WHERE finished_at IS NOT NULL"
    )
    op.execute("CREATE INDEX IF NOT EXISTS groups_unfinished ON groups (kind, id) WHERE finished_at IS NULL")
    op.execute("""
        CREATE TABLE IF NOT EXISTS group_ends (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            group_id uuid NOT NULL, member_id uuid NOT NULL, was text, became text)
        WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 10000)""")
    op.execute("CREATE INDEX IF NOT EXISTS group_ends_by_group ON group_ends (group_id)")
    for function in (_STAYED, _CAME, _LEFT, _GROUP_CHANGED):
        op.execute(function)
    op.execute("""
        CREATE OR REPLACE TRIGGER groups_ended AFTER UPDATE OF finished_at ON groups
        FOR EACH ROW WHEN (NEW.parent_id IS NOT NULL AND (OLD.finished_at IS NULL) <> (NEW.finished_at IS NULL))
        EXECUTE FUNCTION djps_note_group()""")
    op.execute("""
        CREATE OR REPLACE TRIGGER groups_watched AFTER UPDATE ON groups
        FOR EACH ROW WHEN (NEW.watched) EXECUTE FUNCTION djps_tell_watchers()""")
    op.execute(_LOCK)
    op.execute("ALTER TABLE jobs ADD COLUMN IF NOT EXISTS group_id uuid")
    _replace_triggers()
    # A day that is made from here on has its index.
    op.execute(_make_history(_BY_GROUP))
    with op.get_context().autocommit_block():
        days = _days()
        for table, name in (
            {"jobs_living": "jobs_by_group"} | {day: f"{day}_by_group" for day in days}
        ).items():
            # What an interrupted run leaves behind is an index that is not valid.
            op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
            op.create_index(
                name,
                table,
                ["group_id", "id"],
                postgresql_where=sa.text(_MEMBERS),
                postgresql_concurrently=True,
            )
        for day in days:
            op.execute(_RETURNED.format(day=day))


def _replace_triggers() -> None:
    op.execute("DROP TRIGGER IF EXISTS jobs_watched ON jobs")
    op.execute("DROP TRIGGER IF EXISTS jobs_moved ON jobs")
    op.execute("""
        CREATE TRIGGER jobs_watched AFTER UPDATE OF status, progress ON jobs
        FOR EACH ROW WHEN (NEW.watched OR (NEW.group_id IS NOT NULL AND (OLD.finished_at IS NULL) <> (NEW.finished_at IS NULL)))
        EXECUTE FUNCTION djps_tell_of_change()""")
    op.execute("""
        CREATE TRIGGER jobs_moved AFTER INSERT ON jobs
        FOR EACH ROW WHEN (NEW.watched OR (NEW.group_id IS NOT NULL AND NEW.finished_at IS NOT NULL))
        EXECUTE FUNCTION djps_tell_of_arrival()""")


def downgrade() -> None:
    """Takes this change back: groups are gone, and their jobs stay as jobs of none; the indexes go with the column."""
    op.execute(_make_history(""))
    for name in ("jobs_watched", "jobs_moved"):
        op.execute(f"DROP TRIGGER {name} ON jobs")
    for day in _days():
        op.execute(f"DROP TRIGGER jobs_returned ON {day}")
    op.execute("""
        CREATE TRIGGER jobs_watched AFTER UPDATE OF status, progress ON jobs
        FOR EACH ROW WHEN (NEW.watched) EXECUTE FUNCTION djps_tell_watchers()""")
    op.execute("""
        CREATE TRIGGER jobs_moved AFTER INSERT ON jobs
        FOR EACH ROW WHEN (NEW.watched) EXECUTE FUNCTION djps_tell_watchers()""")
    op.drop_column("jobs", "group_id")
    op.drop_table("group_ends")
    op.drop_table("groups")
    for name in ("tell_of_change", "tell_of_arrival", "note_return", "note_group"):
        op.execute(f"DROP FUNCTION djps_{name}")
