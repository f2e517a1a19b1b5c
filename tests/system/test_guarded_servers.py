"""DJPS behind a PgBouncer that hands out connections by the transaction, with a Redis user that may do little."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from ops.capacity.model import connections
from ops.stack import debian, ports, postgres
from ops.stack.throwaway import become
from webapp.infra.postgres.engine import Statement, engine_options, in_one_trip
from webapp.infra.postgres.prepared import FOR_LONG, KEEPS_PLANS

pytestmark = pytest.mark.system

DOCKER = Path(__file__).resolve().parents[2] / "ops" / "docker"
ACL = (DOCKER / "redis" / "users.acl").read_text()
POOL = 3
ADMIN = "user admin on >admin ~* &* +@all\n"
#: What an intruder with the application's password would try first.
REFUSED = (
    ["FLUSHALL"], ["FLUSHDB"], ["CONFIG", "GET", "*"], ["CONFIG", "SET", "dir", "/"], ["KEYS", "*"], ["SHUTDOWN"],
    ["ACL", "LIST"], ["EVAL", "return 1", "0"], ["REPLICAOF", "NO", "ONE"], ["MONITOR"],
    ["SAVE"], ["MODULE", "LIST"], ["CLIENT", "KILL", "TYPE", "normal"], ["RENAME", "a", "b"],
)  # fmt: skip


class Bouncer:
    """A PgBouncer with the configuration that DJPS ships, before the run's PostgreSQL."""

    def __init__(self, folder: Path, server: str) -> None:
        program = str(debian.program("pgbouncer", "pgbouncer"))
        self.port = ports.free()
        url = make_url(server)
        self.url = url.set(host="127.0.0.1", port=self.port, database="djps").render_as_string(
            hide_password=False
        )
        shipped = (DOCKER / "pgbouncer" / "pgbouncer.ini").read_text()
        for pattern, value in (
            (r"host=\S+ port=\d+ dbname=\w+", f"host={url.host} port={url.port} dbname={url.database}"),
            (r"(?m)^listen_port = .*", f"listen_port = {self.port}"),
            (r"(?m)^default_pool_size = .*", f"default_pool_size = {POOL}"),
            (r"(?m)^reserve_pool_size = .*", "reserve_pool_size = 0\nadmin_users = djps"),
            (r"(?m)^auth_file = .*", f"auth_file = {folder}/userlist.txt"),
        ):
            assert re.search(pattern, shipped), pattern
            shipped = re.sub(pattern, value, shipped)
        (folder / "pgbouncer.ini").write_text(shipped)
        (folder / "userlist.txt").write_text('"djps" "djps"\n')
        with (folder / "pgbouncer.log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, str(folder / "pgbouncer.ini")],
                stderr=log,
                preexec_fn=lambda: become(postgres.account()),  # noqa: PLW1509 - it only steps down
            )

    def show(self, what: str) -> list[dict]:
        """One of the console's tables."""
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user="djps", password="djps", dbname="pgbouncer"
        )
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"SHOW {what}")
            found = [
                dict(zip([one.name for one in cursor.description], row, strict=True))
                for row in cursor.fetchall()
            ]
        connection.close()
        return found

    def answers(self) -> bool:
        try:
            return bool(self.show("VERSION"))
        except psycopg2.OperationalError:
            return False

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def bouncer(tmp_path_factory, database, eventually):
    folder = tmp_path_factory.mktemp("pgbouncer")
    for one in (folder, *folder.parents[:2]):
        one.chmod(0o755)
    try:
        made = Bouncer(folder, database)
    except debian.ProgramMissing as missing:
        # Root on a Debian would have it by now.
        (pytest.fail if os.geteuid() == 0 else pytest.skip)(str(missing))
    try:
        eventually(made.answers)
        yield made
    finally:
        made.stop()


#: The keys and channels of the user that DJPS ships, and the channels that operating.md names for one with a prefix.
EVERYTHING = " ~* &* "
CHANNELS = ("*", "/0.celery.pidbox", "/0.celeryev/worker.*", "/0.celeryev/*")


def guard_redis(fleet, prefix=""):
    """Starts the fleet's Redis with the users that DJPS ships, and one for the test; a prefix bounds what they reach."""
    file = fleet.folder / "users.acl"
    assert EVERYTHING in ACL
    only = f" ~{prefix}* " + " ".join(f"&{prefix}{channel}" for channel in CHANNELS) + " "
    file.write_text((ACL.replace(EVERYTHING, only) if prefix else ACL) + ADMIN)
    fleet.environment["REDIS_PREFIX"] = prefix
    fleet.commands["redis"] += ["--aclfile", str(file)]
    fleet.environment["REDIS_URL"] = f"redis://djps:change-me@127.0.0.1:{fleet.redis_port}/0"
    fleet.start("redis")


@pytest.fixture
def guarded(another_fleet, database, bouncer):
    """A fleet with both, and a prefix; migrations and LISTEN go past the pooler."""
    fleet = another_fleet("guarded", database, RATE_LIMIT="10000 per second")
    guard_redis(fleet, "shop:")
    fleet.migrate()
    fleet.environment |= {"DATABASE_URL": bouncer.url, "DATABASE_LISTEN_URL": database}
    fleet.start("api", "worker", "maintenance", "beat")
    fleet.wait_until(lambda: fleet.ready() and fleet.live_workers() == 2)
    return fleet


def admin(fleet):
    return Redis(port=fleet.redis_port, username="admin", password="admin", decode_responses=True)


def test_everything_works_with_few_rights_in_redis_and_few_connections_to_postgresql(
    guarded, bouncer, eventually
):
    jobs = [guarded.post("noop", number=number) for number in range(50)]
    answer = guarded.http.post(
        f"{guarded.url}/jobs/batch", json={"jobs": [{"payload": {"task": "noop"}}] * 2_000}, timeout=20
    )
    assert answer.json()["created"] == 2_000
    killed = guarded.post("sleep", seconds=2)
    os.kill(guarded.child_running(killed), signal.SIGKILL)
    admin(guarded).flushall()
    dead = guarded.post("no-use")
    waited = guarded.post("sleep", seconds=1)
    began = time.monotonic()
    told = guarded.http.get(f"{guarded.url}/jobs/{waited['id']}?wait=20", timeout=30).json()
    assert (told["status"], time.monotonic() - began < 15) == ("completed", True)
    watching = guarded.rows(
        "SELECT client_port FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'djps-watchers' AND query LIKE '%%xmin%%'"
    )
    assert guarded.wait_for(dead)["status"] == "failed"
    assert guarded.wait_for(killed)["status"] == "completed"
    eventually(lambda: guarded.unfinished() == 0, 40)
    assert all(guarded.job(job["id"])["attempt"] >= 1 for job in jobs[:5])
    assert guarded.metric("redis_up") == guarded.metric("database_up") == 1
    celery = [str(Path(sys.prefix) / "bin" / "celery"), "-A", "tasks"]
    asked = [*celery, "inspect", "ping", "--timeout", "20", "--destination", f"worker@{socket.gethostname()}"]
    subprocess.run(asked, env=guarded.environment, check=True, capture_output=True, timeout=40)

    # Every key has the prefix, and Redis refused nothing that DJPS asked for.
    assert {key.partition(":")[0] for key in admin(guarded).scan_iter()} == {"shop"}
    assert [(one["reason"], one["object"], one["context"]) for one in admin(guarded).acl_log()] == []
    # Ten processes hold their connections open; PostgreSQL has seen three, and the one that listens.
    clients = [one for one in bouncer.show("CLIENTS") if one["database"] == "djps"]
    servers = [one for one in bouncer.show("SERVERS") if one["database"] == "djps"]
    assert len(clients) > POOL >= len(servers)
    # The guide's formula, which counts the two that listen, too.
    most = connections(api_processes=2, api_threads=4, workers=2, children=2)[1]
    assert len(clients) + 2 <= most
    assert watching
    assert not {port for (port,) in watching} & {one["local_port"] for one in servers}


def test_the_user_of_redis_may_not_harm_it(another_fleet, database, eventually):
    fleet = another_fleet("redis-only", database)
    guard_redis(fleet)
    with fleet.redis() as redis:
        eventually(lambda: answers(redis))
        for words in REFUSED:
            with pytest.raises(NoPermissionError):
                redis.execute_command(*words)
    with Redis(port=fleet.redis_port) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()


def answers(redis):
    try:
        return redis.ping()
    except RedisConnectionError:
        return False


def test_statements_through_the_pooler_are_limited_as_without_it(bouncer, database):
    connection = psycopg2.connect(bouncer.url.replace("+psycopg2", ""))
    with connection, connection.cursor() as cursor:
        found = {}
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "TimeZone"):
            cursor.execute(f"SHOW {name}")
            found[name] = cursor.fetchone()[0]
    connection.close()
    assert found == {
        "statement_timeout": "10s", "lock_timeout": "2s", "idle_in_transaction_session_timeout": "30s",
        "TimeZone": "UTC",
    }  # fmt: skip


@pytest.mark.parametrize(
    "told_to_keep", [False, True], ids=["as shipped", "with plans kept, against the page"]
)
def test_workers_statements_go_through_the_pooler(bouncer, database, told_to_keep):
    """Each transaction may have another session, in which other clients have prepared what they like."""
    keeps = f"ALTER ROLE djps SET {KEEPS_PLANS.replace('=', ' = ')}"
    owner = psycopg2.connect(database.replace("+psycopg2", ""))
    owner.autocommit = True
    statement = Statement("SELECT CAST(:number AS int), pg_sleep(0.002)", plan_lasts=FOR_LONG)
    if told_to_keep:
        owner.cursor().execute(keeps)
    try:
        engine = create_engine(bouncer.url, **engine_options("djps-test", pool_size=8, finds_rows=True))

        def ask(number):
            return in_one_trip(engine, lambda connection: statement.run(connection, {"number": number})).rows

        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(ask, range(400)))
        engine.dispose()
    finally:
        owner.cursor().execute("ALTER ROLE djps RESET plan_cache_mode")
        owner.close()
    assert [rows[0][0] for rows in found] == list(range(400))
