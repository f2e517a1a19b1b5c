"""Throwaway servers: a real PostgreSQL and a real Valkey on free ports, gone when their owner is."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ops.stack import ports, postgres, valkey
from webapp.infra.prefork import end_with_parent

#: Seconds a server gets to end.
STOP_PATIENCE = 20


class Throwaway:
    """A PostgreSQL and a Valkey that live as long as a `with` block, and no longer than this process.

    Args:
        durable: whether a commit waits for the disk. Tests whose machine does not lose its power need not: another
            process that writes much can hold a commit longer than a request may take.

    Example:
        >>> with Throwaway() as servers:  # doctest: +SKIP
        ...     print(servers.database_url, servers.redis_url)
    """

    def __init__(self, *, durable: bool = True) -> None:
        self._durable = durable
        self.folder = Path(tempfile.mkdtemp(prefix="djps-"))
        self.postgres_port = ports.free()
        self.redis_port = ports.free()
        self._running: list[tuple[subprocess.Popen[bytes], signal.Signals]] = []

    @property
    def database_url(self) -> str:
        """Where PostgreSQL is."""
        return postgres.url(self.postgres_port)

    @property
    def redis_url(self) -> str:
        """Where Valkey is."""
        return valkey.url(self.redis_port)

    @property
    def postgres_pid(self) -> int:
        """PostgreSQL's parent process."""
        return self._running[0][0].pid

    def __enter__(self) -> Self:
        """Starts both and waits until they answer."""
        self.folder.chmod(0o711)
        try:
            data = self.folder / "postgres"
            postgres.prepare(data)
            command = postgres.command(data, self.postgres_port, durable=self._durable)
            self._start(command, signal.SIGINT, postgres.account())
            (self.folder / "redis").mkdir()
            self._start(valkey.command(self.folder / "redis", self.redis_port), signal.SIGTERM, None)
            postgres.wait_and_create(self.postgres_port)
            valkey.wait(self.redis_port)
        except BaseException:
            self._stop()
            raise
        return self

    def _start(self, command: list[str], stop: signal.Signals, user: str | None) -> None:
        self._running.append((spawn(command, user, self.folder / "servers.log"), stop))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops both and deletes their data."""
        self._stop()

    def _stop(self) -> None:
        for process, stop in reversed(self._running):
            process.send_signal(stop)
            try:
                process.wait(STOP_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_PATIENCE)
        shutil.rmtree(self.folder, ignore_errors=True)


def spawn(
    command: Sequence[str],
    user: str | None,
    log: Path,
    *,
    cwd: str | Path = "/",
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a process as a user, which dies with this one.

    Args:
        user: whom it becomes; None: it stays who this process is.
        log: what it says is added there.
    """
    with log.open("ab") as said:
        return subprocess.Popen(
            command,
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            # A terminal's Ctrl-C is for the tests; what they use ends after them.
            start_new_session=True,
            preexec_fn=lambda: become(user),  # noqa: PLW1509 - it only steps down and asks for a signal
        )


def become(user: str | None) -> None:
    """Runs in the child: steps down to `user`, and dies with its parent (the kernel forgets that at setuid)."""
    if user is not None:
        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    end_with_parent("SIGINT")
