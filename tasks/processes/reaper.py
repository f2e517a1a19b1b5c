"""The reaper: a small process beside each worker that ends what the worker's jobs started, should the worker die.

The kernel kills the children of a worker that died, and not what their jobs have started: a shell's commands would run on
beside the retry. This process does nothing but wait for the worker's end, however that comes, and then ends what is left.

It is a program of its own, with none of the worker's memory: a fork would keep a copy of each page that the worker changes. It
loads no more of Python than it needs, 4 MiB in all.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # Python looks for modules beside the program; nothing that is installed can be imported (-S).
    sys.path[0] = os.path.realpath(f"{os.path.realpath(__file__)}/../../..")

from tasks.processes import session

if TYPE_CHECKING:
    import subprocess

#: Seconds between two looks whether the worker lives, in case a process it has forked keeps the pipe open.
LOOK_EVERY = 1.0
#: Signals that are meant for the worker, and may be sent to all that look like it.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

#: The end of the pipe on which the worker and its children say which of them there are.
_told: int | None = None
#: The process; Python would complain of one that it had to forget.
_process: subprocess.Popen[bytes] | None = None


def start() -> None:
    """Starts the process; to be called by the worker before it has children."""
    global _told, _process  # noqa: PLW0603 - a worker has one
    # The worker has it loaded, and the reaper, which is this file as well, no use for it.
    import subprocess  # noqa: PLC0415

    read, write = os.pipe()
    program = [sys.executable, "-S", "-E", __file__, str(os.getpid()), str(read)]
    # Out of the terminal's reach, and of those who signal the worker's group.
    _process = subprocess.Popen(  # noqa: S603 - Python itself, with two numbers
        program, stdin=subprocess.DEVNULL, pass_fds=(read,), start_new_session=True, cwd="/"
    )
    os.close(read)
    # A reaper that is stopped must not stop the worker.
    os.set_blocking(write, False)
    _told = write


def note_birth() -> None:
    """Says that this process is a child of the worker; from now on only the worker holds the pipe."""
    global _told  # noqa: PLW0603
    _tell(os.getpid())
    if _told is not None:
        os.close(_told)
        _told = None


def note_death(pid: int) -> None:
    """Says that a child was reaped, with all that it left: its number may soon be another's."""
    _tell(-pid)


def _tell(number: int) -> None:
    if _told is not None:
        with contextlib.suppress(OSError):
            os.write(_told, b"%d\n" % number)


def known_at_end(worker: int, read: int) -> set[int]:
    """Waits until the worker has ended; returns the children that it had by then.

    Args:
        worker: the parent of this process.
        read: where births (a pid) and deaths (a pid below zero) are told, one a line.
    """
    known: set[int] = set()
    rest = b""
    while os.getppid() == worker:
        if not select.select([read], [], [], LOOK_EVERY)[0]:
            continue
        told = os.read(read, 65_536)
        if not told:
            break
        *lines, rest = (rest + told).split(b"\n")
        _note(known, lines)
    os.set_blocking(read, False)
    with contextlib.suppress(BlockingIOError):
        while told := os.read(read, 65_536):
            *lines, rest = (rest + told).split(b"\n")
            _note(known, lines)
    return known


def _note(known: set[int], lines: list[bytes]) -> None:
    for line in lines:
        number = int(line)
        if number > 0:
            known.add(number)
        else:
            known.discard(-number)


def main(worker: int, read: int) -> None:
    """What the process does.

    Args:
        worker: its parent.
        read: the end of the pipe.
    """
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    for child in known_at_end(worker, read):
        session.end_rest(child)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
