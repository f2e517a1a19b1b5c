"""A whole DJPS as real processes, with a database and a Valkey of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import psycopg2
import pytest
import requests
from redis import Redis
from sqlalchemy.engine import make_url

from ops.stack import ports, valkey

BIN = Path(sys.prefix) / "bin"
ROOT = Path(__file__).resolve().parents[2]

#: Short times, so that recovery can be watched; the schedule of retries is the real one.
TEMPO = {
    "STUCK_JOB_THRESHOLD": "5",
    "STUCK_CHECK_INTERVAL": "1",
    "WORKER_HEARTBEAT_TTL": "3",
    "SHUTDOWN_GRACE": "2",
    "RATE_LIMIT": "off",
    "SIMULATED_FAILURE_RATE": "0",
}

#: Signs what the workers send.
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
#: Signs their callbacks.
CALLBACK_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDC2FVsBQIhrs="

#: A user's own module, outside the packages.
HANDLERS = """
    import asyncio
    import os
    import sys
    import time

    from webapp.jobs import Discard, Retry, Snooze, handler

    @handler("send-email", queue="mail", max_retries=1, timeout=10)
    def send_email(payload, context):
        context.logger.info("email sent")
        return {"to": payload["to"], "attempt": context.attempt}

    @handler("too-slow", max_retries=0, timeout=0.5)
    def too_slow(payload, context):
        time.sleep(30)

    @handler("stubborn", max_retries=0, timeout=0.5)
    def stubborn(payload, context):
        while True:
            try:
                time.sleep(30)
            except Exception:
                pass

    @handler("poison", max_retries=1)
    def poison(payload, context):
        os._exit(7)

    @handler("again", max_retries=1)
    def again(payload, context):
        raise Retry("not yet", after=0.2)

    @handler("no-use", max_retries=5)
    def no_use(payload, context):
        raise Discard("never works")

    @handler("second-try", max_retries=1)
    def second_try(payload, context):
        context.logger.info("trying")
        if context.attempt == 1:
            raise Retry("not at first", after=0.1)
        return {"traceparent": context.traceparent}

    class OfAnExtension(BaseException):
        pass

    @handler("leave", max_retries=0)
    def leave(payload, context):
        match payload["how"]:
            case "exit":
                sys.exit("good bye")
            case "cancelled":
                raise asyncio.CancelledError
            case "interrupt":
                raise KeyboardInterrupt("by hand")
            case "extension":
                raise OfAnExtension("strange")
            case "causes":
                try:
                    {}["to"]
                except KeyError as error:
                    raise RuntimeError("no mail") from error

    @handler("async-sleep", max_retries=0, timeout=1)
    async def async_sleep(payload, context):
        context.progress(1, 2, "half")
        await asyncio.sleep(payload["seconds"])
        context.check_cancelled()
        return {"slept": payload["seconds"]}

    @handler("async-quick")
    async def async_quick(payload, context):
        await asyncio.sleep(0)
        return payload["n"]

    @handler("async-long", max_retries=0)
    async def async_long(payload, context):
        while True:
            await asyncio.sleep(0.1)
            context.check_cancelled()

    @handler("not-yet")
    def not_yet(payload, context):
        if context.attempt == 1:
            raise Snooze(0.3)
"""


class Fleet:
    """The processes, and what tests do with them.

    Args:
        migrated: whether the database has our tables already.
    """

    def __init__(self, folder: Path, database_url: str, *, migrated: bool = False) -> None:
        self.folder = folder
        self.migrated = migrated
        self.redis_port = ports.free()
        self.api_port = ports.free()
        #: Where a test may listen, and workers may call.
        self.receiver_port = ports.free()
        self.url = f"http://{ports.LOOPBACK}:{self.api_port}"
        self.http = requests.Session()
        self.database_url = database_url
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "user_handlers.py").write_text(textwrap.dedent(HANDLERS))
        (folder / "redis").mkdir()
        self.environment = {
            **os.environ,
            **TEMPO,
            "DATABASE_URL": database_url,
            "REDIS_URL": valkey.url(self.redis_port),
            "API_PORT": str(self.api_port),
            "DJPS_DATA_DIR": str(folder),
            "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
            "HANDLERS": "user_handlers",
            "HTTP_ALLOWED_TARGETS": f"{ports.LOOPBACK}:{self.receiver_port}",
            "WEBHOOK_SECRETS": WEBHOOK_SECRET,
            "CALLBACK_SECRETS": CALLBACK_SECRET,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
        }
        tasks = [sys.executable, "-m", "tasks"]
        self.commands = {
            "redis": valkey.command(folder / "redis", self.redis_port),
            "api": [str(BIN / "gunicorn"), "--config", "python:ops.stack.gunicorn", "wsgi:app"],
            "worker": [*tasks, "worker", "--hostname", "worker@%h", "-X", "maintenance", "-c", "2"],
            "maintenance": [*tasks, "worker", "--hostname", "upkeep@%h", "-Q", "maintenance", "-c", "2"],
            "beat": [*tasks, "beat"],
            "second-beat": [*tasks, "beat"],
        }

    def start(self, *names: str) -> None:
        for name in names:
            with (self.folder / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    self.commands[name],
                    env=self.environment,
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    def migrate(self, *words: str) -> None:
        """Brings the schema to its head, or runs another `flask db ...`."""
        subprocess.run(
            [sys.executable, "-m", "flask", "--app", "wsgi", "db", *(words or ("upgrade",))],
            env=self.environment,
            cwd=ROOT,
            check=True,
            capture_output=True,
            timeout=60,
        )

    def up(self) -> None:
        """Starts everything over a database that is there, and returns when it is ready."""
        self.start("redis")
        if not self.migrated:
            self.migrate()
        self.start("api", "worker", "maintenance", "beat")
        self.wait_until(lambda: self.ready() and self.live_workers() == 2)

    def wait_until(self, condition: Callable[[], object], patience: float = 60) -> None:
        end = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < end, f"not within {patience} s; the logs are in {self.folder}"
            time.sleep(0.05)

    def ready(self) -> bool:
        try:
            return self.http.get(f"{self.url}/health/ready", timeout=2).json()["status"] == "ok"
        except requests.RequestException:
            return False

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM, patience: float = 30) -> float:
        """Ends a process; returns how long it took, seconds."""
        process = self.processes.pop(name)
        began = time.monotonic()
        process.send_signal(how)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(patience)
            raise AssertionError(f"{name} did not end within {patience} s of {how.name}") from None
        return time.monotonic() - began

    def stop_all(self) -> None:
        names = [name for name in self.processes if name != "redis"]
        for name in names:
            self.processes[name].terminate()
        for name in (*names, *(self.processes.keys() & {"redis"})):
            self.stop(name)

    def redis(self) -> Redis:
        return Redis.from_url(self.environment["REDIS_URL"], decode_responses=True, socket_timeout=5)

    def rows(self, sql: str, *values: object) -> list[tuple]:
        plain = make_url(self.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
        connection = psycopg2.connect(plain)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(sql, values)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def post(self, task: str, key: str | None = None, **payload: object) -> dict:
        return self.submit({"payload": {"task": task, **payload}} | ({"idempotency_key": key} if key else {}))

    def submit(self, body: dict) -> dict:
        answer = self.http.post(f"{self.url}/jobs", json=body, timeout=10)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def job(self, job_id: str) -> dict:
        return self.http.get(f"{self.url}/jobs/{job_id}", timeout=10).json()

    def wait_for(self, job: dict, *statuses: str, patience: float = 40) -> dict:
        """Waits until a job is in one of these states (any final one, where none is named)."""
        wanted = statuses or ("completed", "failed", "cancelled")
        end = time.monotonic() + patience
        while True:
            found = self.job(job["id"])
            if found["status"] in wanted:
                return found
            assert time.monotonic() < end, f"job is {found} after {patience} s, not {wanted}"
            time.sleep(0.05)

    def attempts(self, job: dict) -> list[tuple[int, str]]:
        return self.rows(
            "SELECT attempt, outcome FROM attempts WHERE job_id = %s ORDER BY attempt", job["id"]
        )

    def unfinished(self) -> int:
        return self.rows("SELECT count(*) FROM jobs WHERE status IN ('queued', 'processing')")[0][0]

    def child_running(self, job: dict) -> int:
        """The pid of the process that runs a job."""
        self.wait_for(job, "processing")
        holder = self.rows("SELECT worker_id FROM jobs WHERE id = %s", job["id"])[0][0]
        return int(holder.rpartition("/")[2])

    def metric(self, name: str) -> float:
        text = self.http.get(f"{self.url}/metrics", timeout=10).text
        return sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.split(" ")[0].partition("{")[0] == name
        )

    def live_workers(self) -> int:
        return len(list(self.redis().scan_iter("*djps:worker:*")))


@contextmanager
def database_of_its_own(name: str, template: str = "template1") -> Iterator[str]:
    """An empty database on the run's server, for the time of a block; gives its URL.

    Args:
        template: the database that it is a copy of.
    """
    server = make_url(os.environ["DATABASE_URL"])
    admin = psycopg2.connect(server.set(drivername="postgresql").render_as_string(hide_password=False))
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name}")
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield server.set(database=name).render_as_string(hide_password=False)
        finally:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
            admin.close()


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory):
    """Makes databases that have our tables and no row, each for the time of a block; the migrations run once."""
    with database_of_its_own("djps_migrated") as url:
        Fleet(tmp_path_factory.mktemp("migrated"), url).migrate()
        yield partial(database_of_its_own, template="djps_migrated")


@pytest.fixture(scope="session")
def fleet(tmp_path_factory, migrated_database):
    """Everything up, for all system tests; each leaves it as it found it."""
    with migrated_database("djps_system") as url:
        made = Fleet(tmp_path_factory.mktemp("fleet"), url, migrated=True)
        try:
            made.up()
            yield made
        finally:
            made.stop_all()


@pytest.fixture(scope="session")
def empty_database():
    """Makes empty databases that last as long as the run; gives the URL of one."""
    with ExitStack() as kept:
        yield lambda name: kept.enter_context(database_of_its_own(name))


@pytest.fixture
def database():
    """An empty database for one test."""
    with database_of_its_own("djps_system_two") as url:
        yield url


@pytest.fixture
def another_fleet(tmp_path):
    """Makes fleets beside the shared one, over databases that the test brings; what still runs at its end is ended."""
    made = []

    def make(name: str, database_url: str, **settings: str) -> Fleet:
        (tmp_path / name).mkdir()
        fleet = Fleet(tmp_path / name, database_url)
        fleet.environment |= settings
        made.append(fleet)
        return fleet

    yield make
    for fleet in made:
        fleet.stop_all()


@pytest.fixture(scope="module")
def server(tmp_path_factory, migrated_database):
    """An API with one process, and nothing behind it that runs jobs."""
    with migrated_database("djps_api_alone") as url:
        made = Fleet(tmp_path_factory.mktemp("api-alone"), url)
        made.environment |= {"API_WORKERS": "1", "MAX_WAITERS": "4"}
        try:
            made.start("redis", "api")
            made.wait_until(made.ready)
            yield made
        finally:
            made.stop_all()
