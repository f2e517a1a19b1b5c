"""Old and new code run side by side: a migration only adds, or says why it may do more."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg2
import pytest
from alembic.script import ScriptDirectory
from expansion import BLOCKS, CONTRACTS, findings
from flask_migrate import upgrade
from sqlalchemy import Engine
from statements import read

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ScriptDirectory(str(ROOT / "migrations"))
REVISIONS = [one.revision for one in reversed(list(SCRIPTS.walk_revisions()))]
RELEASES = sorted((ROOT / "tests" / "contracts" / "statements").glob("*.jsonl"))


def script(revision, capsys):
    """The SQL of one migration's upgrade, as `flask db upgrade --sql` prints it."""
    before = SCRIPTS.get_revision(revision).down_revision or "base"
    capsys.readouterr()
    upgrade(revision=f"{before}:{revision}", sql=True)
    return capsys.readouterr().out


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize(("rules", "excuse"), [(CONTRACTS, "CONTRACT"), (BLOCKS, "BLOCKS")])
def test_a_migration_only_adds_and_keeps_no_one_waiting_or_says_why_it_may(
    application, capsys, revision, rules, excuse
):
    with application.app_context():
        found = findings(script(revision, capsys), rules)
    reason = getattr(SCRIPTS.get_revision(revision).module, excuse, None)
    if found:
        assert reason, f"{revision} needs {excuse} = 'why that does no harm': {found}"
    else:
        assert reason is None, f"{revision} has {excuse}, and does nothing that needs it"


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("ALTER TABLE jobs DROP COLUMN result;", "drops a column"),
        ("ALTER TABLE jobs RENAME result TO outcome;", "renames"),
        ("ALTER TABLE jobs ALTER COLUMN result SET NOT NULL;", "refuses NULL"),
        ("ALTER TABLE jobs ALTER COLUMN timeout TYPE INTEGER;", "changes a column's type"),
        ("ALTER TABLE jobs ADD COLUMN tenant TEXT NOT NULL;", "adds a column that must be given"),
        ("ALTER TABLE jobs ADD CONSTRAINT few CHECK (attempt < 9) NOT VALID;", "adds a rule"),
        ("CREATE UNIQUE INDEX CONCURRENTLY once ON jobs (task);", "adds a unique index"),
        ("DROP INDEX jobs_tags;", "drops an index, which an ON CONFLICT may name"),
        ("DROP TABLE pruned_jobs;", "drops a table"),
    ],
)
def test_what_earlier_code_may_break_on_is_found(sql, rule):
    assert [one.partition(":")[0] for one in findings(sql, CONTRACTS)] == [rule]


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("CREATE INDEX jobs_x ON jobs (task);", "builds an index while writers wait"),
        ("ALTER TABLE jobs ADD CONSTRAINT few CHECK (attempt < 9);", "checks every row while writers wait"),
        ("UPDATE jobs SET task = 'noop';", "rewrites rows in one transaction"),
        ("INSERT INTO old SELECT * FROM jobs;", "copies rows in one transaction"),
    ],
)
def test_what_keeps_writers_waiting_is_found(sql, rule):
    assert [one.partition(":")[0] for one in findings(sql, BLOCKS)] == [rule]


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE jobs ADD COLUMN tenant TEXT;",
        "ALTER TABLE jobs ADD COLUMN tenant TEXT DEFAULT 'us' NOT NULL;",
        "CREATE INDEX CONCURRENTLY jobs_x ON jobs (task);",
        "CREATE TABLE notes (id INT); CREATE UNIQUE INDEX one ON notes (id); ALTER TABLE notes ADD CONSTRAINT few CHECK (id < 9);",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE jobs SET x = 1; END $$;",
    ],
)
def test_what_only_adds_is_left_alone(sql):
    assert findings(sql, CONTRACTS) == findings(sql, BLOCKS) == []


def test_every_release_has_its_statements():
    assert RELEASES
    assert all(file.stem in REVISIONS for file in RELEASES)


@pytest.mark.parametrize("file", RELEASES, ids=lambda file: file.stem)
def test_the_schema_of_today_understands_what_an_earlier_release_says(engine: Engine, file):
    """Each statement is run for real, and taken back: an INSERT must not miss a column that has become required."""
    told = read(file)
    assert len(told) > 50
    refused = [one for one in told if _refusal(engine, one["sql"])]
    assert not refused, json.dumps([(one, _refusal(engine, one["sql"])) for one in refused], indent=1)


def test_a_schema_that_lost_a_column_is_noticed(engine: Engine):
    told = read(RELEASES[0])
    broken = "ALTER TABLE jobs DROP COLUMN run_at CASCADE"
    assert sum(_refusal(engine, one["sql"], broken) is not None for one in told) > 10


def _refusal(engine: Engine, sql: str, first: str = "SELECT 1") -> str | None:
    """Why PostgreSQL refuses a statement; None when it does not."""
    with engine.connect() as connection, connection.connection.cursor() as cursor:
        try:
            cursor.execute(first)
            cursor.execute(sql)
        except psycopg2.Error as error:
            return f"{type(error).__name__}: {error}"
        finally:
            connection.rollback()
    return None
