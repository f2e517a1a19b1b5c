"""Which statements look at how many days of history, and that a walk through the days leaves no job out."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, event, text
from test_statement_plans import FILES, HOT, STATEMENTS, is_text_of, statement_of
from uuid_utils.compat import uuid7

from webapp.dead_letters import store as dead_letters
from webapp.dead_letters.model import DeadLetterFilter, ResolveRequest
from webapp.flow import look_store
from webapp.flow.reach import EVERYTHING, Reach
from webapp.flow.tenant import DEFAULT
from webapp.infra.postgres.engine import Statement
from webapp.jobs import callbacks, control, ends, pages, search, store
from webapp.jobs.filters import Filter, first_id
from webapp.jobs.history import Period
from webapp.jobs.model import Claim
from webapp.jobs.search import COUNTED_UP_TO
from webapp.jobs.unseen import unseen
from webapp.workflows import store as workflows

#: Days of history before today; the tables have tomorrow as well.
DAYS = 60
#: Most of them that a statement on a hot or public way may open.
MOST = 10
#: Jobs of today: more than are counted.
TODAY = COUNTED_UP_TO + 100
_DAY = re.compile(r"^jobs_\d{8}$")

_ADD = text("""
    INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint, status, attempt, created_at, last_attempt_at,
                      finished_at, ended_by, tags)
    VALUES (:id, :task, '{}', :queue, 3, 60, '', :status, :attempt, :made, CASE WHEN :attempt > 0 THEN :made END, :ended,
            CASE WHEN :attempt > 0 THEN 'w' END, :tags)""")
_FILL = text("""
    INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint, status, attempt, last_attempt_at, finished_at)
    SELECT uuidv7(-make_interval(secs => n)), 'noop', '{}', 'default', 3, 60, '', 'completed', 1, now(), now()
      FROM generate_series(1, :many) AS n""")


@pytest.fixture
def patient(monkeypatch) -> Iterator[None]:
    """Slices of searches that a busy machine has time for: one that gives up takes the transaction of a test with it."""
    with monkeypatch.context() as patched:
        patched.setattr(search, "SLICE_TIMEOUT_MS", 60_000)
        search._slice_by.cache_clear()
        yield
    search._slice_by.cache_clear()


@pytest.fixture
def old(engine, patient) -> Iterator[Connection]:
    """A connection to tables that have sixty days of history more; all of it is taken back afterwards."""
    with engine.connect() as connection, connection.begin() as transaction:
        connection.execute(text("SET LOCAL statement_timeout = 60000"))
        today = datetime.now(UTC).date()
        # Another test may have had days made ahead: these tables have tomorrow and no more.
        made = connection.execute(text("SELECT tablename FROM pg_tables WHERE tablename ~ '^jobs_\\d{8}$'"))
        for name in [row[0] for row in made if row[0] > f"jobs_{today + timedelta(days=1):%Y%m%d}"]:
            connection.execute(text(f"DROP TABLE {name}"))
        for number in range(1, DAYS + 1):
            period = Period(today - timedelta(days=number), today - timedelta(days=number - 1))
            connection.execute(
                text(
                    "SELECT djps_make_history(:name, CAST(:first AS timestamptz), CAST(:end AS timestamptz))"
                ),
                {"name": period.name, "first": period.first, "end": period.end},
            )
        yield connection
        transaction.rollback()


def add(connection: Connection, made: datetime, ended: datetime | None, **more: Any) -> UUID:
    """Adds a job; returns its id, which begins with the time it was made at."""
    job_id = UUID(int=first_id(made).int | random.getrandbits(62) | (7 << 76) | (2 << 62))
    values = {"task": "noop", "queue": "default", "tags": [], "attempt": 0 if ended is None else 1}
    values |= {"status": "queued" if ended is None else "completed", "made": made, "ended": ended}
    connection.execute(_ADD, values | more | {"id": job_id})
    return job_id


def days_of(plan: Any) -> int:
    """How many days a plan opens, whether it reads them or not."""
    found = set()

    def look(node: dict[str, Any]) -> None:
        if _DAY.match(node.get("Relation Name", "")):
            found.add(node["Relation Name"])
        for below in node.get("Plans", ()):
            look(below)

    look((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
    return len(found)


@contextmanager
def planned(connection: Connection) -> Iterator[list[int]]:
    """How many days each statement opens that is run in the block."""
    told: list[tuple[str, Any]] = []
    found: list[int] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        told.append((statement.rpartition(";")[2], values))

    event.listen(connection, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(connection, "before_cursor_execute", note)
    raw: Any = connection.connection.dbapi_connection
    with raw.cursor() as cursor:
        for statement, values in told:
            asked = (
                statement
                if statement.lstrip().startswith("EXPLAIN")
                else f"EXPLAIN (FORMAT JSON) {statement}"
            )
            cursor.execute(asked, values)
            found.append(days_of(cursor.fetchone()[0]))


NOW = datetime.now(UTC)
RECENT = NOW - timedelta(hours=1)


def claim_of(job_id: UUID) -> Claim:
    return Claim(job_id, "noop", {}, "default", 1, 0, 3, 60.0, "w", 0.0, None)


def listed(**wanted: Any) -> Any:
    return lambda connection, _: pages.page(connection, Filter(**wanted), limit=100)


ENDS = {"queue": "default", "recent": 30, "long_ago": 300, "most": look_store.MOST_ENDS}
#: What is done for a job that was made lately, by the statement that it is about.
BOUNDED = {
    "first page": listed(),
    "first page of a status": listed(status="completed"),
    "first page of a task": listed(task="noop"),
    "first page of a queue": listed(queue="default"),
    "first page of a day": listed(created_after=NOW - timedelta(days=1)),
    "what waits": listed(status="queued"),
    "first page of the default tenant among others": listed(tenant=1),
    "what waits of a tenant": listed(tenant=7, status="queued"),
    "what ended lately": listed(finished_after=RECENT),
    "of several tasks": listed(tasks=("noop", "sleep"), statuses=("completed", "queued")),
    "what is newer": lambda connection, job: pages.page(connection, Filter(newer_than=job), limit=100),
    "by ids": lambda connection, job: pages.page(connection, Filter(ids=(job,), payload="{}"), limit=100),
    "second page": lambda connection, job: pages.page(connection, Filter(), limit=100, before=job),
    "jobs/find_job find": lambda connection, job: store.find(connection, job, EVERYTHING),
    "jobs/callbacks take_ended": lambda connection, _: callbacks.take_ended(connection, 10, RECENT),
    "jobs/attempts": lambda connection, job: store.attempts(
        connection, job, RECENT, before=9, limit=9, room=9
    ),
    "jobs/requeue requeue": control.requeue,
    "dead letters": lambda connection, _: dead_letters.jobs(
        connection, DeadLetterFilter(), limit=9, offset=0
    ),
    "jobs/cancel ask": control.ask_cancel,
    "workflows/steps jobs": lambda connection, job: workflows.job_statuses(connection, [job]),
    "workflows/steps results": lambda connection, job: workflows.results(connection, [job]),
    "workflows/steps size_of_results": workflows.size_of_results,
    "workflows/steps results_of": workflows.results_of,
    "flow/looks ends": lambda connection, _: connection.execute(look_store._ENDS, ENDS),
    "flow/looks key_ends": lambda connection, _: connection.execute(
        look_store._KEY_ENDS, ENDS | {"key": "a"}
    ),
}
#: What looks at every day, and why that is borne.
EVERY_DAY = {
    # A question about a job that is not there, or ended long after it was made.
    "jobs/find_job find": lambda connection, _: store.find(connection, uuid7(), EVERYTHING),
    # After a lost answer to a submission.
    "jobs/find_job find_ended": store.find_ended,
    # After a lost answer to an end.
    "jobs/status_after": lambda connection, job: ends.status_after(connection, claim_of(job)),
    # A key of queues meets a key of a job that is taken: it may be by one of any day.
    "jobs/reached": lambda connection, job: unseen(
        connection, [job], Reach(DEFAULT, frozenset({"video"}), is_alone=True)
    ),
    # Once a minute.
    "jobs/callbacks take_ended": lambda connection, _: callbacks.take_ended(connection, 10),
    # Tags have no order, so the few jobs that have them may be of any day.
    "jobs/tagged": listed(tags=("a",)),
    # An operator's: which days, the dead letters say.
    "dead_letters/dead_letters take": lambda connection, _: dead_letters.discard(
        connection, ResolveRequest(DeadLetterFilter(), by="test", why=""), limit=9
    ),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_what_is_asked_often_opens_few_days(old, name):
    old.execute(_FILL, {"many": TODAY})
    job = add(old, RECENT, RECENT + timedelta(seconds=1))
    with planned(old) as found:
        BOUNDED[name](old, job)
    assert found
    assert max(found) <= MOST


@pytest.mark.parametrize("name", HOT)
def test_what_workers_say_opens_no_day_before_yesterday(old, name):
    given, values = HOT[name]()
    plan = Statement(f"EXPLAIN (FORMAT JSON) {given}").run(old, values).rows[0][0]
    assert days_of(plan) <= MOST


@pytest.mark.parametrize("name", EVERY_DAY)
def test_an_exception_is_still_one(old, name):
    job = add(old, RECENT, RECENT + timedelta(seconds=1))
    with planned(old) as found:
        EVERY_DAY[name](old, job)
    assert max(found) > DAYS


#: Statements about the whole table that say when its jobs ended by what they are given, or name one partition.
SAID = {
    "jobs/callbacks insert": "`since`",
    "jobs/versions": "`since`",
    "jobs/end_attempts": "`finished_at IS NULL`",
    "jobs/cancel_expired": "`finished_at IS NULL`",
    "dead_letters/move move": "`finished_at IS NULL`",
    "batches/control cancel_waiting": "`finished_at IS NULL`",
    "batches/control failed_members": "`since`",
}


def test_every_statement_about_all_jobs_is_in_one_of_these():
    """A statement that is new, and names the whole table, is put where it belongs."""
    named = {
        f"{is_text_of(path)} {name}".strip()
        for path, name in STATEMENTS
        if re.search(r"\b(FROM|JOIN|UPDATE)\s+jobs\b", statement_of(path, name))
    }
    assert FILES
    assert named <= {*BOUNDED, *EVERY_DAY, *SAID}
    for name in SAID:
        file, _, one = name.partition(" ")
        (path,) = (path for path in FILES if is_text_of(path) == file)
        assert re.search(r"finished_at (IS NULL|>= :since)", statement_of(path, one))


def walk(connection: Connection, wanted: Filter, limit: int) -> list[UUID]:
    """All pages, one after the other."""
    seen: list[UUID] = []
    before = None
    while True:
        page = pages.page(connection, wanted, limit=limit, before=before)
        seen += [job.id for job in page.jobs]
        before = page.next_before
        if before is None:
            return seen


@pytest.mark.parametrize("limit", [25, 100])
def test_pages_go_through_all_days_and_leave_no_job_out(old, limit):
    """Jobs of all ages: some end at once, some weeks later, some live; some lie in no day although they ended."""
    rng = random.Random(limit)
    made: list[tuple[UUID, dict[str, Any]]] = []
    for _ in range(300):
        # Older than any day as well, and by a clock that is hours ahead.
        age = rng.choice((rng.uniform(0, 1), rng.uniform(0, DAYS), rng.uniform(0, 300), -0.9))
        begun = NOW - timedelta(days=age)
        ended = rng.choice((None, begun, begun, begun + timedelta(days=rng.uniform(0, max(0.0, age)))))
        more = {"task": rng.choice(("noop", "sleep")), "queue": rng.choice(("default", "slow"))}
        more["tags"] = rng.choice(([], ["a"]))
        made.append(
            (add(old, begun, None if ended is None else min(ended, NOW), **more), more | {"ended": ended})
        )
    made.sort(reverse=True, key=lambda one: one[0])
    cases = {
        Filter(): lambda _: True,
        Filter(status="completed"): lambda one: one["ended"] is not None,
        Filter(status="queued"): lambda one: one["ended"] is None,
        Filter(task="sleep"): lambda one: one["task"] == "sleep",
        Filter(queue="slow", status="completed"): lambda one: (
            one["queue"] == "slow" and one["ended"] is not None
        ),
        Filter(tags=("a",)): lambda one: "a" in one["tags"],
        Filter(task="noop", payload="{}"): lambda one: one["task"] == "noop",
    }
    for wanted, holds in cases.items():
        expected = [job_id for job_id, one in made if holds(one)]
        assert walk(old, wanted, limit) == expected
        assert pages.page(old, wanted, limit=limit).total == len(expected)
        assert pages.page(old, wanted, limit=limit, offset=11).jobs[0].id == expected[11]
    bounds = {"created_after": NOW - timedelta(days=30), "created_before": NOW - timedelta(days=3)}
    within = [
        job_id
        for job_id, _ in made
        if first_id(bounds["created_after"]) <= job_id < first_id(bounds["created_before"])
    ]
    assert walk(old, Filter(**bounds), limit) == within


def test_a_job_that_ends_between_the_search_and_the_page_is_shown(old, monkeypatch):
    job = add(old, NOW - timedelta(days=40), None)
    real = search.search

    def searched(*given: Any, **more: Any) -> Any:
        found = real(*given, **more)
        old.execute(
            # The transaction that ends it began before the search did.
            text(
                "UPDATE jobs SET status = 'cancelled', finished_at = now() - interval '10 s' WHERE id = :id"
            ),
            {"id": job},
        )
        return found

    monkeypatch.setattr(pages, "search", searched)
    (row,) = pages.page(old, Filter(), limit=10).jobs
    assert (row.id, row.status) == (job, "cancelled")


def test_an_estimate_is_made_of_the_last_days_and_the_size_of_all(old):
    old.execute(_FILL, {"many": TODAY})
    for number in range(1, DAYS + 1):
        moment = NOW - timedelta(days=number)
        old.execute(
            text(str(_FILL).replace("now(), now()", ":moment, :moment")), {"many": 300, "moment": moment}
        )
    old.execute(text("ANALYZE jobs"))
    page = pages.page(old, Filter(status="completed"), limit=10)
    assert page.is_estimate
    assert page.total == pytest.approx(TODAY + DAYS * 300, rel=0.2)


def test_a_search_without_time_goes_to_the_end_of_history_all_the_same(old, monkeypatch):
    """Else each of its pages would go back for two days, and the next one for two more."""
    monkeypatch.setattr(search, "PAGE_SECONDS", 0.0)
    ids = [add(old, NOW - timedelta(days=50, minutes=n), NOW - timedelta(days=50)) for n in range(5)]
    page = pages.page(old, Filter(task="noop", payload="{}"), limit=10)
    assert ([job.id for job in page.jobs], page.next_before) == (ids, None)


@pytest.mark.parametrize(
    "wanted", [{"status": "completed"}, {"task": "noop"}, {"queue": "default"}, {}], ids=str
)
def test_a_count_reads_nothing_of_a_day_that_lies_before_its_window(old, wanted):
    """A few jobs are soon found in a whole day, so without an order the planner reads the oldest one from its first row on."""
    for days in (2.6, 0.0):
        statement = (
            str(_FILL)
            .replace("n))", f"n + {days * 86_400}))")
            .replace("now()", f"now() - interval '{days} days'")
        )
        old.execute(text(statement), {"many": TODAY})
    old.execute(text("ANALYZE jobs"))
    counted: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        counted.append((statement, values))

    event.listen(old, "before_cursor_execute", note)
    try:
        assert search._count(old, Filter(**wanted))[0] > COUNTED_UP_TO
    finally:
        event.remove(old, "before_cursor_execute", note)
    ((statement, values),) = counted
    raw: Any = old.connection.dbapi_connection
    with raw.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values)
        plan = json.dumps(cursor.fetchone()[0])
    passed_over = [int(one) for one in re.findall(r'"Rows Removed by (?:Filter|Index Recheck)": (\d+)', plan)]
    assert max(passed_over, default=0) < 100, plan
