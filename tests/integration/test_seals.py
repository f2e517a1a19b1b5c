"""Seals over the record of acts: what is changed, added or taken away later is found, with the seal that it breaks."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from webapp.audit import months, seal_store, store
from webapp.audit.model import SYSTEM, Act, Event, Named
from webapp.audit.sealing import seal_next
from webapp.audit.seals import Mark
from webapp.audit.tables import AuditEventRow
from webapp.audit.verifying import fault_of_one, verify
from webapp.infra.postgres.engine import in_transaction

ROOT = Path(__file__).resolve().parents[2]
KEY, OTHER_KEY = "k" * 32, "o" * 32
#: Days that acts are kept here.
DAYS = 400
#: Events of the record that is tampered with, and most that are in one of its seals.
MANY, BATCH = 60, 10


def add(connection, number=1):
    """Puts acts on record."""
    for one in range(number):
        act = Act(Event.JOB_CANCEL, Named("job", str(one)), reason="ñ", details={"n": 1.5, "a": [1]})
        store.add(connection, act, SYSTEM)


def act(engine, number=1):
    """Puts acts on record in one transaction."""
    in_transaction(engine, lambda connection: add(connection, number))


def put(engine, **values):
    """Puts an event on record whose columns are given; returns its id."""
    values = {
        "event": "job.cancel",
        "actor_kind": "system",
        "actor_id": "djps",
        "actor_name": "djps",
    } | values
    names = ", ".join(values)
    places = ", ".join(f"CAST(:{name} AS {'xid8' if name == 'xid' else 'text'})" for name in values)
    places = places.replace("CAST(:at AS text)", "CAST(:at AS timestamptz)")
    with engine.begin() as connection:
        sql = text(f"INSERT INTO audit_events ({names}) VALUES ({places}) RETURNING id")  # noqa: S608 - names of this file
        return connection.execute(sql, values).scalar_one()


def tamper(engine, sql, **values):
    """Runs a statement with triggers off, as a superuser can."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        assert connection.execute(text(sql), values).rowcount > 0, sql


def marks(engine):
    """Where the events are, in the order in which they are sealed."""
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT CAST(xid AS text), id FROM audit_events ORDER BY xid, id"))
        return [Mark(int(xid), number) for xid, number in rows]


@pytest.fixture
def record(engine, seal):
    """A sealed record of many transactions: its seals, and in which of them a place is."""
    for _ in range(MANY):
        act(engine)
    made = seal(BATCH)
    assert sum(one.events for one in made) == MANY
    return lambda mark: next(one.seq for one in made if mark <= one.up_to)


def test_a_record_that_no_one_has_touched_fits(engine, seal):
    assert verify(engine, (), DAYS).seals == 0
    act(engine, 25)
    made = seal(BATCH)
    assert [one.events for one in made] == [10, 10, 5]
    act(engine, 2)
    found = verify(engine, (), DAYS)
    assert (found.events, found.seals, found.gone, found.signed, found.unsealed) == (25, 3, 0, 0, 2)
    assert (found.broken, found.newest) == (None, made[-1].sha256.hex())


def test_every_column_is_sealed(engine, seal):
    act(engine)
    with engine.connect() as connection:
        values = {"xid": 0, "id": 0, "before": 2**63, "after_id": 0, "until_id": 2**62, "limit": 1}
        row = connection.execute(seal_store._UNSEALED, values).one()
    assert set(row._mapping) == set(AuditEventRow.__table__.columns.keys())


CHANGES = {
    "at": "at + interval '1 microsecond'",
    "xid": "CAST(CAST(CAST(CAST(xid AS text) AS numeric) + 1 AS text) AS xid8)",
    "event": "'job.retry'",
    "success": "NOT success",
    "actor_kind": "'key'",
    "actor_id": "'7'",
    "actor_name": "actor_name || ' '",
    "address": "'10.0.0.5'",
    "request_id": "'1'",
    "target_kind": "NULL",
    "target_id": "'2'",
    "matched": "0",
    "changed": "1",
    "reason": "'n'",
    "details": "details || '{\"n\": 1.50}'",
}


@pytest.mark.parametrize("column", CHANGES)
def test_a_change_of_any_column_is_found(engine, seal, column):
    act(engine, 3)
    seal()
    sql = f"UPDATE audit_events SET {column} = {CHANGES[column]} WHERE id = (SELECT min(id) + 1 FROM audit_events)"  # noqa: S608 - from the table above
    tamper(engine, sql)
    broken = verify(engine, (), DAYS).broken
    assert broken is not None
    assert broken.seq == 1


def test_one_byte_that_was_changed_is_found_with_its_seal(engine, record):
    place = marks(engine)[MANY // 2]
    tamper(engine, "UPDATE audit_events SET reason = 'ò' WHERE id = :id", id=place.id)
    found = verify(engine, (), DAYS)
    assert found.broken.seq == record(place)
    assert "was changed" in found.broken.why
    assert found.seals == record(place) - 1


@pytest.mark.parametrize("place", [0, MANY // 2, MANY - 1])
def test_a_row_that_was_deleted_is_found_with_its_seal(engine, record, place):
    gone = marks(engine)[place]
    tamper(engine, "DELETE FROM audit_events WHERE id = :id", id=gone.id)
    broken = verify(engine, (), DAYS).broken
    assert broken.seq == record(gone)
    assert "1 of its" in broken.why
    assert "is missing" in broken.why


def test_the_last_ten_rows_that_were_deleted_are_found_with_their_seal(engine, record):
    last = marks(engine)[-10:]
    tamper(engine, "DELETE FROM audit_events WHERE id = ANY(:ids)", ids=[one.id for one in last])
    broken = verify(engine, (), DAYS).broken
    assert broken.seq == record(last[0])
    assert "missing" in broken.why


@pytest.mark.parametrize("id_", [None, -5, 0])
def test_a_row_that_was_inserted_in_the_middle_is_found_with_its_seal(engine, record, id_):
    place = marks(engine)[MANY // 2]
    given = "nextval(pg_get_serial_sequence('audit_events', 'id'))" if id_ is None else str(id_)
    tamper(
        engine,
        "INSERT INTO audit_events (id, xid, event, actor_kind, actor_id, actor_name) OVERRIDING SYSTEM VALUE"  # noqa: S608 - from the list above
        f" VALUES ({given}, CAST(:xid AS xid8), 'job.cancel', 'key', '1', 'shop')",
        xid=str(place.xid),
    )
    (added,) = [one for one in marks(engine) if one.xid == place.xid and one != place]
    broken = verify(engine, (), DAYS).broken
    assert broken.seq == record(added)
    assert "was added" in broken.why


@pytest.mark.parametrize("seq", [1, 3])
def test_a_seal_that_was_deleted_is_found(engine, record, seq):
    tamper(engine, "DELETE FROM audit_seals WHERE seq = :seq", seq=seq)
    broken = verify(engine, (), DAYS).broken
    assert (broken.seq, broken.why) == (seq, "it is missing")


def test_a_seal_whose_place_the_next_ones_took_is_found(engine, record):
    tamper(engine, "DELETE FROM audit_seals WHERE seq = 3")
    with engine.connect() as connection:
        last = seal_store.newest(connection).seq
    for seq in range(4, last + 1):
        tamper(engine, "UPDATE audit_seals SET seq = seq - 1 WHERE seq = :seq", seq=seq)
    broken = verify(engine, (), DAYS).broken
    assert broken.seq == 3
    assert "does not follow seal 2" in broken.why


@pytest.mark.parametrize(
    "change",
    [
        "events = events - 1",
        "sealed_at = sealed_at + interval '1 day'",
        "sha256 = sha256(sha256)",
        "server = 1",
    ],
)
def test_a_seal_that_was_changed_is_found(engine, record, change):
    tamper(engine, f"UPDATE audit_seals SET {change} WHERE seq = 2")  # noqa: S608 - from the list above
    assert verify(engine, (), DAYS).broken.seq == 2


def test_last_seals_that_were_taken_away_or_made_anew_are_found_by_a_digest_of_the_log(engine, seal):
    act(engine, 30)
    made = seal(BATCH)
    assert verify(engine, (), DAYS, digest=made[-1].sha256).broken is None
    assert verify(engine, (), DAYS, digest=made[0].sha256).broken is None
    tamper(engine, "DELETE FROM audit_seals WHERE seq = 3")
    found = verify(engine, (), DAYS)
    assert (found.broken, found.unsealed) == (None, 10)
    assert verify(engine, (), DAYS, digest=made[-1].sha256).broken.seq == 3
    seal(BATCH)
    assert verify(engine, (), DAYS).broken is None
    assert verify(engine, (), DAYS, digest=made[-1].sha256).broken is not None


def test_a_record_that_was_made_anew_without_the_key_is_found(engine, seal):
    act(engine, 20)
    seal(BATCH, keys=(KEY,))
    assert verify(engine, (KEY,), DAYS).signed == 2
    assert verify(engine, (OTHER_KEY, KEY), DAYS).broken is None
    broken = verify(engine, (OTHER_KEY,), DAYS).broken
    assert broken.seq == 1
    assert "HMAC differs" in broken.why
    tamper(engine, "DELETE FROM audit_seals WHERE seq = 2")
    tamper(
        engine, "UPDATE audit_events SET actor_name = 'another' WHERE id = (SELECT max(id) FROM audit_events)"
    )
    seal(BATCH)
    assert verify(engine, (), DAYS).broken is None
    assert verify(engine, (KEY,), DAYS).broken.why == "it is not signed, and those before are"
    assert verify(engine, (KEY,), DAYS, may_be_unsigned=True).broken is None


@pytest.mark.parametrize(
    "sql", ["UPDATE audit_seals SET events = 1", "DELETE FROM audit_seals", "TRUNCATE audit_seals"]
)
def test_seals_are_only_added_to(engine, seal, sql):
    act(engine)
    seal()
    with pytest.raises(DBAPIError, match="only added to"), engine.begin() as connection:
        connection.execute(text(sql))


# The writer


def test_what_commits_late_is_sealed_in_its_order(engine, seal):
    with engine.begin() as early:
        add(early, 2)
        act(engine, 3)
        assert seal_next(engine, (), 1_000) is None, "what is later might be sealed before what is earlier"
    seal()
    found = verify(engine, (), DAYS)
    assert (found.events, found.unsealed, found.broken) == (5, 0, None)


def test_a_line_whose_transaction_is_taken_back_is_not_missed(engine, seal):
    act(engine)
    connection = engine.connect()
    add(connection)
    connection.rollback()
    connection.close()
    act(engine)
    seal()
    assert verify(engine, (), DAYS).events == 2


def test_eight_writers_are_sealed_without_a_break(settings, seal):
    engine = create_engine(settings.database_url, pool_size=10)
    done = threading.Event()

    def write(number):
        chance = random.Random(number)
        left = 1_000
        while left:
            size = min(left, chance.randint(1, 12))
            is_kept = chance.random() < 0.9
            with engine.connect() as connection:
                add(connection, size)
                if is_kept:
                    connection.commit()
                    left -= size

    def keep_sealing():
        seals = 0
        while not done.is_set():
            seals += seal_next(engine, (KEY,), 100) is not None
        return seals

    with ThreadPoolExecutor(2) as sealers, ThreadPoolExecutor(8) as writers:
        sealing = [sealers.submit(keep_sealing) for _ in range(2)]
        try:
            list(writers.map(write, range(8)))
        finally:
            done.set()
        assert sum(one.result() for one in sealing) > 1
    seal(100, keys=(KEY,))
    found = verify(engine, (KEY,), DAYS)
    engine.dispose()
    assert (found.broken, found.events, found.unsealed) == (None, 8_000, 0)


def test_only_one_seals_at_a_time(engine, seal):
    act(engine, 5)
    with engine.begin() as other:
        assert seal_store.alone(other)
        assert seal_next(engine, (), 1_000) is None
    assert sum(one.events for one in seal()) == 5


def test_two_writers_make_one_chain_whatever_the_lock_does(engine, seal):
    act(engine, 5)
    (made,) = seal()
    with pytest.raises(IntegrityError), engine.begin() as connection:
        seal_store.add(connection, made)


def test_acts_wait_for_no_seal(engine, seal):
    act(engine)
    with engine.begin() as sealing:
        assert seal_store.alone(sealing)
        sealing.execute(text("LOCK TABLE audit_seals IN ACCESS EXCLUSIVE MODE"))
        act(engine)
    seal()
    assert verify(engine, (), DAYS).events == 2


#: Seals on and on, a line in each seal.
WRITER = """
from sqlalchemy import create_engine
from webapp.audit.sealing import seal_next
from webapp.settings import current
engine = create_engine(current().database_url)
while True:
    seal_next(engine, (), 1)
"""


def test_a_writer_that_is_killed_between_seals_leaves_none_half_made(engine, settings, seal, eventually):
    act(engine, 2_000)
    environment = {**os.environ, "DATABASE_URL": settings.database_url}
    seen = 0
    for _ in range(2):
        writer = subprocess.Popen([sys.executable, "-c", WRITER], cwd=ROOT, env=environment)
        try:
            enough = seen + 30
            eventually(lambda enough=enough: newest_seq(engine) > enough)
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        # PostgreSQL notices that it has gone when it answers.
        eventually(lambda: verify(engine, (), DAYS).broken is None)
        seen = newest_seq(engine)
    seal()
    found = verify(engine, (), DAYS)
    assert (found.broken, found.events) == (None, 2_000)


def newest_seq(engine):
    with engine.connect() as connection:
        return seal_store.newest(connection).seq


def test_lines_are_sealed_by_the_number_of_their_transaction_and_not_by_its_text(engine, seal):
    for xid in ("100", "9", "11", "99"):
        put(engine, xid=xid)
    assert [one.up_to.xid for one in seal(batch=1)] == [9, 11, 99, 100]
    found = verify(engine, (), DAYS)
    assert (found.broken, found.events, found.unsealed) == (None, 4, 0)


# Restored elsewhere


def test_a_record_goes_on_where_transactions_are_numbered_anew(engine, seal):
    act(engine, 5)
    seal(server=1)
    # Committed, and not sealed, when the dump was made; the other server had numbered further.
    rest = put(engine, xid=str(10**15))
    later = put(engine, xid="7")
    act(engine)
    assert verify(engine, (), DAYS).broken is None
    closing, beginning, *following = seal(server=2)
    assert (closing.server, closing.events, closing.greatest_id) == (1, 1, rest)
    assert (beginning.server, beginning.events, beginning.after_id) == (2, 0, rest)
    assert sum(one.events for one in following) == 2
    found = verify(engine, (), DAYS)
    assert (found.broken, found.events, found.unsealed) == (None, 8, 0)
    tamper(engine, "DELETE FROM audit_events WHERE id = :id", id=later)
    assert verify(engine, (), DAYS).broken.seq == following[0].seq


def test_a_record_without_seals_that_comes_from_elsewhere_is_sealed_as_well(engine, seal):
    rest = put(engine, xid=str(10**15))
    put(engine, xid="7")
    act(engine)
    closing, beginning, *_ = seal()
    assert (closing.server, closing.greatest_id, beginning.after_id) == (0, rest, rest)
    found = verify(engine, (), DAYS)
    assert (found.broken, found.events, found.unsealed) == (None, 3, 0)


def test_a_server_that_numbers_further_seals_what_was_restored(engine, seal):
    act(engine, 5)
    seal(server=1)
    act(engine, 2)
    assert [one.events for one in seal(server=2)] == [0, 2]
    found = verify(engine, (), DAYS)
    assert (found.broken, found.events, found.unsealed) == (None, 7, 0)


def test_a_line_that_was_put_before_the_first_of_a_numbering_is_found(engine, seal):
    act(engine, 5)
    seal(server=1)
    act(engine, 2)
    beginning, _ = seal()
    assert beginning.up_to.xid > 3
    put(engine, xid="3")
    found = verify(engine, (), DAYS)
    assert (found.broken.seq, found.unsealed) == (beginning.seq, 0)
    assert "was added" in found.broken.why


# Age


def test_months_go_when_they_are_sealed_and_their_seals_stay(engine, seal):
    now = datetime.now(UTC)
    for days in (700, 699, 500):
        put(engine, at=(now - timedelta(days=days)).isoformat())
    assert months.keep(engine, now, DAYS) == [], "what has no seal is kept"
    old = len(seal())
    act(engine, 3)
    seal()
    assert verify(engine, (), DAYS).events == 6
    assert months.keep(engine, now, DAYS) == ["audit_events_rest"]
    found = verify(engine, (), DAYS)
    assert (found.broken, found.gone, found.events) == (None, old, 3)
    broken = verify(engine, (), 800).broken
    assert broken.seq == 1
    assert "missing" in broken.why


# As it is used


def test_the_command_says_what_fits_and_what_does_not(flask, engine, seal):
    said = flask("audit", "verify")
    assert (said.exit_code, said.stdout.splitlines()[0]) == (0, "events that fit: 0")
    act(engine, 25)
    made = seal(BATCH)
    act(engine)
    said = flask("audit", "verify", "--digest", made[-1].sha256.hex())
    assert said.exit_code == 0
    assert said.stdout.splitlines() == [
        "events that fit: 25",
        "seals that fit: 3",
        f"the last seal that fits: {made[-1].sha256.hex()}",
        "events not sealed yet: 1",
    ]
    assert flask("audit", "verify", "--digest", "abc").exit_code == 2
    assert flask("audit", "verify", "--digest", "0" * 64).exit_code == 1
    tamper(
        engine, "UPDATE audit_events SET reason = 'none' WHERE id = (SELECT min(id) + 12 FROM audit_events)"
    )
    said = flask("audit", "verify")
    assert said.exit_code == 1
    assert said.stdout.splitlines()[:3] == [
        "seal 2 does not fit: an event, or what the seal says of itself, was changed",
        "events that fit: 10",
        "seals that fit: 1",
    ]
    said = flask("audit", "verify", "--json")
    assert said.exit_code == 1
    assert '"seq": 2' in said.stdout


def test_signed_seals_and_those_that_went_for_their_age_are_told_of(another_app, engine, seal):
    put(engine, at=(datetime.now(UTC) - timedelta(days=500)).isoformat())
    seal(keys=(KEY,))
    months.keep(engine, datetime.now(UTC), DAYS)
    for key, words in (
        ("", "seals that are signed: 1 (AUDIT_KEY is not set"),
        (KEY, "seals that are signed: 1\n"),
    ):
        other = another_app(audit_key=key)
        with other.app_context():
            said = other.test_cli_runner().invoke(args=["audit", "verify"]).stdout
        assert words in said
        assert "gone for their age, which fit the chain: 1" in said
        assert KEY not in said


def test_one_seal_is_looked_at_by_itself(engine, record):
    with engine.connect() as connection:
        last = seal_store.newest(connection).seq
        assert [fault_of_one(connection, seq, (), DAYS) for seq in range(1, last + 1)] == [None] * last
    place = marks(engine)[MANY // 2]
    tamper(engine, "UPDATE audit_events SET reason = NULL WHERE id = :id", id=place.id)
    tamper(engine, "DELETE FROM audit_seals WHERE seq = 2")
    with engine.connect() as connection:
        assert fault_of_one(connection, 1, (), DAYS) is None
        assert fault_of_one(connection, 2, (), DAYS).why == "it is missing"
        assert fault_of_one(connection, 3, (), DAYS).seq == 2
        assert fault_of_one(connection, record(place), (), DAYS).seq == record(place)
