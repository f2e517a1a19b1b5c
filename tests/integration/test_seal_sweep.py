"""The sweep that seals the record of acts: what it logs, counts and shows."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import text

from tasks.sweeps import seal_audit
from webapp.audit import store
from webapp.audit.model import SYSTEM, Act, Event
from webapp.audit.verifying import verify
from webapp.infra.postgres.engine import in_transaction
from webapp.infra.telemetry import metrics

KEY = "k" * 32


@pytest.fixture
def acts(engine):
    """Puts acts on record, in one transaction."""

    def put(number):
        def all_of_them(connection):
            for _ in range(number):
                store.add(connection, Act(Event.FLOW_CHANGE), SYSTEM)

        in_transaction(engine, all_of_them)

    return put


def breaks():
    (family,) = metrics.audit_breaks.collect()
    return next(one.value for one in family.samples if one.name == "audit_breaks_total")


def test_each_seal_is_a_log_line_by_which_it_can_be_asked_for(parts, engine, acts, caplog, eventually):
    acts(25)
    with caplog.at_level(logging.INFO, seal_audit.logger.name):
        # A transaction of another session may be in the way for a moment.
        eventually(lambda: seal_audit.run_seal(parts, batch=10) == 25)
        assert seal_audit.run_seal(parts, batch=10) == 0
    lines = [one for one in caplog.records if one.message == "audit sealed"]
    assert [(one.seal, one.events) for one in lines] == [(1, 10), (2, 10), (3, 5)]
    for line in lines:
        assert verify(engine, (), 400, digest=bytes.fromhex(line.sha256)).broken is None


def test_a_run_ends_when_its_time_is_up_and_the_next_one_goes_on(parts, acts, monkeypatch, eventually):
    acts(30)
    with monkeypatch.context() as patched:
        patched.setattr(seal_audit, "PLAN", replace(seal_audit.PLAN, seconds=0.0))
        assert seal_audit.run_seal(parts) == 0
    eventually(lambda: seal_audit.run_seal(parts) == 30)


def test_seals_are_signed_with_the_newest_key_which_is_shown_nowhere(parts, engine, acts, caplog, eventually):
    acts(3)
    both = f"{KEY},{'o' * 32}"
    signing = replace(parts, settings=parts.settings.model_copy(update={"audit_key": SecretStr(both)}))
    with caplog.at_level(logging.DEBUG):
        eventually(lambda: seal_audit.run_seal(signing) == 3)
    assert verify(engine, (KEY,), 400).signed == 1
    assert verify(engine, ("o" * 32,), 400).broken is not None
    assert KEY not in caplog.text
    assert KEY not in repr(signing.settings)


def test_a_seal_that_does_not_fit_is_counted_and_logged(parts, engine, acts, caplog, eventually):
    acts(3)
    eventually(lambda: seal_audit.run_seal(parts) == 3)
    before = breaks()
    assert seal_audit.run_look(parts) == 0
    assert breaks() == before
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE audit_events SET actor_name = 'another'"))
    with caplog.at_level(logging.ERROR, seal_audit.logger.name):
        assert seal_audit.run_look(parts) == 1
    assert breaks() == before + 1
    told = [(one.message, one.seal) for one in caplog.records if one.levelno == logging.ERROR]
    assert told == [("audit seal does not fit", 1)]
    acts(1)
    eventually(lambda: seal_audit.run_seal(parts) == 1), "what is new is sealed all the same"


def test_how_long_an_act_waits_for_its_seal_is_a_gauge(client, parts, engine, eventually):
    def age():
        families = text_string_to_metric_families(client.get("/metrics").text)
        found = [
            one.value
            for family in families
            for one in family.samples
            if one.name == "audit_unsealed_age_seconds"
        ]
        return found[0]

    assert age() == 0
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO audit_events (at, event, actor_kind, actor_id, actor_name) VALUES (:at, 'e', 'k', 'i', 'n')"
            ),
            {"at": hour_ago},
        )
    assert 3_600 <= age() < 4_000
    eventually(lambda: seal_audit.run_seal(parts) == 1)
    assert age() == 0
