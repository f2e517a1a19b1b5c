"""The system under test: every process of DJPS, its own servers, and a keeper that restarts what dies."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import requests
from redis import Redis
from redis.exceptions import RedisError

from ops.chaos import schema, take_mutants
from ops.chaos.disk import mount, unmount
from ops.chaos.proxy import Proxy
from ops.chaos.switches import BROKEN_QUEUE
from ops.stack import ports, postgres, valkey
from ops.stack.throwaway import spawn
from ops.stack.venv import ROOT
from webapp.infra.broker import heartbeats, redis_keys

BIN = Path(sys.prefix) / "bin"
#: Marks every process of a run, so that orphans can be found.
MARK = "DJPS_CHAOS"
#: Seconds between the death of a process and its restart, as a process supervisor would take.
RESTART_AFTER = 1.0
#: Seconds the system may take to be ready.
READY_PATIENCE = 60.0
#: Seconds a process gets to end when it is asked to.
END_PATIENCE = 25.0
#: Lease of a running job in the suite, seconds; the default of 60 would only make it longer.
LEASE = 6
#: Seconds between looks for expired leases.
SWEEP = 1

#: Workers with a heartbeat when all is well: the worker and the maintenance worker.
WORKERS = 2

TEMPO = {
    "STUCK_JOB_THRESHOLD": str(LEASE),
    "STUCK_CHECK_INTERVAL": str(SWEEP),
    "WORKER_HEARTBEAT_TTL": "3",
    "SHUTDOWN_GRACE": "3",
    "REDISPATCH_AFTER": "10",
    "BACKOFF_BASE": "1",
    "MAX_BACKOFF": "1",
    "NUM_WORKERS": "3",
    # The limiter is on, so that its way to Redis is part of what is tested, and never strikes.
    "RATE_LIMIT": "1000000 per second",
    "SIMULATED_FAILURE_RATE": "0",
    "LOG_LEVEL": "INFO",
}
#: The broker's list of ordinary jobs.
QUEUE = "default"
APPLICATIONS = ("api", "worker", "maintenance", "beat")


@dataclass(slots=True)
class Member:
    """One process that should run."""

    name: str
    command: list[str]
    environment: dict[str, str]
    user: str | None = None
    cwd: str = str(ROOT)
    wanted: bool = False
    died_at: float | None = None
    exits: list[int] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None


class System:
    """DJPS as a whole, on ports of its own.

    Args:
        proxied: puts a TCP proxy before each server, one for the API and one for the workers.
        durable: Valkey keeps an append-only file.
        disk: the folder that has a small disk of its own: `data` or `run`; empty for none.
        environment: more variables for every process.
        worker_environment: still more, for the worker alone.
    """

    def __init__(
        self,
        *,
        proxied: bool = False,
        durable: bool = True,
        disk: str = "",
        environment: Mapping[str, str] | None = None,
        worker_environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="djps-chaos-"))
        self.folder.chmod(0o711)
        #: Where the small disk is.
        self.disk = mount(self.folder, disk) if disk else None
        #: Where the harness writes, which must go on while that disk is full.
        self.records = Path(tempfile.mkdtemp(prefix="djps-chaos-records-")) if disk else self.folder
        self.postgres_port, self.redis_port, self.api_port = ports.free(), ports.free(), ports.free()
        self.url = f"http://{ports.LOOPBACK}:{self.api_port}"
        self.proxies: dict[str, Proxy] = {}
        if proxied:
            for side in ("api", "tasks"):
                self.proxies[f"postgres-{side}"] = Proxy(self.postgres_port)
                self.proxies[f"redis-{side}"] = Proxy(self.redis_port)
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self.members = self._members(dict(environment or {}), dict(worker_environment or {}), durable=durable)
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def _members(
        self, extra: dict[str, str], worker_extra: dict[str, str], *, durable: bool
    ) -> dict[str, Member]:
        (self.folder / "redis").mkdir()
        (self.folder / "logs").mkdir()
        common = {
            **os.environ,
            **TEMPO,
            MARK: str(self.folder),
            "API_PORT": str(self.api_port),
            "DJPS_DATA_DIR": str(self.folder),
            "DJPS_ENV_FILE": "",
            "PROMETHEUS_MULTIPROC_DIR": str(self.folder / "metrics"),
            "HANDLERS": "ops.chaos.handlers",
            "QUEUES": BROKEN_QUEUE,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "CHAOS_FOLDER": str(self.folder),
            "CHAOS_DATABASE": postgres.url(self.postgres_port).replace("+psycopg2", ""),
            **extra,
        }
        api = common | self._addresses("api")
        tasks = common | self._addresses("tasks")
        tasks_program = [sys.executable, "-m", "ops.chaos.entry_tasks"]
        worker = [*tasks_program, "worker", "--hostname", "worker@%h", "-X", "maintenance", "-c", "3"]
        upkeep = [*tasks_program, "worker", "--hostname", "upkeep@%h", "-Q", "maintenance", "-c", "2"]
        beat = [sys.executable, "-m", "tasks", "beat"]
        gunicorn = [str(BIN / "gunicorn"), "--config", "python:ops.stack.gunicorn", "ops.chaos.entry_api:app"]
        database = postgres.command(self.folder / "postgres", self.postgres_port)
        redis = valkey.command(self.folder / "redis", self.redis_port, durable=durable)
        return {
            member.name: member
            for member in (
                Member("postgres", database, common, postgres.account(), "/"),
                Member("redis", redis, common, None, "/"),
                Member("api", gunicorn, api),
                Member("worker", worker, tasks | worker_extra),
                Member("second-worker", [one.replace("worker@", "second@") for one in worker], tasks),
                Member("maintenance", upkeep, tasks),
                Member("second-maintenance", [one.replace("upkeep@", "beside@") for one in upkeep], tasks),
                Member("beat", beat, tasks),
                Member("second-beat", beat, tasks),
            )
        }

    def _addresses(self, side: str) -> dict[str, str]:
        database = self.proxies.get(f"postgres-{side}")
        redis = self.proxies.get(f"redis-{side}")
        return {
            "DATABASE_URL": postgres.url(database.port if database else self.postgres_port),
            "REDIS_URL": valkey.url(redis.port if redis else self.redis_port),
            "REDIS_PREFIX": redis_keys.prefix(),
        }

    def up(self) -> None:
        """Starts everything, and returns when the API says that it is ready.

        Raises:
            TimeoutError: it does not get ready.
        """
        postgres.prepare(self.folder / "postgres")
        self.start("postgres", "redis")
        postgres.wait_and_create(self.postgres_port)
        valkey.wait(self.redis_port)
        self._migrate()
        self._keeper.start()
        self.start(*APPLICATIONS)
        self.wait_ready()

    def _migrate(self) -> None:
        direct = {
            **self.members["api"].environment,
            "DATABASE_URL": postgres.url(self.postgres_port),
            "REDIS_URL": valkey.url(self.redis_port),
        }
        subprocess.run(
            [sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade"],
            env=direct,
            cwd=ROOT,
            check=True,
            capture_output=True,
            timeout=READY_PATIENCE,
        )
        self.rows(schema.INSTALL)
        take_mutants.install(self.rows, direct.get("CHAOS_MUTANT", ""))

    def wait_ready(self) -> None:
        """Waits until the API is ready and both workers are there.

        Raises:
            TimeoutError: they are not in time.
        """
        await_that(lambda: self.ready() == "ok" and self.live_workers() == WORKERS, READY_PATIENCE, "ready")

    def ready(self) -> str:
        """What `/health/ready` says; empty when there is no answer."""
        try:
            return str(requests.get(f"{self.url}/health/ready", timeout=3).json()["status"])
        except (requests.RequestException, ValueError, KeyError):
            return ""

    def live_workers(self) -> int:
        """Workers with a heartbeat."""
        try:
            with self.redis() as client:
                return sum(1 for _ in client.scan_iter(f"{heartbeats.key_of('')}*"))
        except RedisError:
            return 0

    def redis(self) -> Redis:
        """A client of the harness's own, past every proxy."""
        return Redis(port=self.redis_port, socket_timeout=10, socket_connect_timeout=2)

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Runs one statement past every proxy."""
        connection = psycopg2.connect(
            postgres.url(self.postgres_port).replace("+psycopg2", ""),
            application_name="chaos",
            connect_timeout=5,
        )
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(sql, values or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def start(self, *names: str) -> None:
        """Starts processes and keeps them running from now on."""
        with self._lock:
            for name in names:
                member = self.members[name]
                member.wanted = True
                self._spawn(member)

    def _spawn(self, member: Member) -> None:
        member.process = spawn(
            member.command,
            member.user,
            self.folder / "logs" / f"{member.name}.log",
            cwd=member.cwd,
            environment=member.environment,
        )
        member.died_at = None

    def _keep(self) -> None:
        """Restarts what died, as systemd, supervisord or Kubernetes would."""
        while not self._closing.wait(0.05):
            with self._lock:
                for member in self.members.values():
                    if not member.wanted or member.process is None or member.process.poll() is None:
                        continue
                    if member.died_at is None:
                        member.died_at = time.monotonic()
                        member.exits.append(member.process.returncode)
                    elif time.monotonic() - member.died_at >= RESTART_AFTER:
                        self._spawn(member)

    def pid(self, name: str) -> int:
        """The process id of a member; waits for one that is just being restarted."""
        await_that(lambda: self._alive(name), READY_PATIENCE, f"{name} to run")
        process = self.members[name].process
        if process is None:
            raise RuntimeError(f"{name} was never started")
        return process.pid

    def _alive(self, name: str) -> bool:
        process = self.members[name].process
        return process is not None and process.poll() is None

    def children(self, name: str) -> list[int]:
        """The process ids of a member's children, that is of its workers."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(self.pid(name)).children()]
        return []

    def kill(self, name: str) -> None:
        """Kills a member's parent process; the keeper restarts it."""
        _signal(self.pid(name), signal.SIGKILL)

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends a member and leaves it down."""
        with self._lock:
            member = self.members[name]
            member.wanted = False
            process = member.process
        if process is None:
            return
        _signal(process.pid, how)
        try:
            process.wait(END_PATIENCE)
        except subprocess.TimeoutExpired:
            self._kill_group(process)
            member.exits.append(-999)

    def freeze(self, *pids: int) -> None:
        """Stops processes where they are."""
        for pid in pids:
            _signal(pid, signal.SIGSTOP)

    def thaw(self, *pids: int) -> None:
        """Lets them go on."""
        for pid in pids:
            _signal(pid, signal.SIGCONT)

    def orphans(self) -> list[str]:
        """Processes of this run that no one looks after."""
        known = {member.process.pid for member in self.members.values() if member.process is not None}
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid in known or process.environ().get(MARK) != str(self.folder):
                    continue
                if not {one.pid for one in process.parents()} & known:
                    found.append(" ".join(process.cmdline())[:120])
        return found

    def down(self, *, keep: bool = False) -> Path | None:
        """Ends everything; deletes its folder, or returns the folder with its logs.

        Args:
            keep: leave the logs and the history.
        """
        self._closing.set()
        if self._keeper.is_alive():
            self._keeper.join(5)
        for name in (
            *(one for one in self.members if one.startswith("second-")),
            *reversed(APPLICATIONS),
            "redis",
        ):
            self.stop(name)
        self.stop("postgres", signal.SIGINT)
        for member in self.members.values():
            if member.process is not None:
                self._kill_group(member.process)
        for proxy in self.proxies.values():
            proxy.close()
        for name in ("postgres", "redis", "metrics"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        return self._clear(keep=keep)

    def _clear(self, *, keep: bool) -> Path | None:
        """Deletes the folders; returns a copy of them when it is to be kept."""
        kept = Path(tempfile.mkdtemp(prefix="djps-chaos-kept-")) if keep else None
        folders = {self.folder, self.records}
        for folder in folders if kept else ():
            shutil.copytree(folder, kept, dirs_exist_ok=True)
        if self.disk is not None:
            unmount(self.disk)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        return kept

    @staticmethod
    def _kill_group(process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def await_that(condition: Callable[[], object], patience: float, what: str, pause: float = 0.1) -> None:
    """Waits for a condition.

    Raises:
        TimeoutError: it did not come true in time.
    """
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {patience:g} s for {what}")
        time.sleep(pause)
