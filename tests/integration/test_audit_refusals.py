"""Refused calls go on record in sums: so many, of whom, and why."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from webapp.access.model import NewKey, Role
from webapp.audit import refusals
from webapp.audit.model import Actor, ActorKind, AuditFilter
from webapp.audit.refusals import Refusals

STRANGER = Actor(ActorKind.ADDRESS, "10.0.0.5", "10.0.0.5", "10.0.0.5", "a-request")


@pytest.fixture
def lines(app):
    """The sums on record, as (actor, reason, scope, calls)."""

    def read():
        found = app.extensions["audit"].page(AuditFilter(event="call.refused"), last=None, limit=100)
        assert all((one.success, one.request_id, one.changed) == (False, None, 0) for one in found)
        return sorted(
            (f"{one.actor_kind}:{one.actor_name}", one.reason, one.details.get("scope"), one.details["calls"])
            for one in found
        )

    return read


def test_refused_calls_are_summed_by_caller_reason_and_scope(another_app, lines):
    guarded = another_app(api_auth="keys")
    key = guarded.extensions["access"].create(NewKey("dashboard", Role.VIEWER), by=None)
    client, headers = guarded.test_client(), {"Authorization": f"Bearer {key.secret}"}
    for _ in range(3):
        assert client.get("/jobs").status_code == 401
        assert client.post("/queues/default/pause", headers=headers).status_code == 403
    assert client.get("/audit", headers=headers).status_code == 403
    assert client.get("/jobs", headers={"Authorization": "Bearer djps_k_bad"}).status_code == 401
    assert client.get("/jobs", headers=headers).status_code == 200
    assert client.get("/health").status_code == 200
    assert lines() == []
    assert guarded.extensions["refusals"].flush()
    assert lines() == [
        ("address:127.0.0.1", "malformed", None, 1),
        ("address:127.0.0.1", "no_key", None, 3),
        ("key:dashboard", "scope", "audit:read", 1),
        ("key:dashboard", "scope", "queues:manage", 3),
    ]
    assert not guarded.extensions["refusals"].flush()


def test_so_many_callers_are_told_apart_and_no_more(engine, lines, monkeypatch):
    monkeypatch.setattr(refusals, "MOST_TOLD_APART", 3)
    counted = Refusals(engine)
    for number in range(1_000):
        name = f"10.0.{number // 250}.{number % 250}"
        counted.note(Actor(ActorKind.ADDRESS, name, name, name), "no_key", None)
        counted.note(STRANGER, "no_key", None)
    assert counted.flush()
    found = lines()
    assert len(found) == 4
    assert sum(calls for *_, calls in found) == 2_000
    assert max(found, key=lambda one: one[3])[0] == "address:10.0.0.5"
    assert "address:others" in {one[0] for one in found}


def test_what_cannot_be_written_is_counted_on(engine, lines):
    counted = Refusals(engine)
    counted.note(STRANGER, "no_key", None)
    with engine.begin() as connection:
        connection.execute(
            text("ALTER TABLE audit_events ADD CONSTRAINT refused CHECK (event = 'none') NOT VALID")
        )
    try:
        assert counted.flush()
        assert lines() == []
    finally:
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE audit_events DROP CONSTRAINT refused"))
    counted.note(STRANGER, "no_key", None)
    assert counted.flush()
    assert lines() == [("address:10.0.0.5", "no_key", None, 2)]


def test_a_thread_writes_them(engine, lines, eventually):
    counted = Refusals(engine, period=0.05)
    counted.note(STRANGER, "no_key", None)
    assert eventually(lines) == [("address:10.0.0.5", "no_key", None, 1)]
