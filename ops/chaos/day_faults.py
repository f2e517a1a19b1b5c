"""Faults of history's days: one ends under load, the next one is missing, an old one is dropped while its jobs are read."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import psycopg2
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError

from ops.chaos.stage import Broken, Stage
from ops.stack import postgres
from webapp.jobs import history
from webapp.jobs.history import Period

#: How long a day lasts while days pass, seconds, and how many do.
DAY_SECONDS, DAYS = 1.5, 4
#: Jobs of the day that is dropped, and how old it is.
OLD_JOBS, OLD = 20_000, timedelta(days=40)
#: Longest that dropping it may take, seconds, with readers that come and go.
DROP_PATIENCE = 20.0

#: The partition in which jobs end now, and its bounds.
_TODAY = """
SELECT name, lower, upper FROM (
    SELECT child.oid::regclass::text AS name, (bounds)[1]::timestamptz AS lower, (bounds)[2]::timestamptz AS upper
      FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid,
           LATERAL regexp_match(pg_get_expr(child.relpartbound, child.oid), 'FROM \\(''(.*?)''\\) TO \\(''(.*?)''\\)') AS bounds
     WHERE inhparent = 'jobs'::regclass AND bounds IS NOT NULL) AS periods
 WHERE lower <= now() AND now() < upper"""


def midnights(stage: Stage) -> None:
    """A day ends and the next one begins, a few times: jobs that began on one day end on the other."""
    with stage.fault(f"a day of history ends every {DAY_SECONDS:g} s, {DAYS} times"):
        _cut(stage, [DAY_SECONDS * (number + 1) for number in range(DAYS)])
        stage.hold(DAY_SECONDS * (DAYS + 1))
    used = stage.system.rows("SELECT count(DISTINCT tableoid) FROM jobs WHERE finished_at IS NOT NULL")[0][0]
    if used < DAYS:
        raise Broken(f"jobs ended on {used} days only")


def missing_day(stage: Stage) -> None:
    """Today's partition ends and there is no other for a while: jobs end all the same."""
    with stage.fault("the day has no partition for 4 s"):
        _cut(stage, [1.0, 5.0], missing=1)
        stage.hold(6)
    there = "SELECT count(*) FROM jobs_living WHERE finished_at IS NOT NULL"
    if not stage.system.rows(there)[0][0]:
        raise Broken("no job has ended where there was no day for it")


def drop_read_day(stage: Stage) -> None:
    """An old day is dropped while lists and long reports read it."""
    first = (datetime.now(UTC) - OLD).date()
    period = Period(first, first + timedelta(days=1))
    stage.system.rows(f"SELECT djps_make_history('{period.name}', '{period.first}', '{period.end}')")
    stage.system.rows(
        "INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint, status, attempt, last_attempt_at,"
        " finished_at, ended_by) SELECT gen_random_uuid(), 'noop', '{}', 'default', 0, 1, '', 'completed', 1, moment, moment, 'w'"
        " FROM generate_series(1, %s), LATERAL (SELECT %s::timestamptz + interval '1 hour') AS days(moment)",
        OLD_JOBS,
        str(period.first),
    )
    over = threading.Event()
    readers = [threading.Thread(target=_read, args=(stage, over)) for _ in range(3)]
    engine = create_engine(postgres.url(stage.system.postgres_port))
    with stage.fault("an old day is dropped while it is read"):
        for reader in readers:
            reader.start()
        stage.hold(0.5)
        try:
            stage.await_that(lambda: _taken_off(engine, period), DROP_PATIENCE, "an old day to be dropped")
            history.drop(engine, f"{period.name}_gone")
        finally:
            over.set()
            for reader in readers:
                reader.join(10)
            engine.dispose()


def _taken_off(engine: object, period: Period) -> bool:
    """True once the partition is no part of the table; a lock that is not had in time is asked for again."""
    try:
        history.take_off(engine, period)  # type: ignore[arg-type] # an Engine
    except DBAPIError:
        return False
    return True


def _read(stage: Stage, over: threading.Event) -> None:
    """Counts all jobs again and again, and stays in the transaction for a moment."""
    while not over.is_set():
        with (
            psycopg2.connect(postgres.url(stage.system.postgres_port).replace("+psycopg2", "")) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT count(*) FROM jobs")
            time.sleep(0.2)
        connection.close()
        time.sleep(0.1)


def _cut(stage: Stage, ends: list[float], missing: int | None = None) -> None:
    """Has today's partition end a moment from now, and others follow it until it would have ended.

    Args:
        ends: seconds from now at which one ends and the next begins.
        missing: the one that is not made, counted from 1.
    """
    ((name, lower, upper),) = stage.system.rows(_TODAY)
    now = datetime.now(UTC)
    marks = [*(now + timedelta(seconds=seconds) for seconds in ends), upper]
    statements = [
        "SET lock_timeout = '5s'",
        f"ALTER TABLE jobs DETACH PARTITION {name}",
        f"ALTER TABLE jobs ATTACH PARTITION {name} FOR VALUES FROM ('{lower}') TO ('{marks[0]}')",
    ]
    for number, (begin, end) in enumerate(pairwise(marks), start=1):
        if number != missing:
            statements.append(f"SELECT djps_make_history('jobs_cut_{begin:%H%M%S%f}', '{begin}', '{end}')")
    stage.system.rows("; ".join(statements))
