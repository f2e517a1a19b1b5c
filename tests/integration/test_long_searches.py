"""Searches that no index answers: each page comes in a bounded time, says how far it looked, and all pages find all."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from factories import completed, dead_lettered, preparing, queued, row_of
from sqlalchemy import text

from webapp.api import searching
from webapp.flow.reach import EVERYTHING
from webapp.jobs import explain, filters, search
from webapp.jobs.filters import Filter
from webapp.jobs.options import PLAIN
from webapp.jobs.retention import made_at

#: Jobs that wait; enough that a search of all of them takes several slices.
BACKLOG = 30_000
#: One job in so many is of the rare task, queue, tag and payload.
RARE = 3_000
#: Longest a page may take here, seconds.
BOUND = 2.0


@pytest.fixture
def backlog(engine):
    """Jobs that wait, one a millisecond, the newest of them now."""
    with preparing(engine) as connection:
        connection.execute(
            text("""
            INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint, created_at, tags)
            SELECT uuidv7(-make_interval(secs => n / 1000.0)), CASE n % :rare WHEN 7 THEN 'seldom' ELSE 'noop' END,
                   jsonb_build_object('rare', n % :rare = 7), CASE n % :rare WHEN 7 THEN 'slow' ELSE 'default' END,
                   3, 300, '', now() - make_interval(secs => n / 1000.0),
                   CASE n % :rare WHEN 7 THEN '{seldom,all}'::text[] ELSE '{all}' END
              FROM generate_series(1, :many) AS n"""),
            {"many": BACKLOG, "rare": RARE},
        )
        connection.execute(text("ANALYZE jobs"))
    yield
    with preparing(engine) as connection:
        connection.execute(text("TRUNCATE jobs CASCADE"))


@pytest.fixture
def hurried(monkeypatch):
    """Searches whose time is over after their first slice."""
    monkeypatch.setattr(search, "PAGE_SECONDS", 0.0)
    monkeypatch.setattr(search, "COUNT_SECONDS", 0.0)
    monkeypatch.setattr(search, "GROWTH", 1)
    monkeypatch.setattr(search, "FIRST_SLICE", 5_000)


SEARCHES = [
    {"task": "seldom"},
    {"queue": "slow"},
    {"payload": '{"rare": true}'},
    {"status": "queued", "task": "seldom"},
    {"task": "seldom", "payload": '{"rare": true}'},
    {"tag": "all", "payload": '{"rare": true}'},
]


def wanted_ids(engine):
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id FROM jobs WHERE task = 'seldom' ORDER BY id DESC"))
        return [str(one) for one in rows.scalars()]


@pytest.mark.parametrize("query", SEARCHES, ids=str)
@pytest.mark.usefixtures("backlog")
def test_a_search_through_a_backlog_finds_all_and_counts_them(client, engine, query):
    began = time.monotonic()
    page = client.get("/jobs", query_string=query | {"limit": 100}).json
    assert time.monotonic() - began < BOUND
    assert [one["id"] for one in page["items"]] == wanted_ids(engine)
    assert (page["total"], page["total_is_estimate"], page["next_cursor"]) == (BACKLOG // RARE, False, None)
    assert "ended_early" not in page


@pytest.mark.parametrize("query", SEARCHES, ids=str)
@pytest.mark.usefixtures("backlog", "hurried")
def test_a_search_whose_time_is_over_says_how_far_it_looked_and_goes_on_from_there(client, engine, query):
    found, cursor, untils = [], None, []
    while True:
        page = client.get("/jobs", query_string=query | ({"cursor": cursor} if cursor else {})).json
        found += [one["id"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        assert (page["ended_early"], page["total_is_estimate"]) == ("time", True)
        assert page["searched_until"] == made_at(UUID(cursor)).isoformat().replace("+00:00", "Z")
        untils.append(page["searched_until"])
    assert found == wanted_ids(engine)
    assert len(untils) >= BACKLOG // 5_000 - 1
    assert untils == sorted(untils, reverse=True)


@pytest.mark.usefixtures("backlog")
def test_a_slice_looks_at_no_more_than_it_may(engine, monkeypatch):
    """However seldom what is wanted is, one statement does not read the backlog."""
    monkeypatch.setattr(search, "PAGE_SECONDS", 0.0)
    monkeypatch.setattr(search, "COUNT_SECONDS", 0.0)
    with engine.connect() as connection:
        found = search.search(connection, Filter(task="never"), limit=20)
        looked_at = connection.execute(
            text("SELECT count(*) FROM jobs WHERE id >= :reached"), {"reached": found.reached}
        ).scalar_one()
    assert (found.ids, looked_at) == ([], search.FIRST_SLICE)


@pytest.mark.usefixtures("backlog")
def test_a_slice_that_takes_too_long_is_tried_again_with_fewer_jobs(client, engine, monkeypatch):
    """As if each job that is looked at took half a millisecond, for its payload is large."""
    slow = "(SELECT pg_sleep(0.0005) FROM generate_series(1, 1) WHERE id IS NOT NULL) IS NOT NULL AND payload @> "
    monkeypatch.setitem(filters.CONDITIONS, "payload", f"{slow} CAST(:payload AS jsonb)")
    monkeypatch.setattr(search, "FIRST_SLICE", 2_000)
    search._slice_by.cache_clear()
    try:
        page = client.get('/jobs?payload={"rare": true}').json
    finally:
        search._slice_by.cache_clear()
    assert page["ended_early"] == "time"
    assert page["items"] == [] or page["items"][0]["id"] in wanted_ids(engine)


@pytest.mark.usefixtures("backlog", "hurried")
def test_few_jobs_of_a_tag_are_found_at_once(client, engine):
    page = client.get("/jobs?tag=seldom&tag=all&limit=5").json
    assert [one["id"] for one in page["items"]] == wanted_ids(engine)[:5]
    assert (page["total"], page["total_is_estimate"]) == (BACKLOG // RARE, False)
    rest = client.get(f"/jobs?tag=seldom&limit=100&cursor={page['next_cursor']}").json
    assert [one["id"] for one in rest["items"]] == wanted_ids(engine)[5:]


@pytest.mark.usefixtures("backlog")
def test_a_search_finds_across_what_is_finished_and_what_waits(client, engine):
    done = [completed(engine, task="seldom").id, dead_lettered(engine, task="seldom").id]
    ids = [str(one) for one in reversed(done)] + wanted_ids(engine)[2:]
    assert set(wanted_ids(engine)[:2]) == {str(one) for one in done}
    seen, offset = [], 0
    while items := client.get(f"/jobs?task=seldom&limit=3&offset={offset}").json["items"]:
        seen += [one["id"] for one in items]
        offset += len(items)
    assert seen == ids


@pytest.mark.usefixtures("backlog")
def test_an_offset_beyond_all_is_an_empty_page_and_no_error(client):
    for query in ("", "&task=seldom", "&status=queued"):
        answer = client.get(f"/jobs?offset=2147483648{query}")
        assert (answer.status_code, answer.json["items"], answer.json["next_cursor"]) == (200, [], None)


@pytest.mark.parametrize("bound", ["created_after", "created_before"])
@pytest.mark.usefixtures("backlog")
def test_a_time_bounds_a_search(client, engine, bound):
    moment = datetime.now(UTC) - timedelta(seconds=15)
    page = client.get("/jobs", query_string={"task": "seldom", bound: moment.isoformat()}).json
    with engine.connect() as connection:
        after, before = connection.execute(
            text("""
            SELECT count(*) FILTER (WHERE created_at >= :moment), count(*) FILTER (WHERE created_at < :moment)
              FROM jobs WHERE task = 'seldom'"""),
            {"moment": moment},
        ).one()
    count = after if bound == "created_after" else before
    assert len(page["items"]) == page["total"] == count


def test_one_search_after_the_other_and_no_more_wait_than_may(client, engine, monkeypatch):
    queued(engine)
    turns = client.application.extensions["turns"]
    slots = client.application.extensions["work_slots"]
    free = slots.free()
    monkeypatch.setattr(searching, "LONGEST_WAIT", 5.0)
    statuses = []

    def ask():
        statuses.append(client.application.test_client().get("/jobs?task=noop").status_code)

    with turns.turn():
        waiting = [threading.Thread(target=ask) for _ in range(searching.MOST_WAITING + 3)]
        for thread in waiting:
            thread.start()
        deadline = time.monotonic() + 5
        while len(statuses) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        # Those that are too many are answered, those that wait hold no place, and what needs no turn is answered.
        assert statuses == [503] * 3
        assert slots.free() == free
        assert client.get("/jobs").status_code == 200
        busy = client.get("/jobs?task=noop")
        assert (busy.status_code, busy.headers["Retry-After"]) == (503, "2")
    for thread in waiting:
        thread.join(10)
    assert sorted(statuses) == [200] * searching.MOST_WAITING + [503] * 3
    assert slots.free() == free


def test_a_search_that_waits_too_long_for_its_turn_is_refused(client, monkeypatch):
    monkeypatch.setattr(searching, "LONGEST_WAIT", 0.05)
    with client.application.extensions["turns"].turn():
        assert client.get('/jobs?payload={"a":1}').status_code == 503
    assert client.get('/jobs?payload={"a":1}').status_code == 200


@pytest.mark.parametrize("priority", [0, 5, 9])
def test_what_is_ahead_of_a_job_is_counted_without_reading_what_is_behind_it(engine, priority):
    with preparing(engine) as connection:
        connection.execute(
            text("""
            INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint, run_at, priority)
            SELECT uuidv7(), 'noop', '{}', 'default', 3, 300, '',
                   now() + make_interval(secs => CASE n % 2 WHEN 0 THEN 3600 ELSE -n / 1000.0 END), n % 10
              FROM generate_series(1, :many) AS n"""),
            {"many": BACKLOG},
        )
        connection.execute(text("ANALYZE jobs"))
    first = queued(engine, terms=replace(PLAIN, priority=priority))
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET run_at = now() - interval '1 day' WHERE id = :id"), {"id": first.id}
        )
    with engine.connect() as connection:
        ahead = explain.situation(connection, row_of(engine, first.id), 1, EVERYTHING).ahead
    # Of each priority every other job is due; those of odd numbers are.
    assert ahead == BACKLOG // 10 * len([one for one in range(priority + 1, 10) if one % 2])
    values = {name: getattr(row_of(engine, first.id), name) for name in ("id", "attempt", "queue", "run_at")}
    values |= {"priority": 9, "highest": 9, "most": explain.COUNTED_UP_TO + 1}
    with engine.begin() as connection:
        plan = connection.execute(
            text(f"EXPLAIN (ANALYZE, FORMAT JSON) {explain._AROUND.by(EVERYTHING).text}"), values
        )
        whole = plan.scalar_one()[0]["Plan"]
    assert whole["Shared Hit Blocks"] + whole["Shared Read Blocks"] < 100
