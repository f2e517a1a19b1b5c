"""`GET /jobs`: pages, filters, counts."""

from __future__ import annotations

import pytest
from factories import claimed, completed, queued


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
