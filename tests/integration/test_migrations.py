from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import psycopg2
import pytest
from alembic.script import ScriptDirectory
from flask import Flask
from flask_migrate import check, downgrade, upgrade
from sqlalchemy import create_engine, inspect, make_url, text
from statements import read

FOLDER = Path(__file__).resolve().parents[2] / "migrations"
NAME = "djps_migrations"
TABLES = {
    *("jobs", "jobs_living", "job_attempts", "dead_letters", "idempotency_keys", "unique_keys"),
    *("queues", "task_limits", "key_limits", "flow_changes", "queue_looks"),
    *("lanes", "lane_turns", "lane_rates", "lane_wakeups"),
    *("tenants", "access_keys", "access_secrets", "access_state"),
    *("audit_events", "audit_events_rest", "audit_seals"),
    *("schedules", "schedule_versions", "firings"),
    "workflow_steps",
    *("known_handlers", "submission_rules", "uncounted_jobs", "job_logs"),
    *("groups", "group_ends", "batch_parts"),
    *("letter_groups", "letter_notes", "letter_hours", "samples"),
}


@pytest.fixture
def scripts():
    return ScriptDirectory(str(FOLDER))


@pytest.fixture
def fresh(another_app, settings) -> Iterator[Flask]:
    """An application over a database of its own that is empty."""
    server = create_engine(settings.database_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {NAME}"))
    url = make_url(settings.database_url).set(database=NAME).render_as_string(hide_password=False)
    app = another_app(database_url=url)
    with app.app_context():
        yield app
        app.extensions["sqlalchemy"].engine.dispose()
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE {NAME} WITH (FORCE)"))
    server.dispose()


def shape(app):
    """All that a migration makes: columns, constraints and indexes, as PostgreSQL describes them."""
    statement = text("""
        SELECT 'column', table_name::text, column_name::text, data_type || is_nullable || coalesce(column_default, '')
          FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT 'constraint', conrelid::regclass::text, conname::text, pg_get_constraintdef(oid)
          FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT 'index', tablename::text, indexname::text, indexdef FROM pg_indexes
         WHERE schemaname = 'public' ORDER BY 1, 2, 3, 4""")
    with app.extensions["sqlalchemy"].engine.connect() as connection:
        return [tuple(row) for row in connection.execute(statement) if row[1] != "alembic_version"]


def tables(app):
    names = inspect(app.extensions["sqlalchemy"].engine).get_table_names()
    return {name for name in names if not re.fullmatch(r"jobs_\d{8}|audit_events_\d{6}", name)} - {
        "alembic_version"
    }


def test_there_is_one_head_and_the_way_to_it_is_a_line(scripts):
    assert len(scripts.get_heads()) == 1
    revisions = list(scripts.walk_revisions())
    assert all(not isinstance(revision.down_revision, tuple) for revision in revisions)
    assert [revision.revision for revision in reversed(revisions)] == [
        f"{number:04}" for number in range(1, len(revisions) + 1)
    ]


def test_every_file_is_named_by_its_number_and_what_it_does():
    files = sorted(path.name for path in (FOLDER / "versions").glob("*.py"))
    assert files
    for number, name in enumerate(files, start=1):
        assert re.fullmatch(rf"{number:04}_[a-z0-9_]+\.py", name)


def test_up_down_and_up_again_makes_the_same_tables(fresh):
    upgrade()
    first = shape(fresh)
    assert tables(fresh) == TABLES
    downgrade(revision="base")
    assert shape(fresh) == []
    upgrade()
    assert shape(fresh) == first


def test_each_step_can_be_taken_back(fresh, scripts):
    for revision in reversed(list(scripts.walk_revisions())):
        before = shape(fresh)
        upgrade(revision=revision.revision)
        downgrade(revision=revision.down_revision or "base")
        assert shape(fresh) == before
        upgrade(revision=revision.revision)


def test_an_index_that_an_interrupted_upgrade_left_behind_is_made_anew(fresh):
    upgrade()
    whole = shape(fresh)
    downgrade(revision="0007")
    with fresh.extensions["sqlalchemy"].engine.begin() as connection:
        connection.execute(text("CREATE INDEX jobs_finished_by_task ON jobs (id)"))
    upgrade()
    assert shape(fresh) == whole


def test_an_upgrade_that_is_done_changes_nothing(fresh):
    upgrade()
    before = shape(fresh)
    upgrade()
    assert shape(fresh) == before


def test_the_models_are_what_the_migrations_make(fresh):
    upgrade()
    # Ends the process with a message when the models have moved on.
    check()


def test_checks_and_indexes_of_the_models_are_in_the_database(fresh):
    """`alembic check` compares neither CHECK constraints nor the conditions of partial indexes."""
    upgrade()
    metadata = fresh.extensions["migrate"].db.metadata
    made = shape(fresh)
    for table in metadata.tables.values():
        checks = {
            str(constraint.name)
            for constraint in table.constraints
            if str(constraint.name).startswith(table.name)
        }
        assert checks <= {name for kind, of, name, _ in made if (kind, of) == ("constraint", table.name)}
        partial = {str(i.name) for i in table.indexes if i.dialect_options["postgresql"]["where"] is not None}
        assert partial == {
            name for kind, of, name, how in made if (kind, of) == ("index", table.name) and " WHERE " in how
        }


def test_the_statements_can_be_printed_instead_of_run(fresh, capsys):
    upgrade(sql=True)
    printed = capsys.readouterr().out
    assert "CREATE TABLE jobs" in printed
    assert tables(fresh) == set()


_KEYED = text("""
    INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint, idempotency_key, created_at)
    VALUES (:id, 'noop', '{}', 'default', 3, 300, 'f', :key, now() - make_interval(hours => :hours))""")


def test_keys_of_the_last_day_are_taken_over_and_given_back(fresh):
    upgrade(revision="0004")
    engine = fresh.extensions["sqlalchemy"].engine
    young, old, newest = UUID(int=1), UUID(int=2), UUID(int=3)
    with engine.begin() as connection:
        connection.execute(_KEYED, {"id": young, "key": "young", "hours": 23})
        connection.execute(_KEYED, {"id": old, "key": "old", "hours": 25})
    upgrade(revision="0005")
    with engine.begin() as connection:
        kept = connection.execute(
            text("SELECT key, job_id, expires_at - created_at FROM idempotency_keys")
        ).all()
        connection.execute(_KEYED, {"id": newest, "key": "old", "hours": 0})
    assert [tuple(row) for row in kept] == [("young", young, timedelta(days=1))]
    downgrade(revision="0004")
    with engine.connect() as connection:
        keys = {row[0]: row[1] for row in connection.execute(text("SELECT id, idempotency_key FROM jobs"))}
    assert keys == {young: "young", old: None, newest: "old"}


#: What each earlier release says to PostgreSQL.
RELEASES = sorted((FOLDER.parent / "tests" / "contracts" / "statements").glob("*.jsonl"))


class Traffic:
    """Threads that run the statements of a release, each taken back at once, and note what went wrong."""

    def __init__(self, url, told, threads=3):
        self.dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self.told, self.over = told, threading.Event()
        self.failed, self.count, self.longest = [], 0, 0.0
        self.threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]

    def _run(self, number):
        connection = psycopg2.connect(self.dsn, options="-c lock_timeout=2000 -c statement_timeout=10000")
        with connection.cursor() as cursor:
            for one in itertools.islice(itertools.cycle(self.told), number * 30, None):
                if self.over.is_set():
                    break
                began = time.monotonic()
                try:
                    cursor.execute(one["sql"])
                except psycopg2.Error as error:
                    self.failed.append((one["sql"][:100], repr(error)))
                connection.rollback()
                self.count += 1
                self.longest = max(self.longest, time.monotonic() - began)
        connection.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(20)


def test_a_migration_goes_in_while_the_release_before_it_works(fresh, scripts, eventually):
    head, release = scripts.get_current_head(), RELEASES[-1]
    # Right after a release there is nothing newer yet: then its own last step is the rehearsal.
    before = release.stem if release.stem != head else scripts.get_revision(head).down_revision
    upgrade(revision=before)
    url = fresh.config["SQLALCHEMY_DATABASE_URI"]
    # A slice of a search gives up by itself after 0.3 s, and is tried again with less.
    told = [one for one in read(release) if "SET LOCAL statement_timeout" not in one["sql"]]
    with Traffic(url, told) as traffic:
        eventually(lambda: traffic.count > 300)
        upgrade()
        seen = traffic.count
        eventually(lambda: traffic.count > seen + 300)
    assert traffic.failed == []
    assert traffic.longest < 2
