"""The record of acts as its readers see it: a page, lines of JSON, a table."""

from __future__ import annotations

import json

import pytest
from factories import queued

from webapp.access.model import NewKey, Role
from webapp.api import audit

LINES = {"Accept": "application/x-ndjson"}


@pytest.fixture
def acts(client, engine):
    """Seven jobs that were cancelled, the oldest first."""
    jobs = [queued(engine) for _ in range(7)]
    for job in jobs:
        assert client.post(f"/jobs/{job.id}/cancel", json={"reason": "ñ"}).status_code == 200
    return [str(job.id) for job in jobs]


def test_a_page_leads_to_the_next(client, acts):
    seen, cursor = [], None
    while True:
        more = {} if cursor is None else {"cursor": cursor}
        page = client.get("/audit", query_string={"limit": 3, "event": "job.cancel", **more}).json
        seen += [one["target_id"] for one in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == acts[::-1]


def test_events_are_looked_for_by_name(client, acts):
    found = client.get("/audit", query_string={"target": f"job:{acts[3]}"}).json["items"]
    assert [one["target_id"] for one in found] == [acts[3]]
    at = found[0]["at"]
    assert len(client.get("/audit", query_string={"after": at}).json["items"]) == 4
    assert len(client.get("/audit", query_string={"before": at}).json["items"]) == 3
    assert len(client.get("/audit", query_string={"actor": "address:127.0.0.1"}).json["items"]) == 7
    assert client.get("/audit", query_string={"actor": "key:1"}).json["items"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"event": "job.eat"}, "event"),
        ({"actor": "ada"}, "actor"),
        ({"target": ":7"}, "target"),
        ({"limit": 101}, "limit"),
        ({"after": "yesterday"}, "after"),
        ({"cursor": 0}, "cursor"),
        ({"user": "ada"}, "user"),
    ],
)
def test_what_cannot_be_looked_for_is_refused_by_name(client, query, field):
    answer = client.get("/audit", query_string=query)
    assert answer.status_code == 422
    assert [one["field"] for one in answer.json["errors"]] == [field]


def test_all_acts_are_lines_of_json(client, acts, monkeypatch):
    monkeypatch.setattr(audit, "AT_ONCE", 2)
    answer = client.get("/audit?limit=1", headers=LINES)
    assert answer.mimetype == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [one["target_id"] for one in lines] == acts[::-1]
    assert lines[0]["reason"] == "ñ"
    rest = client.get("/audit", query_string={"cursor": lines[2]["id"]}, headers=LINES)
    assert len(rest.text.splitlines()) == 4


def test_lines_have_an_end(client, acts, monkeypatch):
    monkeypatch.setattr(audit, "AT_ONCE", 2)
    monkeypatch.setattr(audit, "MOST_LINES", 4)
    assert len(client.get("/audit", headers=LINES).text.splitlines()) == 4


def test_a_reader_of_lines_holds_no_slot(app, client, acts):
    answer = client.get("/audit", headers=LINES, buffered=False)
    slots = app.extensions["work_slots"]
    free = app.extensions["settings"].api_threads
    with answer:
        assert slots.free() == free
        next(answer.iter_encoded())
        assert slots.free() == free


def test_only_an_admin_reads_the_record(another_app):
    guarded = another_app(api_auth="keys")
    client = guarded.test_client()
    keys = [(role, guarded.extensions["access"].create(NewKey("one", role), by=None)) for role in Role]
    for role, issued in keys:
        answer = client.get("/audit", headers={"Authorization": f"Bearer {issued.secret}"})
        assert answer.status_code == (200 if role is Role.ADMIN else 403)


def test_the_record_is_a_table_and_json_on_the_command_line(flask, acts):
    table = flask("audit", "list", "--event", "job.cancel")
    assert table.exit_code == 0
    assert all(one in table.stdout for one in acts)
    page = json.loads(flask("audit", "list", "--limit", 2, "--json").stdout)
    assert [one["target_id"] for one in page["items"]] == acts[:-3:-1]
    rest = flask("audit", "list", "--cursor", page["next_cursor"], "--json")
    assert len(json.loads(rest.stdout)["items"]) == 5
    assert "no acts" in flask("audit", "list", "--actor", "cli:ada").stdout
    assert flask("audit", "list", "--actor", "ada").exit_code == 2
