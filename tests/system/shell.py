"""A newcomer's shell in a clone of their own: what the pages tell them to type is typed here."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2
from psycopg2 import errors

from ops.stack import passwords, ports, postgres, valkey

ROOT = Path(__file__).resolve().parents[2]
#: What is not copied into a clone.
UNTRACKED = (
    ".git",
    ".venv",
    ".venv.lock",
    ".djps",
    ".env",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    "*.pyc",
)
#: Settings and traces of the test run that a newcomer has not.
OF_THE_RUN = re.compile(
    r"(?:DJPS|COVERAGE|PYTEST|PYTHON|COV_|OTEL|VIRTUAL)\w*|(?:DATABASE|REDIS|SIMULATED_JOB)_URL|HANDLERS|PROMETHEUS_MULTIPROC_DIR"
)
#: The ports that the pages speak of, and the settings that move them; those without one are a page's own servers.
PORTS = {
    "8000": "API_PORT",
    "5432": "POSTGRES_PORT",
    "6379": "REDIS_PORT",
    "5555": "FLOWER_PORT",
    "9090": "PROMETHEUS_PORT",
    "8099": "HTTPBIN_PORT",
    "19741": None,
    "4318": None,
}
#: Longest that one command may take, seconds.
PATIENCE = 90.0
#: What set-ups use: a job's id, and waiting until it runs or has ended.
FUNCTIONS = """
post() { curl -s http://127.0.0.1:8000/jobs -H 'Content-Type: application/json' -d "$1" | cut -d'"' -f4; }
running() { until curl -s "http://127.0.0.1:8000/jobs/$1" | grep -q '"status":"processing"'; do sleep 0.05; done; }
ended() { curl -s "http://127.0.0.1:8000/jobs/$1?wait=30" > /dev/null; }
"""
#: How often a database is emptied anew that deadlocks with the stack.
DEADLOCKS = 5
#: Seconds that a shell gets to end.
END_PATIENCE = 10.0


class Clone:
    """A copy of the repository, and ports of its own in the place of those that the pages name.

    Args:
        settings: what is set in its shells.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        # As people name their folders: what is typed, and what reads the path, must stand it.
        self.folder = folder / "djps, 100% mine"
        shutil.copytree(ROOT, self.folder, ignore=shutil.ignore_patterns(*UNTRACKED))
        (self.folder / ".venv").symlink_to(ROOT / ".venv")
        self.ports = {said: str(ports.free()) for said in PORTS}
        kept = {name: value for name, value in os.environ.items() if not OF_THE_RUN.fullmatch(name)}
        moved = {name: self.ports[said] for said, name in PORTS.items() if name}
        self.environment = {**kept, **moved, "RATE_LIMIT": "off", **settings}

    def here(self, text: str) -> str:
        """A page's text with this clone's ports."""
        return re.sub(r"(?<![\w.])\d{4,5}(?![\w.])", lambda found: self.ports.get(found[0], found[0]), text)

    def ops(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs `python3 -m ops`."""
        return subprocess.run(
            ["python3", "-m", "ops", *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def servers(self) -> dict[str, str]:
        """Where the stack's servers are, once it has run."""
        data = self.folder / ".djps"
        return {
            "DATABASE_URL": postgres.url(int(self.ports["5432"]), passwords.kept(data, "postgres")),
            "REDIS_URL": valkey.url(int(self.ports["6379"]), passwords.kept(data, "redis")),
        }

    def execute(self, statement: str, *values: object) -> list[tuple]:
        """Runs a statement in the stack's database; returns its rows."""
        address = self.servers()["DATABASE_URL"].replace("+psycopg2", "")
        connection = psycopg2.connect(address, connect_timeout=5)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def empty(self) -> None:
        """Takes every job out of the stack's database, with its keys and dead letters."""
        (row,) = self.execute(
            "SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables"
            " WHERE schemaname = 'public' AND tablename NOT IN ('alembic_version', 'tenants')"
        )
        # The record of acts is only added to, but for who replays what was done elsewhere.
        emptied = f"SET LOCAL session_replication_role = replica; TRUNCATE {row[0]} RESTART IDENTITY"
        for left in reversed(range(DEADLOCKS)):
            try:
                self.execute(emptied)
                break
            except errors.DeadlockDetected:
                # The stack runs on, and takes the tables in an order of its own.
                if not left:
                    raise
        self.execute("DELETE FROM tenants WHERE id <> 1")


@contextmanager
def clone(**settings: str) -> Iterator[Clone]:
    """A clone that is gone after the block, and what it had started with it."""
    # Not pytest's own folder, which it closes to PostgreSQL's user; nor one that no one may pass through.
    with tempfile.TemporaryDirectory(prefix="djps-clone-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        made = Clone(Path(folder), **settings)
        try:
            yield made
        finally:
            made.ops("down")


class Shell:
    """One bash, which keeps its folder, its variables and what runs behind it from command to command."""

    def __init__(self, clone: Clone) -> None:
        self._clone = clone
        self._script = clone.folder.parent / "typed"
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=clone.folder,
            env=clone.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.type(FUNCTIONS)

    def type(self, command: str, patience: float = PATIENCE) -> tuple[list[int], str]:
        """Runs a command; returns the exit codes of its last pipeline's programs, and what they printed.

        Raises:
            AssertionError: it does not end.
        """
        self._script.write_text(f'{self._clone.here(command)}\n_codes=("${{PIPESTATUS[@]}}")\n')
        line = f"source {self._script} </dev/null; printf '\\001%s\\002' \"${{_codes[*]}}\"\n"
        self._bash.stdin.write(line.encode())
        self._bash.stdin.flush()
        said = self._read(command, time.monotonic() + patience)
        output, _, codes = said.rpartition("\001")
        return [int(code) for code in codes.split()], output

    def _read(self, command: str, end: float) -> str:
        """What comes until the mark at a command's end; what runs in the background may say something behind it."""
        said = b""
        while b"\002" not in said:
            ready, _, _ = select.select([self._bash.stdout], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"does not end: {command}\n{said.decode(errors='replace')}"
            more = os.read(self._bash.stdout.fileno(), 65536)
            assert more, f"ended the shell: {command}\n{said.decode(errors='replace')}"
            said += more
        return said.partition(b"\002")[0].decode(errors="replace")

    def close(self) -> None:
        """Ends the shell and what it left running, but for what detached itself."""
        os.killpg(self._bash.pid, signal.SIGTERM)
        self._bash.stdin.close()
        try:
            self._bash.wait(END_PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self._bash.pid, signal.SIGKILL)
            self._bash.wait(END_PATIENCE)
        self._bash.stdout.close()
