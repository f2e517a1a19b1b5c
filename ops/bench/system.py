"""This system under measurement: its real processes on the run's servers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from ops.bench import load
from ops.bench.floors import answers
from ops.bench.processes import BenchError, Children, call
from ops.bench.servers import OURS_REDIS, Servers
from ops.stack import ports
from ops.stack.venv import ROOT

BIN = Path(sys.prefix) / "bin"
DATABASE = "bench_ours"
#: Migrated once; every other database of ours is a copy of it.
MIGRATED = "bench_migrated"
#: The handler that does nothing.
NOOP = "noop"
#: The same, with one id to a message; `ops.bench.handlers` has it.
NOOP_SINGLE = "noop-single"
#: What every POST of a run says.
PAYLOAD = {"task": NOOP, "order": 1234567, "email": "someone@example.com"}
SUBMIT = load.request("POST", "/jobs", json.dumps({"payload": PAYLOAD}).encode())

#: Everything that is not here runs with the defaults.
ENVIRONMENT = {"RATE_LIMIT": "off", "DJPS_ENV_FILE": "", "HANDLERS": "ops.bench.handlers"}
#: With room in Redis for every message of a measurement, each POST pays for its publication too.
POST_ENVIRONMENT = {"BROKER_BUFFER": "100000"}

#: What executes jobs.
WORKERS = ("maintenance", "worker", "beat")
#: Seconds the API gets to answer, and a migration to finish.
START_PATIENCE = 60.0
#: Seconds the processes get to end: their database goes with them.
END_PATIENCE = 3.0


class System:
    """The processes of this system, as `ops up` starts them.

    Args:
        environment: more variables for all of them.
    """

    def __init__(self, servers: Servers, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.servers = servers
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.children = Children(folder, END_PATIENCE)
        self.port = ports.free()
        self.environment = {
            **os.environ,
            **ENVIRONMENT,
            **(environment or {}),
            "DATABASE_URL": servers.sqlalchemy_url(DATABASE),
            "REDIS_URL": servers.redis_url(OURS_REDIS),
            "API_PORT": str(self.port),
            "DJPS_DATA_DIR": str(folder),
            "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
            "PYTHONPATH": str(ROOT),
        }
        tasks = [sys.executable, "-m", "tasks"]
        self.commands = {
            "api": [str(BIN / "gunicorn"), "--config", "python:ops.stack.gunicorn", "wsgi:app"],
            "worker": [*tasks, "worker", "--hostname", "worker@%h", "--exclude-queues", "maintenance"]
            + ["--concurrency", "2"],
            "maintenance": [*tasks, "worker", "--hostname", "maintenance@%h", "--queues", "maintenance"]
            + ["--concurrency", "2"],
            "beat": [*tasks, "beat"],
        }

    def __enter__(self) -> Self:
        """A migrated, empty database; nothing runs yet."""
        found = self.servers.rows("postgres", "SELECT 1 FROM pg_database WHERE datname = %s", (MIGRATED,))
        if not found:
            self.servers.make_database(MIGRATED)
            migrate = [sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade"]
            environment = self.environment | {"DATABASE_URL": self.servers.sqlalchemy_url(MIGRATED)}
            try:
                call(migrate, environment, ROOT, START_PATIENCE)
            except BenchError:
                self.servers.drop_database(MIGRATED)
                raise
        self.servers.make_database(DATABASE, MIGRATED)
        self.servers.flush(OURS_REDIS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends everything and deletes the database."""
        self.children.__exit__(kind, error, trace)
        self.servers.drop_database(DATABASE)

    def launch(self, *names: str) -> None:
        """Starts some of the processes and waits for none."""
        for name in names:
            self.children.start(name, self.commands[name], self.environment, ROOT)

    def wait_for_api(self) -> None:
        """Waits until the API is ready.

        Raises:
            BenchError: it is not in time.
        """
        self.children.wait_until(
            lambda: answers(self.port, "/health/ready"), "the API is not ready", START_PATIENCE
        )

    def start_api(self) -> None:
        """Starts the API and waits until it is ready.

        Raises:
            BenchError: it is not in time.
        """
        self.launch("api")
        self.wait_for_api()

    def discard(self) -> None:
        """Forgets what was not claimed yet; the messages about it find nothing."""
        self.servers.execute(DATABASE, "DELETE FROM jobs WHERE status = 'queued'")

    def empty(self) -> None:
        """Forgets every job; for when no worker runs."""
        self.servers.execute(DATABASE, "TRUNCATE jobs, job_attempts, dead_letters, idempotency_keys CASCADE")
        self.servers.flush(OURS_REDIS)

    def count(self, condition: str = "true") -> int:
        """How many jobs there are."""
        return int(self.servers.rows(DATABASE, f"SELECT count(*) FROM jobs WHERE {condition}")[0][0])  # noqa: S608

    def is_done(self) -> bool:
        """Whether every job is finished; a look that costs the measured system next to nothing.

        Counting would: a count of a table that is being worked on reads every version of every row, and keeps the
        dead ones alive for as long as it takes.
        """
        return not any(self.servers.rows(DATABASE, first) for first in _FIRST_UNFINISHED)

    def drain(self, patience: float) -> None:
        """Waits until every job is finished.

        Raises:
            BenchError: not all are in time.
        """
        self.children.wait_until(self.is_done, "jobs are unfinished", patience)

    def post(self, *, clients: int, seconds: float | None = None, rate: float | None = None) -> load.Load:
        """Submits no-op jobs over HTTP.

        Raises:
            BenchError: one was not accepted.
        """
        done = load.drive(self.port, SUBMIT, clients=clients, seconds=seconds, rate=rate)
        done.require("POST /jobs")
        return done

    def bulk(self, count: int, size: int, clients: int) -> load.Load | None:
        """Submits no-op jobs through `POST /jobs/batch`; None when it is not offered.

        Args:
            size: jobs in a request.

        Raises:
            BenchError: one was not accepted.
        """
        body = json.dumps({"jobs": [{"payload": PAYLOAD}] * size}).encode()
        request = load.request("POST", "/jobs/batch", body)
        probe = load.Connection(self.port)
        try:
            tiny = json.dumps({"jobs": [{"payload": PAYLOAD}]}).encode()
            status, answer = probe.ask(load.request("POST", "/jobs/batch", tiny))
        finally:
            probe.close()
        if status in {404, 405}:
            return None
        if status not in {200, 201, 207}:
            raise BenchError(f"POST /jobs/batch answered {status}: {answer[:200]!r}")
        before = self.count()
        done = load.drive(self.port, request, clients=clients, count=max(1, count // size))
        done.require("POST /jobs/batch")
        stored, sent = self.count() - before, len(done.latencies) * size
        if stored != sent:
            raise BenchError(f"POST /jobs/batch took {sent} jobs and stored {stored}")
        return done

    def forget_finished(self) -> None:
        """Empties the tables once everything in them is executed; the workers go on."""
        self.servers.execute(DATABASE, "TRUNCATE jobs, job_attempts, dead_letters, idempotency_keys CASCADE")

    def fill(self, count: int, task: str = NOOP) -> None:
        """Puts no-op jobs into the table as a submission leaves them while Redis is full: not yet dispatched."""
        self.servers.execute(DATABASE, fill_statement(count, task))


#: The first job of an index that is queued, and the first that is processing.
_FIRST_UNFINISHED = (
    "SELECT 1 FROM jobs WHERE finished_at IS NULL AND status = 'queued' ORDER BY id LIMIT 1",
    "SELECT 1 FROM jobs WHERE finished_at IS NULL AND status = 'processing' ORDER BY lease_expires_at LIMIT 1",
)


def fill_statement(count: int, task: str) -> str:
    """The statement that adds queued, undispatched jobs."""
    return f"""
        INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint)
        SELECT uuidv7(), '{task}', '{json.dumps(PAYLOAD | {"task": task})}', 'default', 3, 300, sha256('bench')
          FROM generate_series(1, {count})"""  # noqa: S608 - constants of this file
