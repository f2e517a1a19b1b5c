"""Every SQL file of the product is one that PostgreSQL takes, and the statements of the hot path find what they need by an index."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from factories import new_job
from sqlalchemy import text
from uuid_utils.compat import uuid7

from webapp.flow.reach import EVERYTHING
from webapp.infra.postgres.engine import BY_INDEX, Statement
from webapp.infra.postgres.literals import array_of, text_array_of
from webapp.infra.postgres.sql_files import read_sql
from webapp.jobs import ends, insert, replacements, retention, store
from webapp.jobs.model import Claim
from webapp.queues import aside, tickets
from webapp.queues import store as queue_store

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "webapp").glob("**/sql/*.sql"))
_NAMED = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_PLACE = re.compile(r"(?<![:\w]):(\w+)(?!:)")
STATEMENTS = [(path, name) for path in FILES for name in _NAMED.findall(path.read_text()) or [""]]
CODE = "\n".join(path.read_text() for path in (ROOT / "webapp").rglob("*.py"))


def statement_of(path: Path, name: str) -> str:
    return read_sql(str(path.parents[1] / "any.py"), path.stem, name)


def is_text_of(path: Path) -> str:
    return f"{path.parents[1].name}/{path.stem}"


@pytest.mark.parametrize(("path", "name"), STATEMENTS, ids=lambda one: getattr(one, "stem", one))
def test_a_server_takes_every_statement(engine, path, name):
    given = statement_of(path, name)
    if given.startswith("ALTER TABLE"):
        pytest.skip("PostgreSQL prepares no change of the catalog; test_history.py runs it")
    if given.startswith("EXPLAIN"):
        given = given.split(") ", 1)[1]
    given = given.replace("jobs_yyyymmdd", "jobs_living")
    names = list(dict.fromkeys(_PLACE.findall(given)))
    numbered = _PLACE.sub(lambda found: f"${names.index(found[1]) + 1}", given)
    with engine.begin() as connection:
        raw = connection.connection.dbapi_connection.cursor()
        raw.execute(f"PREPARE tried AS {numbered}")
        raw.execute("DEALLOCATE tried")


@pytest.mark.parametrize("path", FILES, ids=is_text_of)
def test_a_file_begins_with_what_it_does(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith("-- ")
    assert not first.startswith("-- name:")
    written = [
        line
        for line in path.read_text().splitlines()
        if re.search(r"\b(UPDATE jobs|DELETE FROM|INSERT INTO)\b", line)
    ]
    head = path.read_text().split("\n\n", 1)[0]
    assert not written or {"Guard", "Locks"} <= set(re.findall(r"\w+", path.read_text())), head


@pytest.mark.parametrize(("path", "name"), STATEMENTS, ids=lambda one: getattr(one, "stem", one))
def test_every_statement_is_used(path, name):
    assert f'"{path.stem}"' in CODE
    assert not name or f'"{name}"' in CODE


#: Jobs of the full table: half final, most of the others waiting, some processing; a chunk is what one statement may sort.
MANY, CHUNK = 100_000, 500
#: Jobs of a table where little happened.
FEW = 100
#: Tables that must not be read from end to end.
LARGE = {"jobs_living", f"jobs_{datetime.now(UTC):%Y%m%d}", "job_attempts"}

_FILL = text("""
    WITH made AS (
    INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint, status, attempt, worker_id,
                      lease_expires_at, last_attempt_at, finished_at, dispatched_at)
    SELECT gen_random_uuid(), 'noop', '{}', 'default', 3, 60, '\\x00', status, CASE status WHEN 'queued' THEN 0 ELSE 1 END,
           CASE status WHEN 'processing' THEN 'host:' || n % 50 END,
           CASE status WHEN 'processing' THEN now() + make_interval(secs => n % 60 - 1) END,
           CASE status WHEN 'queued' THEN NULL ELSE now() END,
           CASE status WHEN 'completed' THEN now() END,
           CASE WHEN status = 'queued' AND n % 40 < 3 THEN now() END
      FROM (SELECT n, CASE WHEN n % 2 = 0 THEN 'completed' WHEN n % 40 = 1 THEN 'processing' ELSE 'queued' END AS status
              FROM generate_series(1, :many) AS n) AS numbered
    RETURNING id, status)
    INSERT INTO job_attempts (job_id, attempt, worker_id, started_at, ended_at, outcome)
    SELECT id, 1, 'host:1', now(), now(), 'completed' FROM made WHERE status = 'completed'""")


def some(number: int = CHUNK) -> list[UUID]:
    return [uuid7() for _ in range(number)]


def claims() -> list[Claim]:
    return [Claim(one, "noop", {}, "default", 1, 0, 3, 60.0, "host:1", 0.0, None) for one in some()]


LEASE = {"worker_id": "host:1", "lease": 60.0}
HEAD = {"queue": "default", "limit": CHUNK}
HOT = {
    "claim of what a message names": lambda: (store._CLAIM.text, {"ids": array_of(some()), **LEASE}),
    "what a process has claimed": lambda: (store._CLAIMED_BY.text, {"worker_id": "host:1"}),
    "look at the head of a queue": lambda: (queue_store._LOOK.text, HEAD),
    "dispatch of the head of a queue": lambda: (queue_store._TAKE.text, HEAD | {"besides": []}),
    "a ticket's claim": lambda: (tickets._CLAIM_DUE.text, HEAD | LEASE | {"task": "noop", "timeout": 60.0}),
    "ends of every kind": lambda: (
        ends._END_ATTEMPTS.text,
        ends._values_of([ends.released(one) for one in claims()]),
    ),
    "end of one": lambda: (ends._END_ONE.text, ends._values_of([ends.released(claims()[0])])),
    "end of one that completed": lambda: (
        ends._COMPLETE_ONE.text,
        ends.values_of_completed([ends.completed(claims()[0], None)]),
    ),
    "end of a chunk": lambda: (
        ends._COMPLETE_MANY.text,
        ends.values_of_completed([ends.completed(one, None) for one in claims()]),
    ),
    "end of a chunk and a ticket's claim": lambda: (
        tickets._END_AND_CLAIM.text,
        ends.values_of_completed([ends.completed(one, None) for one in claims()])
        | HEAD
        | LEASE
        | {"task": "noop", "timeout": 60.0},
    ),
    "renewal of leases": lambda: (
        store._RENEW.text,
        {"ids": array_of(some()), "workers": ["host:1"], "lease": 60.0},
    ),
    "jobs whose lease ran out": lambda: (
        store._TAKE_EXPIRED.text,
        {"limit": 100, "spared": "djps.ProcessDied"},
    ),
    "one job": lambda: (
        store._FIND.by(EVERYTHING).text,
        {"id": (one := some(1)[0])} | dict(zip(("since", "until"), retention.ends_within(one), strict=True)),
    ),
    "watching": lambda: (store._WATCH.text, {"id": some(1)[0]}),
    "messages that name a job": lambda: (queue_store._COUNT_NAMED.text, {"queue": "default", "limit": CHUNK}),
    "setting aside": lambda: (
        aside._SET_ASIDE.text,
        {"queue": "default", "tasks": ["noop"], "limit": CHUNK},
    ),
    "bringing back": lambda: (
        aside._BRING_BACK.text,
        {"queue": "default", "tasks": ["noop"], "limit": CHUNK},
    ),
    "sending again": lambda: (queue_store._TAKE_UNCLAIMED.text, HEAD | {"age": 0.0}),
    "holders of unique keys": lambda: (replacements._HOLD.text, {"keys": text_array_of(["one"])}),
    "replacement of jobs": lambda: (
        replacements._REPLACE.text,
        replacements._values_of([new_job(id=one) for one in some()]) | {"dispatched": True},
    ),
    "owner of a key": lambda: (insert._OWNER.text, {"key": "one"}),
}


def nodes(plan):
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def reads_all(node) -> bool:
    """True for what reads a table from end to end, be it in the order of its primary key."""
    by_index = node["Node Type"] in {"Index Scan", "Index Only Scan"} and "Index Cond" not in node
    return node["Node Type"] == "Seq Scan" or (by_index and node["Index Name"].endswith("_pkey"))


def faults_of(plan) -> list[str]:
    """What is wrong with a plan: what it reads from end to end, and what it sorts beyond a chunk."""
    found = list(nodes((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]))
    read = {one["Relation Name"] for one in found if reads_all(one)} & LARGE
    sorted_rows = [one["Plan Rows"] for one in found if one["Node Type"] in {"Sort", "Incremental Sort"}]
    return [f"reads all of {name}" for name in sorted(read)] + [
        f"sorts {rows} rows" for rows in sorted_rows if rows > CHUNK
    ]


def analyze(connection):
    connection.exec_driver_sql("ANALYZE jobs; ANALYZE job_attempts; ANALYZE idempotency_keys")


@pytest.mark.parametrize("known", ["full", "empty", "few, then empty", "many, then few"])
def test_hot_statements_read_indexes_and_sort_no_backlog(engine, known):
    """Statistics may be those of the full table, or those of the empty one that it was a minute ago, or of one that had a few rows
    before: an ANALYZE of an empty table keeps what was known of its columns. After a burst a table has hardly a row, and all its pages.
    """
    with engine.connect() as connection, connection.begin() as transaction:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        for one in BY_INDEX:
            connection.exec_driver_sql(f"SET LOCAL {one} = off")
        if known == "few, then empty":
            connection.execute(_FILL, {"many": FEW})
            analyze(connection)
            connection.exec_driver_sql("TRUNCATE jobs, job_attempts, idempotency_keys, dead_letters")
        if known == "many, then few":
            connection.execute(_FILL, {"many": MANY // 10})
            connection.exec_driver_sql("DELETE FROM jobs; DELETE FROM job_attempts")
        if known != "full":
            analyze(connection)
        connection.execute(_FILL, {"many": MANY})
        if known == "full":
            analyze(connection)
        faults = {}
        for name, statement in HOT.items():
            given, values = statement()
            plan = Statement(f"EXPLAIN (FORMAT JSON) {given}").run(connection, values).rows[0][0]
            if found := faults_of(plan):
                faults[name] = found, plan
        transaction.rollback()
    assert faults == {}


#: Those whose plans are kept for long, whatever the table was when they were made.
KEPT = {
    "claim of what a message names": store._CLAIM,
    "end of one": ends._END_ONE,
    "end of one that completed": ends._COMPLETE_ONE,
}
#: Those whose plans are kept for a moment.
FRESH = {
    "a ticket's claim": tickets._CLAIM_DUE,
    "ends of every kind": ends._END_ATTEMPTS,
    "end of a chunk": ends._COMPLETE_MANY,
    "end of a chunk and a ticket's claim": tickets._END_AND_CLAIM,
}
#: Pages that one of them may read at most for each job: an entry in each of some indexes.
MOST_PAGES = 20


def pages_of(connection, statement, values, jobs):
    """Pages that a statement reads for a job by the plan that the session has of it."""
    plan = connection.exec_driver_sql(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement._prepared.execute}", values
    )
    found = plan.scalar_one()[0]["Plan"]
    return (found["Shared Hit Blocks"] + found["Shared Read Blocks"]) / jobs


@pytest.mark.parametrize("name", [*KEPT, *FRESH])
def test_a_plan_that_was_made_of_an_empty_table_reads_no_full_one(keeping, name):
    """Kept for long it is still good; what is kept for a moment is planned anew by then."""
    with keeping.connect() as connection, connection.begin() as transaction:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        analyze(connection)
        _, values = HOT[name]()
        statement = (KEPT | FRESH)[name]
        connection.exec_driver_sql(statement._prepared.prepare)
        pages_of(connection, statement, values, 1)
        connection.execute(_FILL, {"many": MANY})
        if name in FRESH:
            connection.exec_driver_sql("DISCARD PLANS")
        found = pages_of(connection, statement, values, 1 if name in KEPT and "end" in name else CHUNK)
        transaction.rollback()
    assert found < MOST_PAGES
