"""Supervisor: keeps the processes running, restarts what dies, stops them in order."""

from __future__ import annotations

import hashlib
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

from ops.stack.processes import Process

#: Marks every process of a stack with its data folder, so that leftovers can be found.
MARK = "DJPS_STACK"
#: Longest path of a unix socket, bytes (the kernel's limit is 108).
LONGEST_SOCKET = 100
#: How long supervisord may take to answer after its start, seconds.
START_PATIENCE = 20.0
#: How long a leftover process gets to end, seconds.
LEFTOVER_PATIENCE = 10.0
#: States of a process that is on its way up or running.
LIVE = ("STARTING", "RUNNING")


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
        with (self.data / "logs" / "supervisord.out").open("ab") as out:
            started = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "supervisor.supervisord",
                    "--nodaemon",
                    "--configuration",
                    str(configuration),
                ],
                env={**environment, MARK: str(self.data)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        end = time.monotonic() + START_PATIENCE
        while not self.answers():
            if started.poll() is not None or time.monotonic() > end:
                raise SupervisorError(f"supervisord did not start; see {self.data / 'logs'}")
            time.sleep(0.05)
        return started

    def _configuration(self, processes: Sequence[Process], folder: Path) -> str:
        run, logs = _escaped(self.data / "run"), _escaped(self.data / "logs")
        lines = [
            "[supervisord]",
            f"logfile={logs}/supervisord.log",
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
                # Each failed start waits a second longer than the one before, so this is days.
                "startretries=1000",
                f"stopsignal={process.stop_signal}",
                f"stopwaitsecs={process.stop_wait}",
                "killasgroup=true",
                "redirect_stderr=true",
                # Supervisor expands this one twice.
                f"stdout_logfile={_escaped(logs)}/{process.name}.log",
                "stdout_logfile_maxbytes=20MB",
                "stdout_logfile_backups=3",
                *([f"user={process.user}"] if process.user else []),
            ]
        return "\n".join(lines) + "\n"

    def _call(self, method: str, *arguments: Any) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)

    def answers(self) -> bool:
        """Tells whether the supervisor runs."""
        try:
            self._call("getState")
        except (OSError, xmlrpc.client.Error):
            return False
        return True

    def launch(self, name: str) -> None:
        """Starts one process, without waiting for it."""
        self._call("startProcess", name, False)

    def restart(self, name: str) -> bool:
        """Stops one process in order and starts it again; False when there is none of this name.

        Raises:
            SupervisorError: the supervisor does not run, or the process ends as soon as it is started.
        """
        if not self.stop_one(name):
            return False
        try:
            self._call("startProcess", name, True)
        except xmlrpc.client.Fault as fault:
            raise SupervisorError(
                f"{name} does not start ({fault.faultString}) and is tried again; see `python3 -m ops logs {name}`"
            ) from fault
        return True

    def stop_one(self, name: str) -> bool:
        """Stops one process in order, until `restart`; False when there is none of this name.

        Raises:
            SupervisorError: the supervisor does not run.
        """
        if not self.answers():
            raise SupervisorError("DJPS is not up; `python3 -m ops up` starts it")
        states = self.states()
        if name not in states:
            return False
        if (pid := states[name]["pid"]) is not None:
            _wake(pid)
        with suppress(xmlrpc.client.Fault):
            # A process that does not run cannot be stopped, and may be started all the same.
            self._call("stopProcess", name, True)
        return True

    def states(self) -> dict[str, dict[str, Any]]:
        """Pid and state of every process, by name; empty when the supervisor does not run."""
        try:
            found = self._call("getAllProcessInfo")
        except (OSError, xmlrpc.client.Error):
            return {}
        return {one["name"]: {"pid": one["pid"] or None, "state": one["statename"]} for one in found}

    def stop(self, patience: float) -> int:
        """Stops every process in the reverse order of their start, then the supervisor.

        Returns how many processes had to be swept up because no supervisor looked after them.

        Args:
            patience: seconds the orderly way may take.
        """
        supervisors = [
            process for process in self._marked() if "supervisor.supervisord" in _command_of(process)
        ]
        try:
            self._call("shutdown")
        except (OSError, xmlrpc.client.Error):
            pass
        else:
            psutil.wait_procs(supervisors, timeout=patience)
        swept = self._sweep()
        self.socket.unlink(missing_ok=True)
        return swept

    def _marked(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get(MARK) == str(self.data)
                # Valkey writes its title over its environment, but it works inside our folder.
                if process.pid != os.getpid() and (ours or self.data in Path(process.cwd()).parents):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def _sweep(self) -> int:
        """Ends what a killed supervisor left behind; returns how many processes that were."""
        leftovers = sorted(self._marked(), key=lambda one: "supervisor.supervisord" not in _command_of(one))
        for process in leftovers:
            _quietly(process.terminate)
        _, alive = psutil.wait_procs(leftovers, timeout=LEFTOVER_PATIENCE)
        for process in alive:
            _quietly(process.kill)
        psutil.wait_procs(alive, timeout=LEFTOVER_PATIENCE)
        return len(leftovers)


def _command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _wake(pid: int) -> None:
    """Lets a process that was paused go on, and its children.

    It would not hear that it should end, and be killed when its time is over; PostgreSQL's children would outlive it
    then, and no other server could use its folder.
    """
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return
    for process in family:
        _quietly(process.resume)


def _quietly(act: Any) -> None:
    try:
        act()
    except psutil.Error:
        return


def _escaped(value: object) -> str:
    """Supervisor expands %(...)s in its configuration."""
    return str(value).replace("%", "%%")
