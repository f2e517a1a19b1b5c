"""Faults of PostgreSQL: down, cutting connections, slow, deadlocked, read-only, locked."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2

from ops.chaos import schema
from ops.chaos.stage import Fault, Stage
from ops.stack import postgres


def database_down(seconds: float, *, immediate: bool = False) -> Fault:
    """PostgreSQL is stopped, and back after a while."""

    def inject(stage: Stage) -> None:
        with stage.fault(f"PostgreSQL down for {seconds:g} s"):
            stage.system.stop("postgres", signal.SIGQUIT if immediate else signal.SIGINT)
            stage.hold(seconds)
            stage.system.start("postgres")
            postgres.wait_and_create(stage.system.postgres_port)

    return inject


def terminate_backends(stage: Stage) -> None:
    """The server ends connections, whatever they are doing."""
    with stage.fault("connections ended at random for 5 s"):
        end = time.monotonic() + 5
        while time.monotonic() < end:
            stage.system.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'djps-%%' AND random() < %s",
                stage.rng.uniform(0.1, 0.5),
            )
            stage.hold(0.2)


def database_slow(stage: Stage) -> None:
    """Every statement that writes a job takes longer."""
    with stage.fault("slow statements for 6 s"), slow_statements(stage):
        stage.hold(6)


@contextmanager
def slow_statements(stage: Stage) -> Iterator[None]:
    """Every statement that writes a job takes longer, for the time of a block."""
    change_table(stage, schema.SLOW_ON)
    try:
        yield
    finally:
        change_table(stage, schema.SLOW_OFF)


def database_deadlocks(stage: Stage) -> None:
    """Statements fail as they would in a deadlock."""
    with stage.fault("deadlocks for 6 s"):
        change_table(stage, schema.DEADLOCKS_ON)
        stage.hold(6)
        change_table(stage, schema.DEADLOCKS_OFF)


def database_read_only(seconds: float) -> Fault:
    """Connections end, and new ones reach a server that takes no writes, as after a failover to the wrong side.

    Sessions that began meanwhile stay read-only when it is over: they have to be replaced.
    """

    def inject(stage: Stage) -> None:
        with stage.fault(f"PostgreSQL read-only for {seconds:g} s"):
            _change_default(stage, "SET default_transaction_read_only = on")
            stage.system.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'djps-%%'"
            )
            stage.hold(seconds)
            _change_default(stage, "RESET default_transaction_read_only")

    return inject


def _change_default(stage: Stage, what: str) -> None:
    stage.system.rows(f"SET TRANSACTION READ WRITE; ALTER DATABASE {postgres.DATABASE} {what}")


def table_locked(seconds: float) -> Fault:
    """Another session holds the table of jobs for itself, as a careless migration would."""

    def inject(stage: Stage) -> None:
        with stage.fault(f"the table of jobs locked for {seconds:g} s"):
            stage.system.rows("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(%s)", seconds)

    return inject


def change_table(stage: Stage, sql: str) -> None:
    """DDL needs the table for itself for a moment; a busy system may win that race a few times."""
    for _ in range(20):
        try:
            stage.system.rows("SET lock_timeout = '2s'; " + sql)
        except psycopg2.OperationalError:
            stage.hold(0.2)
        else:
            return
    raise TimeoutError(f"the table could not be changed: {sql}")
