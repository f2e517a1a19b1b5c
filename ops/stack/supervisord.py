"""supervisord as `ops up` runs it: `python -m ops.stack.supervisord --configuration FILE`.

Three things differ from the program as it comes:

* A log that cannot be written loses lines and nothing else. The original dies of a full disk.
* A process that does not start is tried again every few seconds at most. The original waits a second longer each time.
* The kernel ends every process when supervisord itself dies, so none of them is left without it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from supervisor import loggers, process, supervisord
from supervisor.states import ProcessStates

from ops.stack.valkey_start import DIED_BEFORE
from webapp.infra import prefork

#: Longest wait before a process that does not start is tried again, seconds.
LONGEST_DELAY = 5.0


class LogFile(loggers.Handler):  # type: ignore[misc] # supervisor has no types
    """A log that is rotated, and that drops what it cannot write.

    Args:
        filename: the log; its predecessors are `filename.1` and so on.
        mode: always append; the argument is supervisor's.
        maxBytes: size at which it is rotated, bytes.
        backupCount: predecessors that are kept.
    """

    def __init__(self, filename: str, mode: str = "a", maxBytes: int = 0, backupCount: int = 0) -> None:  # noqa: N803
        super().__init__()
        self.baseFilename = filename
        self._most, self._backups = maxBytes, backupCount
        self._fd: int | None = None
        self._torn = False

    def emit(self, record: Any) -> None:
        """Writes one record, or loses it."""
        text = record.msg if isinstance(record.msg, bytes) else (self.fmt % record.asdict()).encode()
        try:
            self._write(text)
        except OSError:
            # There is nowhere to say it. The next line begins on a line of its own.
            self._torn = True

    def _write(self, text: bytes) -> None:
        fd = self._open()
        if self._torn:
            os.write(fd, b"\n")
            self._torn = False
        while text:
            text = text[os.write(fd, text) :]
        if self._most and os.fstat(fd).st_size >= self._most:
            self._rotate()

    def _open(self) -> int:
        """The file; made again when someone has deleted it."""
        with suppress(OSError):
            if self._fd is not None and os.path.samestat(os.fstat(self._fd), Path(self.baseFilename).stat()):
                return self._fd
        self.close()
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        return self._fd

    def _rotate(self) -> None:
        self.close()
        for number in range(self._backups, 0, -1):
            older = self.baseFilename + (f".{number - 1}" if number > 1 else "")
            with suppress(OSError):
                Path(older).replace(f"{self.baseFilename}.{number}")

    def close(self) -> None:
        """Closes the file; the next record opens it."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):
                os.close(fd)

    def flush(self) -> None:
        """Nothing is held back."""

    reopen = close

    def remove(self) -> None:
        """Deletes the log."""
        self.close()
        Path(self.baseFilename).unlink(missing_ok=True)


class Process(process.Subprocess):  # type: ignore[misc] # supervisor has no types
    """One process: tried again soon, and ended with supervisord."""

    died = False
    #: Pid of supervisord.
    supervisor = os.getpid()

    def change_state(self, new_state: int, expected: bool = True) -> None:  # noqa: FBT001, FBT002 - supervisor's
        """Notes a change of state; bounds the wait before the next try."""
        super().change_state(new_state, expected)
        if new_state in (ProcessStates.BACKOFF, ProcessStates.EXITED):
            self.died = True
        elif new_state == ProcessStates.STOPPED:
            self.died = False
        if new_state == ProcessStates.BACKOFF:
            self.delay = min(self.delay, time.time() + LONGEST_DELAY)

    def set_uid(self) -> str | None:
        """Steps down to the process's user; runs in the child, right before its program."""
        said: str | None = super().set_uid()
        if self.died:
            os.environ[DIED_BEFORE] = "1"
        # PostgreSQL ends at TERM when the last of those that use it has gone, so workers can still write what they end.
        kill = self.config.stopsignal == signal.SIGKILL
        end_with_parent(signal.SIGKILL if kill else signal.SIGTERM, self.supervisor)
        return said


def end_with_parent(how: signal.Signals, parent: int) -> None:
    """Has the kernel send this process a signal when its parent dies. Setting another user takes it away again."""
    if sys.platform == "linux":
        prefork.end_with_parent(how.name)
        if os.getppid() != parent:
            os._exit(1)


class _Unfailing:
    """Standard error that loses what cannot be written."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            os.write(2, text.encode(errors="replace"))
        return len(text)

    def flush(self) -> None:
        return


def main() -> None:
    """Runs supervisord with what is above in its place."""
    loggers.RotatingFileHandler = LogFile
    process.Subprocess = Process
    sys.stdout = sys.stderr = _Unfailing()  # type: ignore[assignment]
    supervisord.main()


if __name__ == "__main__":
    main()
