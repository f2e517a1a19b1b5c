"""Processes of a run: each leads a group of its own, and all of them end with the run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from ops.stack.throwaway import become

#: Seconds a process gets to end when it is asked to.
END_PATIENCE = 15.0
#: Seconds between two looks at a condition.
PAUSE = 0.02
#: Characters of a log that a failure shows.
LOG_TAIL = 400
MIBIBYTE = 1024**2


class BenchError(RuntimeError):
    """Something did not do what a measurement needs; the message is one sentence."""


class MissingError(BenchError):
    """This machine lacks what something needs, which is skipped; the message is one sentence."""


class Children:
    """The processes that a run started, by name.

    Args:
        folder: where their output goes, `NAME.log`.
        end_patience: seconds they get to end when they are asked to.
    """

    def __init__(self, folder: Path, end_patience: float = END_PATIENCE) -> None:
        self.folder = folder
        self.end_patience = end_patience
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        """Nothing runs yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends all of them."""
        self.stop(*self._running)

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], cwd: Path
    ) -> subprocess.Popen[bytes]:
        """Starts a process."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the run, which then ends its processes in order.
                start_new_session=True,
                preexec_fn=lambda: become(None),  # noqa: PLW1509 - no threads run here
            )
        self._running[name] = process
        return process

    def stop(self, *names: str) -> None:
        """Asks the leaders to end, all at once; kills what is left of their groups."""
        ending = {name: self._running.pop(name) for name in names if name in self._running}
        try:
            for process in ending.values():
                process.send_signal(signal.SIGTERM)
            end = time.monotonic() + self.end_patience
            for process in ending.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.1, end - time.monotonic()))
        finally:
            for process in ending.values():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(END_PATIENCE)

    def require_alive(self, only: str | None = None) -> None:
        """Makes sure that nothing ended by itself.

        Args:
            only: asks about this process alone.

        Raises:
            BenchError: something did; the message has the end of its output.
        """
        for name, process in self._running.items():
            if only in {None, name} and process.poll() is not None:
                raise BenchError(f"{name} ended with {process.returncode}: {self.tail(name)}")

    def tail(self, name: str) -> str:
        """The end of a process's output, on one line."""
        try:
            text = (self.folder / f"{name}.log").read_text(errors="replace")
        except OSError:
            return "no output"
        return " ".join(text[-4 * LOG_TAIL :].split())[-LOG_TAIL:] or "no output"

    def wait_until(
        self, met: Callable[[], bool], what: str, patience: float, *, only: str | None = None
    ) -> None:
        """Waits for a condition.

        Args:
            what: completes "... after 20 s".
            patience: seconds.
            only: the one process that must live on meanwhile; all of them when None.

        Raises:
            BenchError: it was not met in time, or a process ended meanwhile.
        """
        end = time.monotonic() + patience
        while not met():
            self.require_alive(only)
            if time.monotonic() > end:
                raise BenchError(f"{what} after {patience:g} s")
            time.sleep(PAUSE)

    def cpu_seconds(self, *names: str) -> float:
        """CPU time of these processes so far, with that of their children, living and dead."""
        total = 0.0
        for member in self._members(names):
            with contextlib.suppress(psutil.Error):
                times = member.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def leader_cpu_seconds(self, name: str) -> float:
        """CPU time of one process itself so far, without its children."""
        times = psutil.Process(self._running[name].pid).cpu_times()
        return float(times.user + times.system)

    def memory_mib(self, name: str) -> list[float]:
        """Memory of a process, then of each of its children: PSS, so that what forks share counts once in the sum, in MiB."""
        found = []
        for member in self._members([name]):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(member.memory_full_info().pss / MIBIBYTE)
        return found

    def _members(self, names: Sequence[str]) -> list[psutil.Process]:
        found = []
        for name in names:
            with contextlib.suppress(psutil.NoSuchProcess):
                leader = psutil.Process(self._running[name].pid)
                found += [leader, *leader.children(recursive=True)]
        return found


def call(command: Sequence[str], environment: Mapping[str, str], cwd: Path, patience: float) -> str:
    """Runs a command to its end and returns what it printed.

    Args:
        patience: seconds.

    Raises:
        BenchError: it failed, or took longer.
    """
    process = subprocess.Popen(
        command,
        env=dict(environment),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: become(None),  # noqa: PLW1509 - no threads run here
    )
    try:
        printed, complaint = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{Path(command[0]).name} took longer than {patience:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(END_PATIENCE)
    if process.returncode != 0:
        raise BenchError(
            f"{' '.join(command[:3])} failed: {' '.join((complaint or printed).split())[-LOG_TAIL:]}"
        )
    return printed
