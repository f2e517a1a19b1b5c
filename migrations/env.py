"""Runs migrations with the application's engine and metadata, one transaction for each that does not commit by itself."""

from __future__ import annotations

import logging
import re

from alembic import context
from flask import current_app

import webapp.access.tables
import webapp.audit.tables
import webapp.batches.tables
import webapp.dead_letters.tables
import webapp.flow.tables
import webapp.groups.tables
import webapp.jobs.known_tables
import webapp.schedules.tables
import webapp.system.tables
import webapp.workflows.tables  # noqa: F401 - their tables are part of the metadata
from webapp.jobs.tables import Base

logger = logging.getLogger("alembic.env")

#: Longest a migration waits for a lock before it gives up, so that it never blocks production: milliseconds.
LOCK_TIMEOUT_MS = 5_000
#: The tables of history's days and of the record's months.
PARTITION = re.compile(r"jobs_\d{8}|audit_events_(\d{6}|rest)")

migrate = current_app.extensions["migrate"]
database = migrate.db


def is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """True for what the models name; partitions are made as time goes on."""
    return kind != "table" or name is None or PARTITION.fullmatch(name) is None


def run() -> None:
    """Brings the connected database up or down."""
    with database.engine.connect() as connection:
        connection.exec_driver_sql(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
        connection.exec_driver_sql("SET statement_timeout = 0")
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            transaction_per_migration=True,
            include_name=is_ours,
            **migrate.configure_args,
        )
        with context.begin_transaction():
            context.run_migrations()


def write_sql() -> None:
    """Prints the SQL instead of running it (`flask db upgrade --sql`)."""
    context.configure(
        url=current_app.config["SQLALCHEMY_DATABASE_URI"],
        target_metadata=Base.metadata,
        literal_binds=True,
        **migrate.configure_args,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    write_sql()
else:
    run()
