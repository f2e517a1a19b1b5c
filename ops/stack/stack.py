"""The order of things: servers, migrations, processes, ready."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from sqlalchemy.engine import make_url

from ops.stack import ports, postgres, processes, prometheus, valkey
from ops.stack.supervisor import LIVE, Supervisor, SupervisorError
from ops.stack.venv import ROOT
from webapp.settings import Settings

#: Longest the whole may take to be ready once its servers are, seconds.
READY_PATIENCE = 90.0
#: The processes that `status` speaks of.
NAMES = ("postgres", "redis", "api", "worker", "maintenance", "beat", "flower", "httpbin", "prometheus")


class StackError(Exception):
    """The stack cannot be brought up; the message is one sentence that says why."""


class Stack:
    """Everything that runs for one data folder.

    Args:
        settings: ports, addresses, folder.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.data = (ROOT / settings.data_dir).resolve()
        self.supervisor = Supervisor(self.data)
        self._servers = processes.servers(settings, self.data)
        self._applications = processes.applications(settings)
        self._watchers = processes.watchers(settings, self.data)

    @property
    def _everything(self) -> list[processes.Process]:
        return [*self._servers, *self._applications, *self._watchers]

    @property
    def urls(self) -> dict[str, str]:
        """Where things are."""
        ours = {one.name for one in self._servers}
        given = self.settings
        return {
            "database_url": postgres.url(given.postgres_port) if "postgres" in ours else given.database_url,
            "redis_url": valkey.url(given.redis_port) if "redis" in ours else given.redis_url,
            "api_url": f"http://{ports.LOOPBACK}:{given.api_port}",
            "flower_url": f"http://{_reached(given.flower_host)}:{given.flower_port}",
            "prometheus_url": f"http://{ports.LOOPBACK}:{given.prometheus_port}",
        }

    @property
    def _note(self) -> Path:
        return self.data / "run" / "stack.json"

    def environment(self) -> dict[str, str]:
        """What the processes get: this environment and our addresses."""
        ours = {
            "DATABASE_URL": self.urls["database_url"],
            "REDIS_URL": self.urls["redis_url"],
            "DJPS_DATA_DIR": str(self.data),
            "PROMETHEUS_MULTIPROC_DIR": str(self.data / "metrics"),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
            "PYTHONUNBUFFERED": "1",
        }
        if any(one.name == "httpbin" for one in self._applications):
            ours["SIMULATED_JOB_URL"] = f"http://{ports.LOOPBACK}:{self.settings.httpbin_port}/delay/1"
        # Flower takes an empty list of users for one that nobody is on.
        inherited = {name: value for name, value in os.environ.items() if name != "FLOWER_BASIC_AUTH"}
        if users := self.settings.flower_basic_auth.get_secret_value():
            ours["FLOWER_BASIC_AUTH"] = users
        return {**inherited, **ours}

    def up(self) -> subprocess.Popen[bytes]:
        """Brings everything up; returns the supervisor's process once `/health/ready` answers.

        Raises:
            StackError: it runs already, a port is in use, or something does not start.
        """
        if self.supervisor.answers():
            raise StackError(
                f"DJPS is up already with its data in {self.data}; `python3 -m ops down` stops it"
            )
        self._leave_out_watchers()
        try:
            for process in self._everything:
                if process.port is not None:
                    ports.require_free(*process.port)
            self._prepare()
            started = self.supervisor.start(self._everything, self.environment(), ROOT)
        except (ports.PortInUse, postgres.PostgresError, OSError) as error:
            raise StackError(str(error)) from error
        try:
            with _step("starting the servers"):
                self._start_servers()
            with _step("migrating the database"):
                self._migrate()
            with _step("starting DJPS"):
                for process in self._applications:
                    self.supervisor.launch(process.name)
                self._wait_until_ready()
                self._start_watchers()
        except BaseException:
            self.down()
            raise
        return started

    def _start_watchers(self) -> None:
        """They come last, for what is still starting would look to them like what has failed."""
        for process in self._watchers:
            try:
                self.supervisor.restart(process.name)
            except SupervisorError as error:
                print(error)

    def _leave_out_watchers(self) -> None:
        """A Prometheus of the machine's own may have the port; that must not keep DJPS from running."""
        port = self.settings.prometheus_port
        if self._watchers and not ports.is_free(port):
            print(f"port {port} is in use, so no Prometheus is started (set PROMETHEUS_PORT to another)")
            self._watchers = []

    def _prepare(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.data / "metrics", ignore_errors=True)
        (self.data / "metrics").mkdir()
        for process in self._servers:
            if process.name == "postgres":
                if not (self.data / "postgres" / "PG_VERSION").exists():
                    print("making a new database")
                postgres.prepare(self.data / "postgres")
            else:
                (self.data / "redis").mkdir(exist_ok=True)
        (self.data / "run").mkdir(exist_ok=True)
        (self.data / "run" / "prometheus.yml").write_text(
            prometheus.configuration(self.settings.api_port, self.settings.flower_port)
        )
        self._note.write_text(json.dumps(self.urls))

    def _start_servers(self) -> None:
        for process in self._servers:
            self.supervisor.launch(process.name)
        try:
            for process in self._servers:
                if process.name == "postgres":
                    postgres.wait_and_create(self.settings.postgres_port)
                else:
                    valkey.wait(self.settings.redis_port)
        except (postgres.PostgresError, valkey.ValkeyError) as error:
            raise StackError(f"{error}; see `python3 -m ops logs`") from error

    def _migrate(self) -> None:
        newest = max(
            file.name.partition("_")[0] for file in (ROOT / "migrations" / "versions").glob("[0-9]*.py")
        )
        if postgres.migrated_to(self.urls["database_url"]) == newest:
            return
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade"],
            env=self.environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        (self.data / "logs" / "migrate.log").write_text(done.stdout + done.stderr)
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
            if "OperationalError" in done.stderr:
                hidden = make_url(self.urls["database_url"]).render_as_string(hide_password=True)
                raise StackError(f"the database at {hidden} does not answer; check DATABASE_URL")
            raise StackError(f"the migration failed ({said[:300]}); see {self.data / 'logs' / 'migrate.log'}")

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + READY_PATIENCE
        said = "no answer"
        while time.monotonic() < end:
            try:
                answer = requests.get(self.urls["api_url"] + "/health/ready", timeout=2)
                found = answer.json()
                if found.get("status") == "ok" and self._all_running():
                    return
                said = str(found.get("dependencies", found))
            except (requests.RequestException, ValueError) as error:
                said = type(error).__name__
            time.sleep(0.1)
        raise StackError(
            f"DJPS was not ready within {READY_PATIENCE:g} s ({said}); see `python3 -m ops logs`"
        )

    def _all_running(self) -> bool:
        states = self.supervisor.states()
        return all(states[one.name]["state"] == "RUNNING" for one in [*self._servers, *self._applications])

    def down(self) -> int:
        """Stops everything in order and leaves no process behind; returns how many were strays."""
        longest = sum(one.stop_wait for one in self._everything)
        return self.supervisor.stop(patience=longest)

    def status(self) -> dict[str, Any]:
        """What runs, and where."""
        found = {name: state for name, state in self.supervisor.states().items() if name in NAMES}
        urls = json.loads(self._note.read_text()) if found and self._note.exists() else self.urls
        return {**urls, "processes": found}

    def describe(self) -> str:
        """A table of what runs where, and a line to try."""
        states = self.supervisor.states()
        where = {"postgres": self.urls["database_url"], "redis": self.urls["redis_url"]}
        where |= {name: self.urls[f"{name}_url"] for name in ("api", "flower", "prometheus")}
        rows = [
            (
                one.name,
                states[one.name]["state"].lower(),
                str(states[one.name]["pid"] or ""),
                where.get(one.name, ""),
                one.what,
            )
            for one in self._everything
            if one.name in states
        ]
        head = ("process", "state", "pid", "address", "what it does")
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [head, *rows]
        ]
        return "\n".join(table)


def _reached(host: str) -> str:
    """Where this machine reaches what listens on `host`."""
    return ports.LOOPBACK if host in {"0.0.0.0", "::"} else host  # noqa: S104 - it is compared, not bound


def live(state: dict[str, Any]) -> bool:
    """Tells whether a process is up or on its way."""
    return state["state"] in LIVE


@contextmanager
def _step(what: str) -> Iterator[None]:
    """Prints what is being done and how long it took."""
    started = time.monotonic()
    print(f"{what} ...", end=" ", flush=True)
    yield
    print(f"{time.monotonic() - started:.1f} s", flush=True)
