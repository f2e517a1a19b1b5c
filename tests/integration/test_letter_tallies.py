"""Tallies of dead letters say at any moment what counting all letters would say, and cost the same however many there are."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from alembic.script import ScriptDirectory
from factories import dead_lettered, preparing
from sqlalchemy import text

from tasks.sweeps import fold_figures
from webapp.dead_letters import store, tallies
from webapp.dead_letters.model import DeadLetterFilter, ResolveRequest
from webapp.dead_letters.tallies import Hour
from webapp.infra.postgres.engine import in_transaction
from webapp.infra.postgres.sql_files import read_sql
from webapp.jobs import control

#: By which letters differ: task, queue and error.
KINDS = [
    (task, queue, error) for task in ("noop", "sleep") for queue in ("default", "slow") for error in "EF"
]
_ADD = text("""
    INSERT INTO dead_letters (job_id, reason, error_type, error_message, fingerprint, task, queue, tenant_id)
    SELECT uuidv7(), 'exhausted', :error, 'broken', :error, :task, :queue, :tenant FROM generate_series(1, :count)""")

_CLOSE = [
    text("UPDATE dead_letters SET requeued_at = now() WHERE fingerprint = :kind AND random() < :share"),
    text("UPDATE dead_letters SET discarded_at = now() WHERE fingerprint = :kind AND random() < :share"),
]


def add(connection, kind, count=1, tenant=1):
    task, queue, error = kind
    given = {"task": task, "queue": queue, "error": error, "count": count, "tenant": tenant}
    connection.execute(_ADD, given)


def counted(connection, wanted):
    """What counting all letters says: by group, and in all."""
    given = wanted.values()
    groups = connection.execute(store._of(store._GROUPS, wanted), given | {"limit": 1_000})
    total = connection.execute(store._of(store._COUNT, wanted), given).scalar_one()
    return {row[:4]: tuple(row[4:8]) for row in groups}, total


def told(connection, wanted):
    """The same, as tallies tell it."""
    groups = tallies.groups(connection, wanted, limit=1_000)
    found = {
        (one.task, one.queue, one.error_type, one.fingerprint): (
            one.count,
            one.first_dead_at,
            one.last_dead_at,
            one.sample_job_id,
        )
        for one in groups
    }
    assert [one.count for one in groups] == sorted((one.count for one in groups), reverse=True)
    return found, tallies.total(connection, wanted)


WANTED = [
    DeadLetterFilter(),
    DeadLetterFilter(task="noop"),
    DeadLetterFilter(queue="slow", error_type="E"),
    DeadLetterFilter(fingerprint="F", tenant=7),
    DeadLetterFilter(tenant=1, queues=("slow", "nowhere")),
    DeadLetterFilter(queues=()),
]


@pytest.mark.parametrize("seed", range(3))
def test_tallies_are_what_counting_says_whatever_is_done(engine, seed):
    rng = random.Random(seed)
    with engine.begin() as connection:
        for _ in range(40):
            what = rng.randrange(6)
            some = {"kind": rng.choice("EF"), "share": rng.random()}
            if what <= 2:
                add(connection, rng.choice(KINDS), rng.randint(1, 5), rng.choice((1, 7)))
            elif what == 3:
                connection.execute(rng.choice(_CLOSE), some)
            elif what == 4:
                connection.execute(
                    text("DELETE FROM dead_letters WHERE fingerprint = :kind AND random() < :share / 4"), some
                )
            else:
                tallies.fold(connection, rng.choice((3, 1_000)))
            for wanted in WANTED:
                assert told(connection, wanted) == counted(connection, wanted)
        assert tallies.recount(connection) == 0


def test_the_ways_of_a_job_into_the_queue_and_out_of_it_are_counted(client, engine):
    jobs = [dead_lettered(engine, task="noop") for _ in range(5)]
    assert client.get("/dlq/history").json["open"] == 5
    client.post(f"/dlq/{jobs[0].id}/requeue")
    client.post(f"/dlq/{jobs[1].id}/discard")
    client.post(f"/jobs/{jobs[2].id}/retry")
    assert client.get("/dlq/history?task=noop").json["open"] == 2
    (group,) = client.get("/dlq/groups").json["items"]
    assert group["count"] == 2
    query = {name: group[name] for name in ("task", "queue", "error_type", "fingerprint")}
    answer = client.get("/dlq/history", query_string=query).json
    assert (answer["open"], len(answer["hours"])) == (2, 24)
    # The hour may have changed meanwhile.
    assert [sum(one[name] for one in answer["hours"][-2:]) for name in ("opened", "closed")] == [5, 3]
    assert client.get("/dlq/history?task=sleep").json["open"] == 0
    assert client.get("/dlq/history?reason=exhausted").status_code == 422


def test_history_is_the_same_before_and_after_it_is_folded(engine, parts, client):
    with engine.begin() as connection:
        add(connection, KINDS[0], 7)
        connection.execute(text("UPDATE dead_letters SET discarded_at = now() WHERE id % 2 = 0"))
    before = client.get("/dlq/history").json
    assert fold_figures.run_fold(parts, batch=1) == 2
    assert client.get("/dlq/history").json == before
    assert fold_figures.run_fold(parts) == 0
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM letter_notes")).scalar_one() == 0


def test_what_is_over_is_forgotten(engine, parts):
    with engine.begin() as connection:
        for kind in KINDS[:2]:
            add(connection, kind, 3)
        connection.execute(text("UPDATE dead_letters SET discarded_at = now() WHERE fingerprint = 'E'"))
        tallies.fold(connection, 100)
        connection.execute(text("UPDATE letter_hours SET hour = hour - interval '3 days'"))
    fold_figures.run_fold(parts)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM letter_hours")).scalar_one() == 0
        assert connection.execute(text("SELECT fingerprint, open FROM letter_groups")).all() == [("F", 3)]


def test_one_session_folds_at_a_time(engine):
    with engine.begin() as connection:
        add(connection, KINDS[0])
    with engine.begin() as first, engine.begin() as second:
        assert tallies.fold(first, 10) == 1
        assert tallies.fold(second, 10) == 0
        assert tallies.forget(second) == 0
        assert tallies.total(second, DeadLetterFilter()) == 1


def test_sessions_that_bury_resolve_and_fold_at_once_lose_nothing(engine):
    jobs = [dead_lettered(engine).id for _ in range(60)]

    def resolve(number):
        request = ResolveRequest(DeadLetterFilter(ids=tuple(jobs[number::6])), by="test")
        if number % 2:
            in_transaction(engine, lambda connection: store.discard(connection, request, limit=99))
        elif number:
            in_transaction(
                engine, lambda connection: store.requeue(connection, request, limit=99, first=None)
            )
        else:
            for _ in range(5):
                in_transaction(engine, lambda connection: tallies.fold(connection, 4))
                in_transaction(engine, lambda connection: add(connection, KINDS[1]))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(resolve, range(6)))
    with engine.begin() as connection:
        assert told(connection, DeadLetterFilter()) == counted(connection, DeadLetterFilter())
        assert tallies.total(connection, DeadLetterFilter()) == 60 // 6 + 5
        assert tallies.recount(connection) == 0


def test_what_was_there_before_is_counted_once_however_often_it_is_asked(engine):
    with preparing(engine) as connection:
        # As a release before wrote it: without triggers, and the oldest without a task.
        connection.execute(text("ALTER TABLE dead_letters DISABLE TRIGGER USER"))
        for kind in KINDS:
            add(connection, kind, 3)
        connection.execute(
            text("INSERT INTO dead_letters (job_id, reason, fingerprint) VALUES (uuidv7(), 'exhausted', 'G')")
        )
        connection.execute(text("ALTER TABLE dead_letters ENABLE TRIGGER USER"))
    with engine.begin() as connection:
        add(connection, KINDS[0])
        tallies.fold(connection, 1)
        add(connection, KINDS[1])
        assert tallies.total(connection, DeadLetterFilter()) == 2
        assert tallies.recount(connection) == len(KINDS) + 1
        assert tallies.recount(connection) == 0
        assert told(connection, DeadLetterFilter()) == counted(connection, DeadLetterFilter())
        # It is no event of now.
        assert sum(one.opened for one in tallies.history(connection, DeadLetterFilter())) == 2


def test_the_migration_counts_as_the_room_does():
    scripts = ScriptDirectory("migrations")
    made = " ".join(scripts.get_revision("0037").module._RECOUNT.split())
    assert made == " ".join(read_sql(tallies.__file__, "tallies", "recount").split())


def test_groups_cost_the_same_however_many_letters_they_have(engine):
    with preparing(engine) as connection:
        for kind in KINDS:
            add(connection, kind, 2_500)
        tallies.fold(connection, 100)
        connection.execute(text("ANALYZE dead_letters, letter_groups, letter_notes"))
    wanted = DeadLetterFilter()
    for statement, more in ((tallies._GROUPS, {"limit": 20}), (tallies._TOTAL, {})):
        asked = text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {tallies._of(statement, wanted)}")
        with engine.connect() as connection:
            plan = connection.execute(asked, wanted.values() | more).scalar_one()[0]["Plan"]
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 200


def test_hours_without_letters_are_among_them():
    now = datetime(2026, 11, 28, 14, 59, tzinfo=UTC)
    seen = Hour(now.replace(minute=0) - timedelta(hours=3), 5, 1)
    hours = tallies.each_hour([seen, Hour(now - timedelta(days=9), 9, 9)], now)
    assert hours[-4] == seen
    assert sum(one.opened for one in hours) == 5


def test_a_job_that_is_retried_by_hand_closes_its_letter(engine):
    job = dead_lettered(engine)
    in_transaction(engine, lambda connection: control.requeue(connection, job.id))
    with engine.connect() as connection:
        assert tallies.total(connection, DeadLetterFilter()) == 0
