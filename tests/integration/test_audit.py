"""The record of acts: each act has its line, each line its act, and no line is ever changed."""

from __future__ import annotations

import getpass
import json
import os
import pwd
from datetime import UTC, datetime, time, timedelta
from uuid import uuid4

import pytest
from factories import claimed, completed, dead_lettered, queued
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from webapp.access.model import NewKey, Role
from webapp.audit import months, store
from webapp.audit.model import SYSTEM, Act, AuditFilter, Event, Named
from webapp.flow.reach import EVERYTHING
from webapp.infra.postgres.engine import in_transaction

USER = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def events(app):
    """The events on record, the newest first."""

    def read(**wanted):
        return app.extensions["audit"].page(AuditFilter(**wanted), last=None, limit=100)

    return read


def brief(events):
    """What was done to what by whom, the oldest first."""
    return [
        (one.event, f"{one.target_kind}:{one.target_id}", f"{one.actor_kind}:{one.actor_name}")
        for one in reversed(events)
    ]


@pytest.fixture
def breaks(engine):
    """Has every line of the record refused until the test ends."""
    with engine.begin() as connection:
        connection.execute(
            text("ALTER TABLE audit_events ADD CONSTRAINT refused CHECK (event = 'none') NOT VALID")
        )
    yield
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit_events DROP CONSTRAINT refused"))


# Acts


def test_a_cancellation_is_on_record_once(client, engine, events):
    job, claim = queued(engine), claimed(engine)
    for one in (job, job, claim, claim):
        answer = client.post(f"/jobs/{one.id}/cancel", json={"reason": "a mistake"})
        assert answer.status_code in {200, 202}
    found = events()
    assert brief(found) == [("job.cancel", f"job:{one.id}", "address:127.0.0.1") for one in (job, claim)]
    assert {one.reason for one in found} == {"a mistake"}
    assert [one.details for one in found] == [{"answer": "asked"}, {"answer": "cancelled"}]
    assert all(one.success and one.address == "127.0.0.1" for one in found)


def test_a_retry_is_on_record_with_its_request(client, engine, events):
    job = dead_lettered(engine)
    answer = client.post(f"/jobs/{job.id}/retry", json={"reason": "mended"})
    assert answer.status_code == 200
    (found,) = events()
    assert (found.event, found.target_id, found.reason) == ("job.retry", str(job.id), "mended")
    assert found.request_id == answer.headers["X-Request-ID"]


def test_what_changes_nothing_is_not_on_record(client, engine, events):
    job = completed(engine)
    assert client.post(f"/jobs/{job.id}/cancel").status_code == 409
    assert client.post(f"/jobs/{job.id}/retry").status_code == 409
    assert client.post(f"/jobs/{uuid4()}/cancel").status_code == 404
    assert client.post(f"/dlq/{job.id}/discard").status_code == 409
    assert client.post("/dlq/discard", json={"all": True}).json["changed"] == 0
    assert client.post("/dlq/requeue", json={"all": True, "dry_run": True}).status_code == 200
    assert client.post("/queues/default/resume").status_code == 200
    assert client.post("/jobs", json={"payload": {"task": "noop"}}).status_code == 201
    assert client.get(f"/jobs/{job.id}").status_code == 200
    assert events() == []


def test_a_dead_letter_that_another_session_holds_is_not_on_record(client, engine, events):
    job = dead_lettered(engine)
    with engine.begin() as other:
        other.execute(text("SELECT FROM dead_letters WHERE job_id = :id FOR UPDATE"), {"id": job.id})
        assert client.post(f"/dlq/{job.id}/discard").status_code == 409
    assert events() == []


def test_dead_letters_are_on_record_one_by_one_and_in_bulk(client, engine, events):
    jobs = [dead_lettered(engine) for _ in range(5)]
    client.post(f"/dlq/{jobs[0].id}/requeue", json={"why": "mended"})
    client.post(f"/dlq/{jobs[1].id}/discard")
    client.post("/dlq/requeue", json={"ids": [str(job.id) for job in jobs[:3]], "why": "all of them"})
    client.post("/dlq/discard", json={"filter": {"queue": "default"}})
    last, bulk, second, first = events()
    assert (first.event, first.target_id, first.matched, first.changed) == (
        "dlq.requeue",
        str(jobs[0].id),
        1,
        1,
    )
    assert (second.event, second.target_id) == ("dlq.discard", str(jobs[1].id))
    assert (bulk.target_id, bulk.matched, bulk.changed, bulk.reason) == (None, 1, 1, "all of them")
    assert bulk.details == {"ids": [str(job.id) for job in jobs[:3]], "selected": 3}
    assert (last.event, last.matched, last.changed) == ("dlq.discard", 2, 2)
    assert last.details == {"filter": {"queue": "default"}}


def test_who_did_it_cannot_be_made_up(another_app, engine, events):
    guarded = another_app(api_auth="keys")
    issued = guarded.extensions["access"].create(NewKey("shop", Role.OPERATOR), by="a test")
    client, headers = guarded.test_client(), {"Authorization": f"Bearer {issued.secret}"}
    job, other = dead_lettered(engine), dead_lettered(engine)
    by = {"by": "ceo@example.com", "why": "because"}
    assert client.post(f"/dlq/{job.id}/discard", json=by, headers=headers).status_code == 200
    assert client.post(f"/dlq/{other.id}/discard", headers=headers).status_code == 200
    assert client.post("/queues/default/pause", json=by, headers=headers).status_code == 200
    paused, plain, made_up, _ = events()
    for one in (made_up, paused):
        assert (one.actor_kind, one.actor_id, one.actor_name) == ("key", str(issued.key.id), "shop")
        assert one.details["on_behalf_of"] == "ceo@example.com"
    assert "on_behalf_of" not in plain.details
    assert (
        client.get("/dlq/letters?state=discarded", headers=headers).json["items"][0]["resolved_by"] == "shop"
    )


def test_a_change_of_flow_is_on_record_with_what_was_before(client, events):
    assert client.post("/queues/default/pause", json={"why": "maintenance"}).status_code == 200
    (found,) = events()
    assert (found.event, found.target_kind, found.target_id) == ("flow.change", "flow", "queues/default")
    assert found.details == {"old": {"paused": False}, "new": {"paused": True}}
    assert found.reason == "maintenance"


def test_commands_are_on_record_by_the_user_of_the_system(flask, engine, events, monkeypatch):
    monkeypatch.setenv("USER", "ceo")
    monkeypatch.setenv("LOGNAME", "ceo")
    assert getpass.getuser() == "ceo"
    job, letter = queued(engine), dead_lettered(engine)
    assert flask("jobs", "cancel", job.id, "--reason", "a mistake").exit_code == 0
    assert flask("jobs", "retry", job.id, "--reason", "it was none").exit_code == 0
    assert flask("dlq", "discard", "--id", letter.id).exit_code == 0
    assert flask("queues", "pause", "default").exit_code == 0
    found = events()
    assert [one.event for one in reversed(found)] == ["job.cancel", "job.retry", "dlq.discard", "flow.change"]
    assert {(one.actor_kind, one.actor_name, one.address) for one in found} == {("cli", USER, None)}
    assert found[1].details["on_behalf_of"] == "ceo"


def test_acts_on_keys_are_on_record_without_their_secrets(flask, events):
    said = [flask("access", "init", "--json")]
    said.append(flask("access", "key", "create", "shop", "--role", "viewer", "--by", "ada", "--json"))
    number = json.loads(said[1].stdout)["id"]
    said.append(flask("access", "key", "rotate", number, "--overlap", "60", "--json"))
    for _ in range(2):
        assert flask("access", "key", "revoke", number).exit_code == 0
    found = events()
    assert [one.event for one in reversed(found)] == ["key.init", "key.create", "key.rotate", "key.revoke"]
    assert {one.target_id for one in found[:3]} == {str(number)}
    assert found[2].details == {
        "name": "shop",
        "role": "viewer",
        "scopes": [],
        "networks": [],
        "queues": [],
        "quotas": {},
        "on_behalf_of": "ada",
    }
    assert flask("access", "init").exit_code == 1
    assert len(events()) == 4
    assert not any(json.loads(one.stdout)["secret"] in str(found) for one in said)


@pytest.mark.usefixtures("breaks")
def test_what_cannot_be_recorded_is_not_done(client, flask, engine, service):
    job, letter = queued(engine), dead_lettered(engine)
    for path in (f"/jobs/{job.id}/cancel", f"/jobs/{letter.id}/retry", f"/dlq/{letter.id}/discard"):
        assert client.post(path).status_code >= 500, path
    assert client.post("/queues/default/pause").status_code >= 500
    assert flask("access", "init").exit_code != 0
    assert service.get(job.id, EVERYTHING).status == "queued"
    assert service.get(letter.id, EVERYTHING).status == "failed"
    assert client.get("/queues/default").json["paused"] is False
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM access_keys")).scalar() == 0


def test_a_line_is_written_by_the_transaction_of_its_act(client, engine):
    job = queued(engine)
    assert client.post(f"/jobs/{job.id}/cancel").status_code == 200
    with engine.connect() as connection:
        of_line = connection.execute(text("SELECT CAST(xid AS text) FROM audit_events")).scalar_one()
        of_act = connection.execute(
            text("SELECT CAST(xmin AS text) FROM jobs WHERE id = :id"), {"id": job.id}
        ).scalar_one()
    assert of_line == of_act


# The table


def note(engine, event=Event.JOB_CANCEL, at=None, target="1"):
    """Puts an event on record, at some time."""

    def once(connection):
        if at is not None:
            connection.execute(text(f"ALTER TABLE audit_events ALTER at SET DEFAULT '{at.isoformat()}'"))
        store.add(connection, Act(event, Named("job", target)), SYSTEM)
        connection.execute(text("ALTER TABLE audit_events ALTER at SET DEFAULT now()"))

    in_transaction(engine, once)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE {table} SET reason = 'another'",
        "UPDATE {table} SET at = at + interval '1 month'",
        "DELETE FROM {table}",
        "TRUNCATE {table}",
    ],
)
@pytest.mark.parametrize("of", ["parent", "month", "rest"])
def test_a_line_is_never_changed_nor_taken_away(engine, events, sql, of):
    note(engine, at=datetime.now(UTC) - timedelta(days=400) if of == "rest" else None)
    with engine.connect() as connection:
        lies_in = connection.execute(text("SELECT CAST(tableoid AS regclass) FROM audit_events")).scalar_one()
    assert (lies_in == "audit_events_rest") == (of == "rest")
    table = "audit_events" if of == "parent" else lies_in
    with pytest.raises(DBAPIError, match="only added to"), engine.begin() as connection:
        connection.execute(text(sql.format(table=table)))
    assert len(events()) == 1


def partitions(engine):
    with engine.connect() as connection:
        return {
            str(row[0])
            for row in connection.execute(
                text("SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'audit_events'::regclass")
            )
        }


def test_months_are_made_ahead_and_dropped_when_they_are_old(engine, events, seal):
    now = datetime.now(UTC)
    before = partitions(engine)
    assert months.keep(engine, now, 400) == []
    assert partitions(engine) == before
    note(engine)
    # A moment after this month, and none other, is 400 days old.
    end = datetime.combine(months.next_month(now.date()), time(), UTC)
    later = end + timedelta(days=400, minutes=1)
    seal()
    gone = months.keep(engine, later, 400)
    try:
        assert gone == [months.name_of(now.date().replace(day=1))]
        assert events() == []
        assert len(partitions(engine) - before) >= 3
    finally:
        for name in partitions(engine) - before:
            in_transaction(
                engine, lambda connection, name=name: connection.execute(text(f"DROP TABLE {name}"))
            )
        months.keep(engine, now, 10_000)
    assert partitions(engine) == before


def test_events_without_a_month_go_when_all_of_them_are_old(engine, events, seal):
    now = datetime.now(UTC)
    note(engine, at=now - timedelta(days=399))
    note(engine, at=now - timedelta(days=401))
    assert months.keep(engine, now, 400) == []
    assert len(events()) == 2
    seal()
    assert months.keep(engine, now + timedelta(days=2), 400) == ["audit_events_rest"]
    assert events() == []
    note(engine, at=now - timedelta(days=10_000))
    with pytest.raises(DBAPIError, match="only added to"), engine.begin() as connection:
        connection.execute(text("TRUNCATE audit_events_rest"))


def test_events_are_found_by_what_by_whom_about_what_and_when(engine, events):
    now = datetime.now(UTC)
    for number in range(4):
        event = Event.JOB_CANCEL if number % 2 else Event.JOB_RETRY
        note(engine, event, now - timedelta(minutes=number), target=str(number))
    assert [one.target_id for one in events()] == ["3", "2", "1", "0"]
    assert [one.target_id for one in events(event="job.cancel")] == ["3", "1"]
    assert [one.target_id for one in events(target=Named("job", "2"))] == ["2"]
    assert events(target=Named("key", "2")) == []
    assert len(events(actor=Named("system", "djps"))) == 4
    assert events(actor=Named("cli", "djps")) == []
    assert [one.target_id for one in events(after=now - timedelta(seconds=90))] == ["1", "0"]
    assert [one.target_id for one in events(before=now - timedelta(seconds=90))] == ["3", "2"]
