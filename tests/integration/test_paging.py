"""`GET /jobs`: pages, filters, counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from factories import claimed, completed, dead_lettered, preparing, queued
from sqlalchemy import text

from webapp.jobs import search
from webapp.jobs.filters import Filter, parts_of


def submit(client):
    return client.post("/jobs", json={"payload": {"task": "noop"}})


def test_the_list_is_paged_filtered_and_counted(client, engine):
    rows = [queued(engine) for _ in range(3)]
    claim = claimed(engine)
    done = completed(engine)
    everything = client.get("/jobs").json
    assert set(everything) == {"items", "total", "total_is_estimate", "limit", "offset", "next_cursor"}
    assert (everything["total"], everything["limit"], everything["offset"]) == (5, 20, 0)
    newest_first = [str(done.id), str(claim.id), *(str(row.id) for row in reversed(rows))]
    assert [item["id"] for item in everything["items"]] == newest_first
    assert {"id", "status", "payload", "attempt"} <= set(everything["items"][0])
    second = client.get("/jobs?limit=2&offset=1").json
    assert [item["id"] for item in second["items"]] == newest_first[1:3]
    assert (second["total"], second["limit"], second["offset"]) == (5, 2, 1)
    for status, count in {"queued": 3, "processing": 1, "completed": 1, "failed": 0, "cancelled": 0}.items():
        page = client.get(f"/jobs?status={status}").json
        assert (page["total"], {item["status"] for item in page["items"]}) == (
            count,
            {status} if count else set(),
        )
    assert client.get("/jobs?offset=100").json["items"] == []


@pytest.mark.parametrize("page", ["limit=1", "limit=100", "offset=0", "offset=2147483648", "status=failed"])
def test_query_values_at_their_bounds_are_taken(client, page):
    assert client.get(f"/jobs?{page}").status_code == 200


def test_pages_by_cursor_show_every_job_once_while_new_ones_come_in(client):
    ids = [submit(client).get_json()["id"] for _ in range(7)]
    seen, cursor = [], None
    while True:
        page = client.get("/jobs?limit=3" + (f"&cursor={cursor}" if cursor else "")).get_json()
        seen += [item["id"] for item in page["items"]]
        submit(client)
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ids[::-1]


@pytest.mark.parametrize(
    "query", ["cursor=17", "cursor=", "cursor=01a20af4-1c53-716c-9a00-04d2b42b60c5&offset=1"]
)
def test_a_cursor_that_is_none_is_named(client, query):
    assert client.get(f"/jobs?{query}").status_code == 422


MAKERS = {"queued": queued, "processing": claimed, "completed": completed, "failed": dead_lettered}


def test_a_search_finds_what_is_finished_and_what_is_not_in_one_order(client, engine):
    """Finished jobs are found with other indexes than those that wait or run, so they are searched apart."""
    made = [
        (status, task, queue, MAKERS[status](engine, task=task, queue=queue).id)
        for _ in range(2)
        for status, task, queue in product(MAKERS, ("noop", "sleep"), ("default", "slow"))
    ]
    newest_first = made[::-1]
    for status, task, queue in product((None, *MAKERS), (None, "noop"), (None, "slow")):
        given = {"status": status, "task": task, "queue": queue}
        query = {name: value for name, value in given.items() if value is not None}
        wanted = [
            str(one[3])
            for one in newest_first
            if all(value in (None, has) for value, has in zip(given.values(), one, strict=False))
        ]
        page = client.get("/jobs", query_string=query | {"limit": 100}).json
        assert [item["id"] for item in page["items"]] == wanted
        assert (page["total"], page["total_is_estimate"]) == (len(wanted), False)
        second = client.get("/jobs", query_string=query | {"limit": 2, "offset": 1}).json
        assert [item["id"] for item in second["items"]] == wanted[1:3]
        bounds = {"created_after": "2020-01-01T00:00:00Z", "created_before": "2090-01-01T00:00:00Z"}
        within = client.get("/jobs", query_string=query | bounds | {"limit": 100}).json
        assert [item["id"] for item in within["items"]] == wanted
        if len(wanted) > 2:
            older = client.get("/jobs", query_string=query | {"limit": 2, "cursor": wanted[1]}).json
            assert [item["id"] for item in older["items"]] == wanted[2:4]


#: Enough rows that reading them all is dearer than an index.
MANY = 20_000


@pytest.fixture
def crowded(engine):
    """A table full of finished jobs, and the statistics that the planner would have of it."""
    with preparing(engine) as connection:
        connection.execute(
            text("""
            INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint, status, attempt,
                              created_at, last_attempt_at, finished_at)
            SELECT uuidv7(-make_interval(secs => n)), CASE n % 2000 WHEN 7 THEN 'seldom' ELSE 'noop' END,
                   jsonb_build_object('order', n), CASE n % 2000 WHEN 9 THEN 'slow' ELSE 'default' END, 3, 300, '',
                   'completed', 1, now() - make_interval(secs => n), now(), now()
              FROM generate_series(1, :many) AS n"""),
            {"many": MANY},
        )
        connection.execute(text("ANALYZE jobs"))
    yield
    with preparing(engine) as connection:
        connection.execute(text("TRUNCATE jobs CASCADE"))
        connection.execute(text("ANALYZE jobs"))


def plan(engine, wanted, **values):
    """How a slice of this search is planned and what it read."""
    given = wanted.values() | values
    statement = search._slice_by(frozenset(given), parts_of(wanted)).text.partition(";")[2]
    with engine.connect() as connection:
        rows = connection.execute(
            text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"), given | {"size": 20, "skip": 0, "want": 20}
        )
        return rows.scalar_one()[0]["Plan"]


#: The indexes of the day on which all of these jobs ended.
BY_STATUS, BY_TASK, BY_QUEUE = (
    f"jobs_{datetime.now(UTC):%Y%m%d}_by_{column}" for column in ("status", "task", "queue")
)


def nodes(plan):
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


@pytest.mark.parametrize(
    ("wanted", "index", "found"),
    [
        (Filter(task="seldom"), BY_TASK, 10),
        (Filter(queue="slow"), BY_QUEUE, 10),
        (Filter(task="never"), BY_TASK, 0),
        (Filter(task="seldom", payload='{"order": 17}'), BY_TASK, 0),
        (Filter(task="seldom", payload='{"order": 2007}', status="completed"), BY_TASK, 1),
        (
            Filter(payload='{"order": 17}', created_after=datetime.now(UTC) + timedelta(hours=1)),
            "jobs_pkey",
            0,
        ),
        (Filter(payload='{"order": 17}', status="failed"), BY_STATUS, 0),
        (Filter(status="processing"), "jobs_living", 0),
        (Filter(status="processing", task="noop"), "jobs_living", 0),
    ],
)
@pytest.mark.usefixtures("crowded")
def test_what_narrows_a_search_is_found_with_an_index(engine, wanted, index, found):
    with engine.connect() as connection:
        assert search.search(connection, wanted, limit=20).total == found
    shown = plan(engine, wanted)
    assert index in str(shown)
    assert [one for one in nodes(shown) if one["Node Type"] == "Seq Scan" and one["Actual Rows"]] == []


@pytest.mark.usefixtures("crowded")
def test_a_page_far_back_costs_what_the_first_one_costs(engine):
    """`noop` is the task of nearly all; the index is entered where the page begins, and not at the task's newest job."""
    wanted = Filter(task="noop", status="completed")
    with engine.connect() as connection:
        (oldest,) = search.search(connection, wanted, limit=1, offset=MANY - 100).ids
    whole = plan(engine, wanted, to_id=oldest)
    assert BY_TASK in str(whole)
    assert whole["Shared Hit Blocks"] + whole["Shared Read Blocks"] < 40
