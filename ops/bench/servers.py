"""The servers of a run: one PostgreSQL and one Valkey that all systems share, each with a room of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import psutil
import psycopg2
from redis import Redis

from ops.stack.ports import LOOPBACK
from ops.stack.postgres import PASSWORD, USER
from ops.stack.throwaway import Throwaway

#: Numbers of the Valkey databases.
OURS_REDIS, FLOORS_REDIS, PEERS_REDIS = 0, 1, 2
#: Longest an administrator's statement may take, milliseconds.
STATEMENT_TIMEOUT_MS = 3_600_000
CONNECT_TIMEOUT = 10


class Servers:
    """PostgreSQL 18 with fsync on, and Valkey; gone after the `with` block."""

    def __init__(self) -> None:
        self._throwaway = Throwaway()

    def __enter__(self) -> Self:
        """Starts both."""
        self._throwaway.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops both and deletes their data."""
        self._throwaway.__exit__(kind, error, trace)

    def dsn(self, database: str) -> str:
        """A database's address, as libpq and asyncpg take it."""
        return f"postgresql://{USER}:{PASSWORD}@{LOOPBACK}:{self._throwaway.postgres_port}/{database}"

    def sqlalchemy_url(self, database: str) -> str:
        """A database's address, as SQLAlchemy takes it."""
        return self.dsn(database).replace("postgresql:", "postgresql+psycopg2:", 1)

    def redis_url(self, number: int) -> str:
        """A Valkey database's address."""
        return f"redis://{LOOPBACK}:{self._throwaway.redis_port}/{number}"

    def flush(self, number: int) -> None:
        """Empties a Valkey database."""
        with Redis.from_url(self.redis_url(number), socket_timeout=CONNECT_TIMEOUT) as client:
            client.flushdb()

    def make_database(self, name: str, template: str = "template1") -> None:
        """Makes a database, anew when it is there.

        Args:
            template: the database that it is a copy of.
        """
        self.execute("postgres", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self.execute("postgres", f"CREATE DATABASE {name} TEMPLATE {template}")

    def drop_database(self, name: str) -> None:
        """Deletes a database."""
        self.execute("postgres", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def settle(self, database: str | None = None) -> None:
        """Brings the servers to rest before a measurement: statistics of what was filled in, and a checkpoint."""
        if database is not None:
            self.execute(database, "VACUUM ANALYZE")
        self.execute("postgres", "CHECKPOINT")

    def execute(self, database: str, *statements: str) -> None:
        """Runs statements, each in a transaction of its own."""
        connection = self._connect(database)
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
        finally:
            connection.close()

    def rows(self, database: str, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """What a query finds."""
        connection = self._connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(query, values)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def _connect(self, database: str) -> Any:
        connection = psycopg2.connect(
            self.dsn(database),
            connect_timeout=CONNECT_TIMEOUT,
            options=f"-c statement_timeout={STATEMENT_TIMEOUT_MS}",
        )
        connection.autocommit = True
        return connection

    def postgres_cpu_seconds(self) -> float:
        """CPU time of PostgreSQL so far: of its parent, its children, and those that have ended."""
        leader = psutil.Process(self._throwaway.postgres_pid)
        total = 0.0
        for one in (leader, *leader.children()):
            with contextlib.suppress(psutil.Error):
                times = one.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def versions(self) -> dict[str, str]:
        """What the servers say they are."""
        with Redis.from_url(self.redis_url(OURS_REDIS), socket_timeout=CONNECT_TIMEOUT) as client:
            info: Any = client.info("server")
        return {
            "postgresql": str(self.rows("postgres", "SHOW server_version")[0][0]),
            "valkey": str(info.get("valkey_version", info.get("redis_version"))),
        }
