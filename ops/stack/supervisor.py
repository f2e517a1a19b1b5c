"""Supervisor: keeps the processes running, restarts what dies, stops them in order."""

from __future__ import annotations

import hashlib
import http.client
import os
import shlex
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from ops.stack import ownership
from ops.stack.processes import Process

#: Longest path of a unix socket, bytes (the kernel's limit is 108).
LONGEST_SOCKET = 100
#: How long supervisord may take to answer after its start, seconds.
START_PATIENCE = 20.0
#: States of a process that is on its way up or running.
LIVE = ("STARTING", "RUNNING")
#: Size at which a log is rotated, and how many predecessors are kept.
LOG_SIZE, LOG_BACKUPS = "20MB", 3


class SupervisorError(Exception):
    """The supervisor did not do what it was asked."""


class Supervisor:
    """The supervisor of one data folder.

    Args:
        data: the folder.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.socket = data / "run" / "supervisor.sock"
        if len(os.fsencode(self.socket)) > LONGEST_SOCKET:
            digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
            self.socket = Path(tempfile.gettempdir()) / f"djps-{digest}.sock"

    def start(
        self, processes: Sequence[Process], environment: dict[str, str], folder: Path
    ) -> subprocess.Popen[bytes]:
        """Starts the supervisor itself; its processes are started one by one with `launch`.

        Args:
            environment: what the processes get.
            folder: where they run.

        Raises:
            SupervisorError: it does not answer.
        """
        for name in ("run", "logs"):
            (self.data / name).mkdir(parents=True, exist_ok=True)
        configuration = self.data / "run" / "supervisord.conf"
        configuration.write_text(self._configuration(processes, folder))
        said = self.data / "logs" / "supervisord.out"
        with said.open("wb") as out:
            started = subprocess.Popen(
                [sys.executable, "-m", "ops.stack.supervisord", "--configuration", str(configuration)],
                env={**environment, ownership.MARK: str(self.data)},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        end = time.monotonic() + START_PATIENCE
        while not self.answers():
            if started.poll() is not None or time.monotonic() > end:
                words = said.read_text(errors="replace").split() or ["it said nothing"]
                raise SupervisorError(f"supervisord did not start ({' '.join(words)[-300:]})")
            time.sleep(0.05)
        return started

    def _configuration(self, processes: Sequence[Process], folder: Path) -> str:
        run, logs = _escaped(self.data / "run"), _escaped(self.data / "logs")
        lines = [
            "[supervisord]",
            "nodaemon=true",
            "silent=true",
            f"logfile={logs}/supervisord.log",
            f"logfile_maxbytes={LOG_SIZE}",
            f"logfile_backups={LOG_BACKUPS}",
            f"pidfile={run}/supervisord.pid",
            f"childlogdir={logs}",
            *(["user=root"] if os.geteuid() == 0 else []),
            "[unix_http_server]",
            f"file={_escaped(self.socket)}",
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
        ]
        for number, process in enumerate(processes):
            lines += [
                f"[program:{process.name}]",
                f"command={_escaped(shlex.join(process.command))}",
                f"directory={_escaped(folder if process.user is None else '/')}",
                f"priority={100 + number}",
                "autostart=false",
                "autorestart=true",
                "startsecs=1",
                # It never gives up: what is in the way may go, such as a full disk.
                "startretries=1000000000",
                f"stopsignal={process.stop_signal}",
                f"stopwaitsecs={process.stop_wait}",
                "killasgroup=true",
                "redirect_stderr=true",
                # Supervisor expands this one twice.
                f"stdout_logfile={_escaped(logs)}/{process.name}.log",
                f"stdout_logfile_maxbytes={LOG_SIZE}",
                f"stdout_logfile_backups={LOG_BACKUPS}",
                *([f"user={process.user}"] if process.user else []),
            ]
        return "\n".join(lines) + "\n"

    def _call(self, method: str, *arguments: Any) -> Any:
        """Asks supervisord something.

        Raises:
            SupervisorError: it does not run, or stopped while it was asked.
            xmlrpc.client.Fault: it refused.
        """
        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        try:
            with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as proxy:
                return getattr(proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault:
            raise
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise SupervisorError("DJPS is not up; `python3 -m ops up` starts it") from error

    def answers(self) -> bool:
        """True if the supervisor runs."""
        try:
            self._call("getState")
        except (SupervisorError, xmlrpc.client.Fault):
            return False
        return True

    def launch(self, name: str) -> None:
        """Starts one process, without waiting for it; nothing happens when it runs.

        Raises:
            SupervisorError: the supervisor does not run.
        """
        with suppress(xmlrpc.client.Fault):
            self._call("startProcess", name, False)

    def stop_one(self, name: str) -> bool:
        """Stops one process in order, until it is launched again; False when there is none of this name.

        Raises:
            SupervisorError: the supervisor does not run, or is ending.
        """
        try:
            states = {one["name"]: one["pid"] for one in self._call("getAllProcessInfo")}
        except xmlrpc.client.Fault as error:
            raise SupervisorError("DJPS is being stopped") from error
        if name not in states:
            return False
        if states[name]:
            ownership.wake(states[name])
        with suppress(xmlrpc.client.Fault):
            # A process that does not run cannot be stopped, and may be started all the same.
            self._call("stopProcess", name, True)
        return True

    def states(self) -> dict[str, dict[str, Any]]:
        """Pid, state and last start of every process, by name; empty when the supervisor does not run."""
        try:
            found = self._call("getAllProcessInfo")
        except (SupervisorError, xmlrpc.client.Fault):
            return {}
        return {
            one["name"]: {"pid": one["pid"] or None, "state": one["statename"], "started": one["start"]}
            for one in found
        }

    def stop(self, patience: float) -> int:
        """Stops every process in the reverse order of their start, then the supervisor.

        Returns how many processes had to be ended because no supervisor looked after them.

        Args:
            patience: seconds the orderly way may take.
        """
        supervisors = [one for one in ownership.find(self.data) if ownership.is_supervisor(one)]
        with suppress(SupervisorError):
            with suppress(xmlrpc.client.Fault):
                # It refuses when it is shutting down already: then that is waited for.
                self._call("shutdown")
            psutil.wait_procs(supervisors, timeout=patience)
        leftovers = self.end_leftovers()
        self.socket.unlink(missing_ok=True)
        return leftovers

    def end_leftovers(self) -> int:
        """Ends what a supervisor that was killed left behind; returns how many processes that were."""
        found = ownership.find(self.data)
        ownership.end(found)
        return len(found)


def _escaped(value: object) -> str:
    """Supervisor expands %(...)s in its configuration."""
    return str(value).replace("%", "%%")
