"""A page is bounded in bytes, and so is what it costs; with `fields` a list has only what is asked for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from factories import completed, dead_lettered, preparing, queued
from sqlalchemy import text

from webapp.jobs import pages

#: Bytes of a large payload, as MAX_PAYLOAD_BYTES allows it.
LARGE = 250_000
#: What a page is more than its jobs' large fields.
REST = 200_000
#: Most memory that a list may cost its process, bytes.
MOST_MEMORY = 100 * 1024 * 1024


def payload(number=0, size=LARGE):
    return {"task": "noop", "n": number, "text": "x" * size}


def fill(engine, count, *, dead=False, size=LARGE):
    """Large jobs that wait, or are in the dead letter queue."""
    with preparing(engine) as connection:
        connection.execute(
            text("""
            INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint, status, attempt,
                              last_attempt_at, finished_at)
            SELECT uuidv7(make_interval(secs => n / 1000.0)), 'noop',
                   jsonb_build_object('n', n, 'text', repeat('x', :size)), 'default', 3, 300, '',
                   CASE WHEN :dead THEN 'failed' ELSE 'queued' END, CASE WHEN :dead THEN 1 ELSE 0 END,
                   CASE WHEN :dead THEN now() END, CASE WHEN :dead THEN now() END
              FROM generate_series(1, :count) AS n"""),
            {"count": count, "size": size, "dead": dead},
        )
        if dead:
            connection.execute(
                text("""
                INSERT INTO dead_letters (job_id, reason, fingerprint, task, queue)
                SELECT id, 'exhausted', '', task, queue FROM jobs ORDER BY id""")
            )


def peak_of(work):
    """How many bytes of memory this process had more at the height of some work, and its outcome."""

    def status(name):
        found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) * 1024

    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    outcome = work()
    return status("VmHWM") - before, outcome


@pytest.mark.parametrize("way", ["cursor", "offset"])
def test_a_page_ends_before_it_is_too_large_and_the_pages_have_every_job_once(client, engine, way):
    fill(engine, 30)
    seen, on = [], ""
    while True:
        answer = client.get(f"/jobs?limit=20{on}")
        page = answer.json
        assert len(answer.data) <= pages.PAGE_BYTES + REST
        seen += [one["payload"]["n"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        assert (page["ended_early"], page["limit"], page["total"]) == ("bytes", 20, 30)
        assert page["next_cursor"] == page["items"][-1]["id"]
        if way == "cursor":
            on = f"&cursor={page['next_cursor']}"
            assert ("next_offset" in page) is (len(seen) == len(page["items"]))
        else:
            on = f"&offset={page['next_offset']}"
    assert seen == list(range(30, 0, -1))


def test_a_page_with_results_and_errors_is_measured_too(client, engine):
    for number in range(12):
        completed(engine, result=json.dumps("r" * LARGE), payload={"task": "noop", "n": number})
    page = client.get("/jobs").json
    assert len(page["items"]) == pages.PAGE_BYTES // LARGE
    assert page["ended_early"] == "bytes"


def test_a_job_that_is_larger_than_a_page_is_a_page(client, engine, monkeypatch):
    monkeypatch.setattr(pages, "PAGE_BYTES", 1_000)
    fill(engine, 3)
    page = client.get("/jobs?limit=3").json
    assert [one["payload"]["n"] for one in page["items"]] == [3]
    assert (page["ended_early"], page["next_offset"]) == ("bytes", 1)
    assert client.get("/jobs?limit=3&offset=2").json["next_cursor"] is None


def test_small_jobs_are_listed_as_ever(client, engine):
    ids = [str(queued(engine).id) for _ in range(100)]
    page = client.get("/jobs?limit=100").json
    assert [one["id"] for one in page["items"]] == ids[::-1]
    assert set(page) == {"items", "total", "total_is_estimate", "limit", "offset", "next_cursor"}


def test_a_list_of_large_jobs_costs_little_memory(client, engine):
    fill(engine, 100)
    cost, answer = peak_of(lambda: client.get("/jobs?limit=100"))
    assert answer.json["ended_early"] == "bytes"
    assert cost < MOST_MEMORY


def test_the_dead_letter_queue_is_bounded_and_says_where_it_goes_on(client, engine):
    fill(engine, 300, dead=True)
    cost, answer = peak_of(lambda: client.get("/dlq?task=noop"))
    assert cost < MOST_MEMORY
    assert len(answer.data) <= pages.PAGE_BYTES + REST
    seen = [one["payload"]["n"] for one in answer.json]
    while link := answer.headers.get("Link"):
        target = re.fullmatch(r'<(/dlq\?task=noop&offset=\d+)>; rel="next"', link)[1]
        answer = client.get(target)
        seen += [one["payload"]["n"] for one in answer.json]
    assert seen == list(range(300, 0, -1))


def test_a_small_dead_letter_queue_is_whole(client, engine):
    ids = [str(dead_lettered(engine).id) for _ in range(205)]
    answer = client.get("/dlq")
    assert [one["id"] for one in answer.json] == ids[::-1]
    assert "Link" not in answer.headers
    page = client.get("/dlq?limit=200")
    assert 'offset=200>; rel="next"' in page.headers["Link"]


@pytest.mark.parametrize("path", ["/jobs", "/dlq"])
@pytest.mark.parametrize("fields", ["fields=status,id", "fields=status&fields=id"])
def test_a_list_has_the_fields_that_were_asked_for(client, engine, path, fields):
    job = dead_lettered(engine)
    answer = client.get(f"{path}?{fields}").json
    items = answer["items"] if path == "/jobs" else answer
    assert items == [{"id": str(job.id), "status": "failed"}]


@pytest.mark.parametrize("field", ["payload", "result", "last_error"])
def test_a_large_field_is_read_when_it_is_asked_for(client, engine, field):
    job = (
        dead_lettered(engine, payload=payload(size=10))
        if field == "last_error"
        else completed(engine, '{"a": 1}')
    )
    (item,) = client.get(f"/jobs?fields={field}").json["items"]
    assert item == {field: client.get(f"/jobs/{job.id}").json[field]}
    assert item[field]


def test_a_list_without_its_large_fields_is_whole(client, engine):
    fill(engine, 100)
    page = client.get("/jobs?limit=100&fields=id,status,created_at").json
    assert (len(page["items"]), "ended_early" in page) == (100, False)


@pytest.mark.parametrize("path", ["/jobs", "/dlq"])
@pytest.mark.parametrize("fields", ["nope", "id,nope", "", "id,,status", "fingerprint"])
def test_a_field_that_is_none_is_named(client, path, fields):
    answer = client.get(f"{path}?fields={fields}")
    assert answer.status_code == 422
    assert answer.get_json(force=True)["errors"][0]["field"].startswith("fields")


def test_attempts_with_long_tracebacks_come_in_pages_that_are_not_too_large(client, engine):
    job = queued(engine)
    with preparing(engine) as connection:
        connection.execute(
            text("""
            INSERT INTO job_attempts (job_id, attempt, worker_id, started_at, outcome, traceback)
            SELECT :id, n, 'w', now(), 'failed', repeat('é', 16000) FROM generate_series(1, 150) AS n"""),
            {"id": job.id},
        )
    seen, on = [], ""
    while True:
        answer = client.get(f"/jobs/{job.id}/attempts?limit=1000{on}")
        seen.append([one["attempt"] for one in answer.json["items"]])
        assert len(seen[-1]) * 32_000 <= pages.PAGE_BYTES
        if answer.json["next_before"] is None:
            break
        on = f"&before={answer.json['next_before']}"
    assert [one for page in seen for one in page] == list(range(150, 0, -1))
    assert len(seen) == 3


@pytest.mark.parametrize("inside", [False, True], ids=["of-the-request", "of-the-payload"])
def test_a_batch_of_nonsense_is_answered_in_few_words(client, inside):
    wrong = {f"wrong{number}": 1 for number in range(20)}
    item = {"payload": {"task": "http", **wrong}} if inside else {"payload": {}, **wrong}
    answer = client.post("/jobs/batch", json={"jobs": [item] * 3_000})
    assert answer.json["invalid"] == 3_000
    assert all(one["errors"] for one in answer.json["items"])
    assert [len(one["errors"]) for one in (answer.json["items"][0], answer.json["items"][-1])] == [20, 1]
    assert len(answer.data) < 1_000_000
