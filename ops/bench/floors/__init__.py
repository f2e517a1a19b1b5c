"""Floors: what a POST costs where it does the least, and what the forerunner's design makes of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ops.bench import load, runtimes
from ops.bench.processes import BenchError, Children
from ops.bench.servers import FLOORS_REDIS, Servers
from ops.stack import ports

HERE = Path(__file__).resolve().parent
DATABASE = "bench_floors"
#: Seconds a server gets to answer.
START_PATIENCE = 30.0

_TABLES = (
    """CREATE TABLE floor_jobs (id uuid PRIMARY KEY, payload jsonb NOT NULL, status text NOT NULL DEFAULT 'queued',
        created_at timestamptz NOT NULL DEFAULT now())""",
    """CREATE TABLE forerunner_jobs (id uuid PRIMARY KEY, payload jsonb NOT NULL, status text NOT NULL,
        retry_count integer NOT NULL, idempotency_key text UNIQUE, created_at timestamp NOT NULL DEFAULT now(),
        updated_at timestamp NOT NULL DEFAULT now())""",
)


class Floors:
    """Both endpoints; each has a port while it runs."""

    def __init__(self, servers: Servers, children: Children) -> None:
        self.servers = servers
        self.children = children
        self.ports: dict[str, int] = {}

    def prepare(self) -> None:
        """Makes the tables anew."""
        self.servers.make_database(DATABASE)
        self.servers.execute(DATABASE, *_TABLES)
        self.servers.flush(FLOORS_REDIS)

    def launch_insert_only(self) -> None:
        """Starts the INSERT-only endpoint: two gunicorn workers of four threads, as the project's defaults are."""
        port = ports.free()
        command = [str(Path(sys.prefix) / "bin" / "gunicorn"), "--bind", f"{ports.LOOPBACK}:{port}"]
        command += ["--worker-class", "gthread", "--workers", "2", "--threads", "4", "--keep-alive", "5"]
        command += ["--no-control-socket", "--log-level", "warning", "insert_only:app"]
        self._launch("insert_only", port, command, self.servers.sqlalchemy_url(DATABASE))

    def launch_forerunner(self, say: Callable[[str], None]) -> None:
        """Starts the forerunner's endpoint: one uvicorn process.

        Raises:
            BenchError: it cannot be installed.
        """
        port = ports.free()
        python = runtimes.ready("peers", say).program
        command = [str(python), "-m", "uvicorn", "forerunner:app", "--host", ports.LOOPBACK]
        command += ["--port", str(port), "--no-access-log", "--log-level", "warning"]
        address = self.servers.dsn(DATABASE).replace("postgresql:", "postgresql+asyncpg:", 1)
        self._launch("forerunner", port, command, address)

    def _launch(self, name: str, port: int, command: list[str], database: str) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(HERE),
            "BENCH_DATABASE": database,
            "BENCH_REDIS": self.servers.redis_url(FLOORS_REDIS),
        }
        self.children.start(name, command, environment, HERE)
        self.ports[name] = port

    def wait(self) -> dict[str, str]:
        """Waits until they answer; those that do not are stopped and returned with the reason."""
        failed = {}
        for name, port in list(self.ports.items()):
            try:
                self.children.wait_until(
                    partial(answers, port), f"{name} does not answer", START_PATIENCE, only=name
                )
            except BenchError as error:
                failed[name] = f"failed: {error}"
                self.children.stop(name)
                del self.ports[name]
        return failed

    def stop(self) -> None:
        """Stops what runs and deletes what it kept."""
        self.children.stop(*self.ports)
        self.ports.clear()
        self.servers.drop_database(DATABASE)


def answers(port: int, path: str = "/health") -> bool:
    """True if an HTTP server on this port says that it is well."""
    try:
        connection = load.Connection(port)
    except OSError:
        return False
    try:
        return connection.ask(load.request("GET", path))[0] == 200  # noqa: PLR2004
    except (OSError, BenchError):
        return False
    finally:
        connection.close()
