"""A streaming standby of the suite's PostgreSQL: made with pg_basebackup, run as the user that the servers run as."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg2
from sqlalchemy.engine import URL, make_url

from ops.stack import ports, postgres
from ops.stack.throwaway import spawn

#: Seconds that the copy, the start and the end of a standby may take.
PATIENCE = 60.0
#: What a test needs of a standby: a query that is in the way is ended soon, and an idle primary is heard of often.
SETTINGS = {
    "max_standby_streaming_delay": "100ms",
    "wal_receiver_timeout": "4s",
    "hot_standby_feedback": "off",
}


class Standby:
    """A hot standby that lives as long as a `with` block, and no longer than this process.

    Args:
        primary: the URL of the server that it follows, of a role that may replicate.

    Example:
        >>> with Standby("postgresql://djps:djps@127.0.0.1:5432/djps") as standby:  # doctest: +SKIP
        ...     print(standby.url)
    """

    def __init__(self, primary: str) -> None:
        self._primary = make_url(primary)
        self.port = ports.free()
        self._folder = Path(tempfile.mkdtemp(prefix="djps-standby-"))
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is, in the words of DATABASE_READ_URL."""
        return self.url_of().render_as_string(hide_password=False)

    def url_of(self, **changes: Any) -> URL:
        """Its URL with another user, password or option."""
        return self._primary.set(host="127.0.0.1", port=self.port, **changes)

    def __enter__(self) -> Self:
        """Copies the primary, starts the copy, and waits until it answers."""
        try:
            postgres._hand_over(self._folder)
            self._copy()
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it and deletes its data."""
        self._end()

    def _copy(self) -> None:
        words = [
            str(postgres.binary("pg_basebackup")),
            "-D",
            str(self._folder / "data"),
            "-R",
            "-X",
            "stream",
        ]
        words += [
            "--checkpoint=fast",
            "-d",
            self._primary.set(drivername="postgresql").render_as_string(False),
        ]
        made = subprocess.run(
            words,
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
            timeout=PATIENCE,
            **postgres._as(postgres.account()),
        )
        assert made.returncode == 0, made.stderr

    def start(self) -> None:
        """Starts it, after `kill` as well, and waits until it lets readers in."""
        command = postgres.command(self._folder / "data", self.port, durable=False)
        command += [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        self._server = spawn(command, postgres.account(), self._folder / "server.log")
        self._until(lambda: self.ask("SELECT pg_is_in_recovery()"), "did not start")

    def kill(self) -> None:
        """Ends it at once, as a host does that loses its power: its connections break."""
        self._signal(signal.SIGQUIT)
        assert self._server is not None
        self._server.wait(PATIENCE)

    def freeze(self) -> None:
        """Stops all its processes: connections stay open, and nothing is answered."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets them go on."""
        self._signal_all(signal.SIGCONT)

    def pause(self) -> None:
        """Stops replaying what it receives, and waits until it has stopped."""
        self.ask("SELECT pg_wal_replay_pause()")
        self._until(lambda: self.ask("SELECT pg_get_wal_replay_pause_state()") == "paused", "did not pause")

    def resume(self) -> None:
        """Replays again."""
        self.ask("SELECT pg_wal_replay_resume()")

    def promote(self) -> None:
        """Makes it a primary of its own, and waits until it is one."""
        assert self.ask("SELECT pg_promote(true, 30)") is True

    def caught_up(self) -> None:
        """Waits until it has replayed what the primary has written by now."""
        # A commit flushes what others have written and not committed, of which only whole pages are sent.
        _ask(self._primary, "SELECT pg_current_xact_id()")
        end = _ask(self._primary, "SELECT pg_current_wal_flush_lsn()")
        self._until(lambda: self.ask(f"SELECT pg_last_wal_replay_lsn() >= '{end}'"), "did not catch up")

    def ask(self, sql: str) -> Any:
        """The first value of a statement's answer, past DJPS's pools."""
        return _ask(self.url_of(), sql)

    def _until(self, holds: Callable[[], object], said: str) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                if holds():
                    return
            except psycopg2.OperationalError:
                pass
            assert time.monotonic() < end, f"the standby {said}: {self._log()}"
            time.sleep(0.02)

    def _log(self) -> str:
        return (self._folder / "server.log").read_text()[-2_000:]

    def _signal(self, sent: signal.Signals) -> None:
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(sent)

    def _signal_all(self, sent: signal.Signals) -> None:
        assert self._server is not None
        children = Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children").read_text().split()
        for pid in (self._server.pid, *map(int, children)):
            subprocess.run(["kill", f"-{sent.name.removeprefix('SIG')}", str(pid)], check=False, timeout=5)

    def _end(self) -> None:
        if self._server is not None and self._server.poll() is None:
            self.thaw()
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def _ask(url: URL, sql: str) -> Any:
    given = url.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg2.connect(given, connect_timeout=2)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            found = cursor.fetchone()
            return None if found is None else found[0]
    finally:
        connection.close()
