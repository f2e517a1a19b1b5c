"""Keys of jobs: kept on a job of any queue, shown, and found by an index."""

from __future__ import annotations

import pytest
from factories import completed, queued
from sqlalchemy import text

from webapp.jobs.filters import Filter
from webapp.jobs.options import Terms

PAYLOAD = {"task": "noop"}


def submit(client, **options):
    return client.post("/jobs", json={"payload": PAYLOAD, **options})


@pytest.mark.parametrize("key", ["acme", "x" * 200, "Zürich 🦊 / ?", "*", '{"a": 1}', " ", "\x7f"])
def test_any_text_is_a_key_and_comes_back(client, key):
    answer = submit(client, key=key)
    assert answer.status_code == 201
    assert answer.json["key"] == key
    assert client.get(f"/jobs/{answer.json['id']}").json["key"] == key
    found = client.get("/jobs", query_string={"key": key}).json
    assert [one["id"] for one in found["items"]] == [answer.json["id"]]


def test_a_job_without_a_key_has_none(client):
    assert submit(client).json["key"] is None
    assert submit(client, key=None).json["key"] is None


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        ("", "must have at least 1 characters"),
        ("x" * 201, "must have at most 200 characters"),
        (17, "must be a string"),
        ("a\x00b", "must not contain"),
    ],
)
def test_a_wrong_key_is_refused_by_name(client, key, rule):
    answer = submit(client, key=key)
    assert answer.status_code == 422
    assert "key" in answer.json["detail"]
    assert rule in answer.json["detail"]


def test_the_jobs_of_a_batch_have_keys_of_their_own(client):
    jobs = [{"payload": PAYLOAD, "key": "a"}, {"payload": PAYLOAD}, {"payload": PAYLOAD, "key": "b"}]
    items = client.post("/jobs/batch", json={"jobs": jobs}).json["items"]
    assert [client.get(f"/jobs/{one['id']}").json["key"] for one in items] == ["a", None, "b"]


def test_the_key_is_part_of_the_request(client):
    first = submit(client, key="a", idempotency_key="once")
    assert submit(client, key="a", idempotency_key="once").json["id"] == first.json["id"]
    assert submit(client, key="b", idempotency_key="once").status_code == 422


def test_jobs_of_a_key_are_found_whatever_their_state_newest_first(client, engine):
    terms = Terms(key="acme")
    ended = completed(engine, terms=terms)
    waits = queued(engine, terms=terms)
    queued(engine, terms=Terms(key="acme2"))
    queued(engine)
    found = client.get("/jobs?key=acme").json
    assert [one["id"] for one in found["items"]] == [str(waits.id), str(ended.id)]
    assert (found["total"], found["total_is_estimate"]) == (2, False)
    assert [one["id"] for one in client.get("/jobs?key=acme&status=completed").json["items"]] == [
        str(ended.id)
    ]
    assert client.get("/jobs?key=acme&task=sleep").json["items"] == []
    older = client.get("/jobs", query_string={"key": "acme", "cursor": str(waits.id)}).json
    assert [one["id"] for one in older["items"]] == [str(ended.id)]


def test_a_key_is_no_search():
    assert not Filter(key="acme").is_search
    assert Filter(key="acme", task="noop").is_search


def test_every_table_has_the_index_and_jobs_without_a_key_are_in_none(engine):
    queued(engine)
    completed(engine)
    with engine.connect() as connection:
        rows = connection.execute(
            text("""SELECT inhrelid::regclass::text, indexrelid::regclass::text, pg_relation_size(indexrelid), reltuples
                      FROM pg_inherits LEFT JOIN (pg_index JOIN pg_class ON pg_class.oid = indexrelid)
                        ON indrelid = inhrelid AND relname LIKE '%by_key'
                     WHERE inhparent = 'jobs'::regclass""")
        ).all()
    assert len(rows) >= 2
    assert all(index is not None for _, index, _, _ in rows)


def test_the_command_line_takes_a_key(flask, client):
    job = flask("jobs", "submit", '{"task": "noop"}', "--job-key", "acme").output.strip()
    assert client.get(f"/jobs/{job}").json["key"] == "acme"
    assert job in flask("jobs", "list", "--key", "acme").output
    assert "no jobs" in flask("jobs", "list", "--key", "other").output
