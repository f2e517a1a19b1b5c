"""The order of things: servers, migrations, processes, ready."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import requests

from ops.stack import (
    addresses,
    first_key,
    metrics_key,
    passwords,
    ports,
    postgres,
    preflight,
    processes,
    prometheus,
    readiness,
    valkey,
)
from ops.stack.supervisor import Supervisor, SupervisorError
from ops.stack.valkey_start import ASIDE
from ops.stack.venv import ROOT
from webapp.settings import Settings
from webapp.settings.local import read_note

#: Longest a server may take to answer after its start, seconds.
SERVER_PATIENCE = 60.0
#: Longest the whole may take to be ready once its servers are, seconds.
READY_PATIENCE = 90.0
#: Longest one process may take to be ready after `restart`, seconds.
RESTART_PATIENCE = 30.0
#: The processes that `status` speaks of.
NAMES = ("postgres", "redis", "api", "worker", "maintenance", "beat", "flower", "httpbin", "prometheus")
#: Settings of a running stack that another shell may not have.
PLACES = (
    *("api_host", "api_port", "flower_host", "flower_port", "prometheus_port"),
    *("postgres_port", "redis_port", "httpbin_port"),
)
#: Settings of a running stack that commands in another shell go by.
KNOWN_TO_COMMANDS = ("redis_prefix", "handlers", "default_handler", "queues")


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
        """Where the running stack is; where this one would be, when none runs."""
        return addresses.now(self.data, self.settings)

    def log(self, name: str) -> Path:
        """The log of a process."""
        return self.data / "logs" / f"{name}.log"

    def environment(self) -> dict[str, str]:
        """What the processes get: this environment and our addresses."""
        where = addresses.of(self.settings)
        ours = {
            "DATABASE_URL": where["database_url"],
            "REDIS_URL": where["redis_url"],
            "DJPS_DATA_DIR": str(self.data),
            "PROMETHEUS_MULTIPROC_DIR": str(self.data / "metrics"),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
            "PYTHONUNBUFFERED": "1",
        }
        if any(one.name == "httpbin" for one in self._applications):
            ours["SIMULATED_JOB_URL"] = f"http://{ports.LOOPBACK}:{self.settings.httpbin_port}/delay/1"
        # Flower takes an empty list of users for one that no one is on.
        inherited = {name: value for name, value in os.environ.items() if name != "FLOWER_BASIC_AUTH"}
        if users := self.settings.flower_basic_auth.get_secret_value():
            ours["FLOWER_BASIC_AUTH"] = users
        return {**inherited, **ours}

    def up(self) -> subprocess.Popen[bytes]:
        """Brings everything up; returns the supervisor's process once `/health/ready` answers.

        Raises:
            StackError: it runs already, a port is in use, or something does not start.
        """
        try:
            with preflight.alone(self.data):
                self._refuse_what_cannot_work()
                self._prepare()
                return self._start()
        except (preflight.Refused, ports.PortInUse, postgres.PostgresError, SupervisorError) as error:
            raise StackError(str(error)) from error
        except OSError as error:
            raise StackError(f"DJPS cannot be started with DJPS_DATA_DIR {self.data}: {error}") from error

    def _refuse_what_cannot_work(self) -> None:
        """Says what is in the way before anything is made or started."""
        note = read_note(self.data)
        if self.supervisor.answers() and (not note or note.get("ready") is False):
            print("another `up` was killed before all was ready; what it had started is ended")
            self.down()
        if self.supervisor.answers():
            raise StackError(
                f"DJPS is up already with its data in {self.data}; `python3 -m ops down` stops it"
            )
        if {"handlers", "default_handler", "queues"} & self.settings.model_fields_set:
            preflight.try_handlers(self.environment())
        if (sentence := addresses.unanswered(self.settings)) is not None:
            raise StackError(sentence)
        if left := self.supervisor.end_leftovers():
            print(f"{left} processes had lost their supervisor and were ended")
        self._leave_out_watchers()
        for process in self._everything:
            if process.port is not None:
                ports.require_free(*process.port, process.host)

    def _leave_out_watchers(self) -> None:
        """A Prometheus of the machine's own may have the port; that must not keep DJPS from running."""
        port = self.settings.prometheus_port
        if self._watchers and not ports.is_free(port):
            print(f"port {port} is in use, so no Prometheus is started (set PROMETHEUS_PORT to another)")
            self._watchers = []

    def _prepare(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        (self.data / "metrics").mkdir(exist_ok=True)
        for pattern in ("*.db", "slot-*.lock"):
            # The data folder may be someone's home, with a folder of this name that is theirs.
            for file in (self.data / "metrics").glob(pattern):
                file.unlink(missing_ok=True)
        readiness.forget_all(self.data)
        for process in self._servers:
            if process.name == "postgres":
                self._prepare_postgres()
            else:
                (self.data / "redis").mkdir(exist_ok=True)
                if not (password := passwords.kept(self.data, "redis")):
                    password = passwords.new()
                    passwords.keep(self.data, "redis", password)
                valkey.configure(self.data / passwords.FOLDER / "redis.conf", password)
        (self.data / "run" / "prometheus.yml").write_text(
            prometheus.configuration(
                self.settings.api_port,
                self.settings.flower_port,
                credentials=self.data / metrics_key.FILE if metrics_key.is_needed(self.settings) else None,
            )
        )

    def _prepare_postgres(self) -> None:
        folder = self.data / "postgres"
        is_new = not (folder / "PG_VERSION").exists()
        if is_new:
            print("making a new database")
        kept = passwords.kept(self.data, "postgres")
        password = kept or passwords.new()
        postgres.prepare(folder, password)
        if kept:
            return
        if not is_new:
            print("giving the database a new password")
            postgres.set_password(folder, password)
        # Only now: one that the server does not have yet would never be set.
        passwords.keep(self.data, "postgres", password)

    def _start(self) -> subprocess.Popen[bytes]:
        started = self.supervisor.start(self._everything, self.environment(), ROOT)
        try:
            self._write_note(ready=False)
            with _step("starting the servers"):
                self._start_servers()
            with _step("migrating the database"):
                self._migrate()
            self._make_keys()
            with _step("starting DJPS"):
                for process in self._applications:
                    self.supervisor.launch(process.name)
                self._await(READY_PATIENCE, self._not_ready, self._applications)
                self._start_watchers()
            self._write_note(ready=True)
        except BaseException:
            self.down()
            raise
        return started

    def _write_note(self, *, ready: bool) -> None:
        """Says where everything is, and whether `up` has come to its end."""
        note = {
            **addresses.of(self.settings),
            **{name: getattr(self.settings, name) for name in KNOWN_TO_COMMANDS},
            "python_path": os.environ.get("PYTHONPATH", ""),
            "places": {name: getattr(self.settings, name) for name in PLACES},
            "what": {one.name: one.what for one in self._everything},
            "ready": ready,
        }
        addresses.write_note(self.data, note)

    def _start_watchers(self) -> None:
        """They come last, for what is still starting would look to them like what has failed; DJPS runs without them."""
        for process in self._watchers:
            try:
                self.restart(process.name)
            except StackError as error:
                print(error, end=" ")

    def _start_servers(self) -> None:
        aside = self.data / "redis" / ASIDE
        set_aside = aside.stat().st_ctime_ns if aside.exists() else 0
        for process in self._servers:
            self.supervisor.launch(process.name)
        self._await(SERVER_PATIENCE, self._servers_not_ready, self._servers)
        if aside.exists() and aside.stat().st_ctime_ns != set_aside:
            print(readiness.last_line_about(self.log("redis"), ASIDE), end=" ")

    def _servers_not_ready(self) -> str | None:
        for process in self._servers:
            if (reason := readiness.unready(process.name, self.settings, self.data)) is not None:
                return f"{process.name}: {reason}"
        if any(process.name == "postgres" for process in self._servers):
            try:
                postgres.create(self.settings.postgres_port, passwords.kept(self.data, "postgres"))
            except psycopg2.Error as error:
                return f"postgres: {error}"
        return None

    def _not_ready(self) -> str | None:
        try:
            found = requests.get(addresses.of(self.settings)["api_url"] + "/health/ready", timeout=2).json()
        except (requests.RequestException, ValueError) as error:
            return f"api: {type(error).__name__}"
        if found.get("status") != "ok":
            return str(found.get("dependencies", found))
        states = self.supervisor.states()
        for process in self._everything[: len(self._servers) + len(self._applications)]:
            if states.get(process.name, {}).get("state") != "RUNNING":
                return f"{process.name} is not running"
            if (reason := readiness.unready(process.name, self.settings, self.data)) is not None:
                return f"{process.name}: {reason}"
        return None

    def _await(
        self, patience: float, missing: Callable[[], str | None], of: Sequence[processes.Process]
    ) -> None:
        """Waits until nothing is missing.

        Args:
            patience: seconds.
            missing: what is missing, in a few words.
            of: what is waited for; when one of these dies again and again, or does not listen on its port, it is given up.

        Raises:
            StackError: it does not come; the message has what the process said last.
        """
        end = time.monotonic() + patience
        deaths = readiness.Deaths()
        marks = {one.name: readiness.size_of(self.log(one.name)) for one in of}
        while (said := missing()) is not None:
            states = self.supervisor.states()
            if not states:
                raise StackError("DJPS was stopped while it was starting")
            if (name := deaths.look(states, [one.name for one in of])) is not None:
                words = readiness.last_words(self.log(name), marks[name])
                raise StackError(f"{name} does not start: {words}; see `python3 -m ops logs {name}`")
            if time.monotonic() > end:
                raise StackError(
                    f"DJPS was not ready within {patience:g} s ({said}); see `python3 -m ops logs`"
                )
            time.sleep(0.05)
        states = self.supervisor.states()
        for one in of:
            pid = states.get(one.name, {}).get("pid")
            if one.port is not None and not (pid and readiness.listens(pid, one.port[0])):
                raise StackError(str(ports.PortInUse(*one.port)))

    def _make_keys(self) -> None:
        """An API that others reach does not start without a key, and where keys are asked for Prometheus needs one."""
        file = None
        try:
            if first_key.is_needed(self.settings):
                file = first_key.make(self.data, self.environment())
            if self._watchers and metrics_key.is_needed(self.settings):
                metrics_key.make(self.data, self.environment())
        except (first_key.NoFirstKey, OSError) as error:
            raise StackError(str(error)) from None
        if file is not None:
            print(f"no key was live: an admin key is in {file}")

    def _migrate(self) -> None:
        newest = max(
            file.name.partition("_")[0] for file in (ROOT / "migrations" / "versions").glob("[0-9]*.py")
        )
        where = addresses.of(self.settings)["database_url"]
        if postgres.migrated_to(where) == newest:
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
        self.log("migrate").write_text(done.stdout + done.stderr)
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
            raise StackError(
                f"the migration failed ({addresses.masked(said[:300])}); see {self.log('migrate')}"
            )

    def down(self) -> int:
        """Stops everything in order and leaves no process behind; returns how many were strays."""
        longest = sum(one.stop_wait for one in self._everything)
        strays = self.supervisor.stop(patience=longest)
        addresses.forget_note(self.data)
        return strays

    def restart(self, name: str) -> None:
        """Stops one process in order, starts it again and waits until it is ready.

        Raises:
            StackError: DJPS is not up, runs no process of this name, or it does not get ready.
        """
        self.stop_one(name)
        mark = readiness.size_of(self.log(name))
        readiness.forget(self.data, name)
        running = self.settings.model_copy(update=read_note(self.data).get("places", {}))
        self.supervisor.launch(name)
        deaths = readiness.Deaths()
        end = time.monotonic() + RESTART_PATIENCE
        while True:
            states = self.supervisor.states()
            reason = readiness.unready(name, running, self.data)
            if reason is None and states.get(name, {}).get("state") == "RUNNING":
                return
            words = readiness.last_words(self.log(name), mark)
            if deaths.look(states, [name]) is not None:
                raise StackError(f"{name} was started again and does not stay up: {words}")
            if time.monotonic() > end:
                raise StackError(
                    f"{name} was started again and is not ready after {RESTART_PATIENCE:g} s"
                    f" ({reason or 'it does not stay up'}); its log says last: {words}"
                )
            time.sleep(0.1)

    def stop_one(self, name: str) -> None:
        """Stops one process in order; it stays stopped until `restart`.

        Raises:
            StackError: DJPS is not up, or runs no process of this name.
        """
        try:
            found = self.supervisor.stop_one(name)
        except SupervisorError as error:
            raise StackError(str(error)) from error
        if not found:
            raise StackError(
                f"no process is named {name!r} (there are: {', '.join(self.supervisor.states())})"
            )

    def status(self) -> dict[str, Any]:
        """What runs, and where; without passwords."""
        found = {
            name: {"pid": one["pid"], "state": one["state"]}
            for name, one in self.supervisor.states().items()
            if name in NAMES
        }
        where = {name: addresses.masked(url) for name, url in self.urls.items()}
        return {**where, "processes": found}


@contextmanager
def _step(what: str) -> Iterator[None]:
    """Prints what is being done and how long it took."""
    started = time.monotonic()
    print(f"{what} ...", end=" ", flush=True)
    yield
    print(f"{time.monotonic() - started:.1f} s", flush=True)
