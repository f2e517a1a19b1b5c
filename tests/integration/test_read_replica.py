"""Lists that are read from a streaming standby, and from the primary when the standby will not do."""

from __future__ import annotations

import json
import math
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from factories import completed, dead_lettered, queued
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from standby import Standby

from webapp.infra.postgres import deadlines, replica
from webapp.infra.postgres.replica import Answer, ReadReplica
from webapp.infra.postgres.staleness import ASK_REPLICA, Reason, ReplicaSays
from webapp.jobs.filters import first_id
from webapp.jobs.options import Terms

HEADER = "DJPS-Staleness"
#: A bound that no test reaches, seconds.
FAR = 3_600.0
#: Every list, and what it is asked for.
LISTS = (
    "/jobs",
    "/jobs?status=queued",
    "/jobs?task=noop&queue=default&fields=id,payload",
    "/jobs?tag=blue",
    '/jobs?payload={"a":1}',
    "/dlq",
    "/dlq/letters",
    "/dlq/groups",
    "/dlq/history",
)


@pytest.fixture(scope="module")
def follower(application, settings):
    with Standby(settings.database_url) as made:
        yield made


@pytest.fixture
def standby(follower, clean):
    """The standby, which has all that there is."""
    follower.resume()
    follower.caught_up()
    yield follower
    follower.resume()


@pytest.fixture
def reading(another_app):
    """Makes clients of applications that read lists from a replica."""
    made = []

    def client(url, **changes):
        made.append(another_app(database_read_url=url, **changes))
        return made[-1].test_client()

    yield client
    for app in made:
        app.extensions["replica"].close()
    deadlines._gate.open()


@pytest.fixture
def told(engine, standby):
    """Readers over the standby, and what they tell."""

    class Told(list):
        def reader(self, url=None, bound=FAR):
            self.replica = ReadReplica(url or standby.url, engine, bound=bound, tell=self.append)
            return self.replica.up_to(math.inf)

    found = Told()
    yield found
    found.replica.close()


def ids_of(answer):
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json["items"]]


def answered_by_replica(answer):
    assert answer.status_code == 200, answer.text
    return HEADER in answer.headers


def commit(engine):
    """Commits a transaction that changes nothing.

    The server sends whole pages of what is not committed yet, as of autovacuum for a while: the last of them may end within
    a record, and a replica that waits for the rest of it, 20 seconds and more, counts as behind. A commit sends the rest.
    """
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_current_xact_id()"))


@pytest.fixture
def comes_to_answer(engine, eventually):
    """Waits until the replica answers a client; on a busy machine it may be further behind for a moment."""

    def answers(client):
        commit(engine)
        answer = client.get("/jobs")
        return answer if answered_by_replica(answer) else None

    return lambda client: eventually(lambda: answers(client))


def one_of_each(engine):
    queued(engine, payload={"task": "noop", "a": 1}, terms=Terms(tags=("blue",)))
    completed(engine)
    dead_lettered(engine)


@pytest.mark.parametrize("path", LISTS)
def test_a_list_comes_from_the_replica_and_says_how_old_it_is_at_most(reading, standby, engine, client, path):
    one_of_each(engine)
    standby.caught_up()
    answer = reading(standby.url).get(path)
    assert answered_by_replica(answer)
    assert 0 <= float(answer.headers[HEADER]) <= 5
    assert len(answer.headers[HEADER].partition(".")[2]) == 3
    primarys = client.get(path)
    assert HEADER not in primarys.headers
    assert answer.json == primarys.json


def test_what_is_looked_up_by_its_id_comes_from_the_primary(reading, standby, engine):
    client = reading(standby.url, read_staleness=FAR)
    standby.pause()
    job = completed(engine)
    assert ids_of(answer := client.get("/jobs")) == []
    assert answered_by_replica(answer)
    for path in ("", "?wait=1", "/attempts", "/explain"):
        found = client.get(f"/jobs/{job.id}{path}")
        assert (found.status_code, HEADER in found.headers) == (200, False)
    refused = client.get("/jobs?limit=none")
    assert (refused.status_code, HEADER in refused.headers) == (422, False)


def test_what_is_decided_is_decided_by_the_primary(reading, standby, engine):
    """The replica knows none of these jobs."""
    client = reading(standby.url, read_staleness=FAR)
    standby.pause()
    dead, again = dead_lettered(engine), dead_lettered(engine)
    assert answered_by_replica(client.get("/dlq"))
    made = client.post("/jobs", json={"payload": {"task": "noop"}, "idempotency_key": "k"})
    assert made.status_code == 201
    assert client.post("/jobs", json={"payload": {"task": "noop"}, "idempotency_key": "k"}).status_code == 200
    assert client.post(f"/jobs/{made.json['id']}/cancel").status_code == 200
    assert client.post(f"/dlq/{dead.id}/requeue").status_code == 200
    assert client.post("/dlq/discard", json={"ids": [str(again.id)]}).json["changed"] == 1


def test_the_age_that_is_said_is_no_less_than_the_age_of_what_is_missing(
    reading, standby, engine, eventually
):
    client = reading(standby.url, read_staleness=FAR)
    queued(engine)
    standby.caught_up()
    standby.pause()
    queued(engine)
    committed = time.monotonic()

    def is_old():
        asked = time.monotonic()
        answer = client.get("/jobs")
        assert len(ids_of(answer)) == 1
        assert float(answer.headers[HEADER]) >= asked - committed
        return asked - committed > 1

    assert eventually(is_old)


def test_a_replica_that_is_behind_its_bound_is_not_read_and_is_again_when_it_is_not(
    reading, standby, engine, eventually, comes_to_answer
):
    client = reading(standby.url, read_staleness=0.5)
    standby.pause()
    job = queued(engine)
    eventually(lambda: not answered_by_replica(client.get("/jobs")))
    assert ids_of(client.get("/jobs")) == [str(job.id)]
    standby.resume()
    assert ids_of(comes_to_answer(client)) == [str(job.id)]


def test_a_replay_that_stands_still_is_as_good_as_any_while_nothing_is_missing(
    reading, standby, engine, eventually
):
    client = reading(standby.url, read_staleness=0.2)

    def stands_still_and_answers():
        standby.resume()
        standby.caught_up()
        standby.pause()
        eventually(lambda: says(standby.url).replayed_age > 0.5)
        return float(client.get("/jobs").headers.get(HEADER, "inf")) < 0.2

    queued(engine)
    # Autovacuum may write between the two.
    eventually(stands_still_and_answers)


def says(url):
    """What a server says of itself, to this role."""
    engine = replica._engine_of(url)
    try:
        with engine.connect() as connection:
            return ReplicaSays(*connection.execute(text(ASK_REPLICA)).one())
    finally:
        engine.dispose()


@pytest.fixture
def plain_role(engine, standby):
    """A role that may read our tables and nothing else; its URL at the standby."""
    with engine.begin() as connection:
        connection.execute(text("CREATE ROLE plain LOGIN PASSWORD 'plain'"))
        connection.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO plain"))
    standby.caught_up()
    yield standby.url_of(username="plain", password="plain").render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(text("DROP OWNED BY plain; DROP ROLE plain"))


def test_the_receiver_hears_of_an_idle_primary_that_nothing_is_missing(standby, eventually):
    """The last transaction grows old meanwhile."""
    eventually(lambda: says(standby.url).replayed_age > 3)
    heard = eventually(lambda: says(standby.url).heard_age)
    assert heard < 3


def test_a_role_that_may_not_see_the_receiver_reads_an_idle_primarys_replica_too(
    reading, plain_role, eventually
):
    client = reading(plain_role, read_staleness=0.3)
    eventually(lambda: says(plain_role).replayed_age > 0.5)
    assert says(plain_role).heard_age is None
    assert float(client.get("/jobs").headers[HEADER]) < 0.3


def test_a_role_without_rights_has_the_primary_answer(reading, standby, engine, plain_role):
    with engine.begin() as connection:
        connection.execute(text("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM plain"))
    standby.caught_up()
    job = queued(engine)
    answer = reading(plain_role).get("/jobs")
    assert (ids_of(answer), answered_by_replica(answer)) == ([str(job.id)], False)


def test_a_killed_replica_costs_nothing_and_is_read_again_when_it_is_back(
    reading, standby, engine, comes_to_answer
):
    client = reading(standby.url)
    assert answered_by_replica(client.get("/jobs"))
    standby.kill()
    job = queued(engine)
    try:
        took = []
        for path in ("/jobs", "/dlq", "/jobs", "/dlq/groups"):
            began = time.monotonic()
            assert not answered_by_replica(client.get(path))
            took.append(time.monotonic() - began)
        # Not the half second that one who says nothing costs; on a busy machine some take as long for another reason.
        assert min(took) < 0.3
        assert ids_of(client.get("/jobs")) == [str(job.id)]
    finally:
        standby.start()
    comes_to_answer(client)
    standby.caught_up()
    assert ids_of(client.get("/jobs")) == [str(job.id)]


def quickest_of_the_primary(client):
    """Seconds of the quickest of three lists, which the primary answers; on a busy machine one may take long for another reason."""
    took = []
    for _ in range(3):
        began = time.monotonic()
        assert not answered_by_replica(client.get("/jobs"))
        took.append(time.monotonic() - began)
    return min(took)


def test_a_replica_that_says_nothing_costs_one_request_half_a_second_and_the_primary_no_trust(
    reading, standby, engine
):
    client = reading(standby.url)
    assert answered_by_replica(client.get("/jobs"))
    job = queued(engine)
    standby.freeze()
    try:
        began = time.monotonic()
        answer = client.get("/jobs")
        first = time.monotonic() - began
        assert (ids_of(answer), answered_by_replica(answer)) == ([str(job.id)], False)
        assert first < 1.5
        assert client.post("/jobs", json={"payload": {"task": "noop"}}).status_code == 201
        assert quickest_of_the_primary(client) < 0.3
    finally:
        standby.thaw()


def test_a_replica_that_is_not_there_at_the_start_keeps_nothing_from_starting(reading, closed_port, engine):
    job = queued(engine)
    client = reading(f"postgresql://u:p@127.0.0.1:{closed_port}/d")
    assert ids_of(client.get("/jobs")) == [str(job.id)]
    assert client.get("/health/ready").status_code == 200


def test_a_server_that_takes_connections_and_says_nothing_is_away(reading, silent_port, engine):
    queued(engine)
    client = reading(f"postgresql://u:p@127.0.0.1:{silent_port}/d")
    began = time.monotonic()
    assert not answered_by_replica(client.get("/jobs"))
    assert 0.4 < time.monotonic() - began < 1.5
    assert quickest_of_the_primary(client) < 0.3


def test_a_statement_that_replay_ends_is_answered_by_the_primary(told, standby, engine):
    """Replay takes the lock of a table away from those who read it, after `max_standby_streaming_delay`."""
    read = told.reader()
    answers = []
    reading = threading.Thread(target=lambda: answers.append(read(slow_look)))
    reading.start()
    while not standby.ask(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(CASE%' AND pid <> pg_backend_pid()"
    ):
        assert reading.is_alive()
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE dead_letters"))
    reading.join(20)
    assert answers == [0]
    assert told == [Answer(None, Reason.CONFLICT)]


def slow_look(connection):
    """Counts dead letters, on the standby for as long as it may."""
    waits = text(
        "SELECT pg_sleep(CASE WHEN pg_is_in_recovery() THEN 2 ELSE 0 END), count(*) FROM dead_letters"
    )
    return connection.execute(waits).one()[1]


def test_a_lock_that_replay_holds_is_not_waited_for(reading, standby, engine):
    client = reading(standby.url, read_staleness=FAR)
    queued(engine)
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"))
        end = connection.execute(text("SELECT pg_current_wal_insert_lsn()")).scalar_one()
        with engine.begin() as other:
            # Its commit flushes what the lock has written.
            other.execute(
                text(
                    "INSERT INTO idempotency_keys (key, fingerprint, job_id, expires_at)"
                    " VALUES ('x', '', gen_random_uuid(), now())"
                )
            )
        while not standby.ask(f"SELECT pg_last_wal_replay_lsn() >= '{end}'"):
            pass
        standby.pause()
    began = time.monotonic()
    answer = client.get("/jobs")
    assert (len(ids_of(answer)), answered_by_replica(answer)) == (1, False)
    assert time.monotonic() - began < 1


def test_all_connections_in_use_have_the_primary_answer(told, standby):
    read = told.reader()
    held = [told.replica._engine().connect() for _ in range(replica.POOL_SIZE + 2)]
    began = time.monotonic()
    assert (
        read(lambda connection: connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one()) is False
    )
    assert time.monotonic() - began < 1
    for connection in held:
        connection.close()
    assert (
        read(lambda connection: connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one()) is True
    )
    assert told[0] == Answer(None, Reason.BUSY)
    assert told[1].reason is None


def test_an_error_of_the_work_itself_is_the_primarys_to_raise(told):
    read = told.reader()
    with pytest.raises(DBAPIError):
        read(lambda connection: connection.execute(text("SELECT nothing_such")))
    assert told == [Answer(None, Reason.FAILED)]
    with pytest.raises(ZeroDivisionError):
        read(lambda _: 1 // 0)


def test_pages_that_come_from_one_and_the_other_lose_no_job(reading, standby, engine, client):
    """The replica has none of the jobs: a page of it after one of the primary would end the list."""
    stale = reading(standby.url, read_staleness=FAR)
    standby.pause()
    made = [str(queued(engine).id) for _ in range(12)]
    assert ids_of(stale.get("/jobs")) == []
    found, cursor, turn = [], None, [client, stale]
    while True:
        page = turn[0].get("/jobs?limit=3" + (f"&cursor={cursor}" if cursor else ""))
        assert not answered_by_replica(page)
        found += ids_of(page)
        cursor = page.json["next_cursor"]
        turn.reverse()
        if cursor is None:
            break
    assert found == made[::-1]


def test_a_cursor_that_is_old_enough_is_followed_on_the_replica(reading, standby, engine):
    client = reading(standby.url)
    now = datetime.now(UTC)
    old = [first_id(now - timedelta(minutes=minutes)) for minutes in (30, 20, 10)]
    for job_id in old:
        queued(engine, id=job_id)
    standby.caught_up()
    answer = client.get(f"/jobs?cursor={old[2]}")
    assert answered_by_replica(answer)
    assert ids_of(answer) == [str(old[1]), str(old[0])]


def test_jobs_that_come_meanwhile_cost_a_walk_none_of_those_that_were_there(reading, standby, engine, client):
    fresh = reading(standby.url)
    made = {str(queued(engine).id) for _ in range(20)}
    found, cursor, turn = [], None, [client, fresh, fresh]
    while True:
        page = turn[0].get("/jobs?limit=2" + (f"&cursor={cursor}" if cursor else ""))
        found += ids_of(page)
        cursor = page.json["next_cursor"]
        turn = turn[1:] + turn[:1]
        queued(engine)
        if cursor is None:
            break
    assert made <= set(found)
    assert len(found) == len(set(found))


@pytest.mark.parametrize("path", ["/jobs?offset=1", "/dlq?offset=1", "/dlq/letters?cursor=9999"])
def test_a_page_that_is_counted_from_the_newest_on_comes_from_the_primary(reading, standby, path):
    assert not answered_by_replica(reading(standby.url).get(path))


def test_nothing_can_be_written_by_the_connections_of_lists(settings):
    """Not even where the URL leads to a server that takes writes."""
    engine = replica._engine_of(settings.database_url)
    with engine.connect() as connection, pytest.raises(DBAPIError) as caught:
        connection.execute(text("DELETE FROM jobs"))
    assert caught.value.orig.pgcode == "25006"
    engine.dispose()


def test_the_primary_itself_under_another_name_is_no_moment_old(reading, settings, engine):
    job = queued(engine)
    url = make_url(settings.database_url).set(host="localhost").render_as_string(hide_password=False)
    answer = reading(url).get("/jobs")
    assert answer.headers[HEADER] == "0.000"
    assert ids_of(answer) == [str(job.id)]


@pytest.mark.usefixtures("clean")
def test_a_replica_that_was_promoted_goes_its_own_way_and_is_not_read(
    reading, settings, engine, capfd, comes_to_answer
):
    with Standby(settings.database_url) as promoted:
        client = reading(promoted.url, read_staleness=FAR)
        # A standby that has just started may take longer than it gets.
        comes_to_answer(client)
        promoted.promote()
        job = queued(engine)
        for _ in range(2):
            answer = client.get("/jobs")
            assert (ids_of(answer), answered_by_replica(answer)) == ([str(job.id)], False)
    logged = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    said = [line for line in logged if line["message"] == "lists are read from the primary"]
    assert said[-1]["reason"] == "unknown"


def test_a_standby_of_a_server_that_was_the_primary_once_is_not_read(settings, standby, clean):
    """Its server lives on, and tells it that nothing is missing."""
    told = []
    with Standby(settings.database_url) as promoted:
        promoted.promote()
        now_primary = replica._engine_of(promoted.url)
        left_behind = ReadReplica(standby.url, now_primary, bound=FAR, tell=told.append)
        found = left_behind.up_to(math.inf)(lambda connection: connection.engine is now_primary)
        left_behind.close()
        now_primary.dispose()
    assert (found, told) == (True, [Answer(None, Reason.UNKNOWN)])


def test_without_the_primary_the_replica_that_knew_it_answers(another_app, reading, standby, closed_port):
    told = []
    live = ReadReplica(standby.url, another_app().extensions["jobs"]._engine, bound=60.0, tell=told.append)
    read = live.up_to(math.inf)
    assert read(lambda _: 1) == 1
    gone = replica._engine_of(f"postgresql+psycopg2://u:p@127.0.0.1:{closed_port}/d")
    live._primary = gone
    assert read(lambda _: 2) == 2
    assert [one.reason for one in told] == [None, None]
    live.close()


@pytest.mark.parametrize("reason", [None, Reason.BEHIND, Reason.UNKNOWN, Reason.CONFLICT])
def test_a_replica_that_says_anything_is_there_again(told, reason):
    told.reader()
    told.replica._absence.note()
    told.replica._noted(Reason.AWAY)
    told.replica._noted(Reason.BUSY)
    assert not told.replica._absence.lets_try()
    told.replica._noted(reason)
    assert told.replica._absence.lets_try()


def test_each_process_makes_an_engine_of_its_own(told, monkeypatch):
    read = told.reader()
    read(lambda _: None)
    before = told.replica._engine()
    assert told.replica._engine() is before
    monkeypatch.setattr(replica.os, "getpid", lambda: -1)
    child = told.replica._engine()
    assert child is not before
    told.replica.close()
    monkeypatch.undo()
    before.dispose()


def test_without_the_setting_there_is_no_replica_and_no_header(client, app):
    assert app.extensions["replica"] is None
    assert HEADER not in client.get("/jobs").headers
    text_of = client.get("/metrics").text
    assert "read_replica" not in text_of


def measured(client, prefix):
    """What an application's metrics say by a prefix."""
    lines = client.get("/metrics").text.splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines)
        if name.startswith(prefix)
    }


def test_lists_are_counted_by_who_answered_them_and_why(
    reading, standby, engine, eventually, comes_to_answer
):
    client = reading(standby.url, read_staleness=0.5)
    name = 'database_list_reads_total{reason="%s",server="%s"}'
    before = measured(client, "database_list_reads_total")
    assert before.keys() >= {name % ("", "replica"), *(name % (reason.value, "primary") for reason in Reason)}
    comes_to_answer(client)
    client.get("/jobs?offset=5")
    standby.pause()
    queued(engine)
    eventually(lambda: not answered_by_replica(client.get("/jobs")))
    after = measured(client, "database_list_reads_total")
    grown = {key for key, value in after.items() if value > before[key]}
    assert grown == {name % ("", "replica"), name % ("page", "primary"), name % ("behind", "primary")}


def test_the_gauges_say_how_far_behind_the_replica_is_and_whether_it_is_of_use(
    reading, standby, engine, eventually
):
    client = reading(standby.url, read_staleness=0.5)
    eventually(lambda: commit(engine) or measured(client, "read_replica")["read_replica_lag_seconds"] < 0.5)
    assert measured(client, "read_replica")["read_replica_usable"] == 1
    standby.pause()
    queued(engine)
    eventually(lambda: measured(client, "read_replica")["read_replica_lag_seconds"] > 1)
    assert measured(client, "read_replica")["read_replica_usable"] == 0


def test_of_a_replica_that_is_away_the_lag_is_left_out(reading, closed_port):
    client = reading(f"postgresql://u:p@127.0.0.1:{closed_port}/d")
    assert measured(client, "read_replica") == {"read_replica_usable": 0}
    assert client.get("/jobs").status_code == 200
