"""How DJPS connects to PostgreSQL: every wait is bounded."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError, DisconnectionError

T = TypeVar("T")

#: Longest wait for a new connection, seconds.
CONNECT_TIMEOUT = 2
#: A connection that was used within this time is taken for alive, seconds.
IDLE_IS_ALIVE = 1.0
#: Longest wait for a connection from the pool, seconds.
POOL_TIMEOUT = 1.0
#: Longest a worker's statement may run, milliseconds.
STATEMENT_TIMEOUT_MS = 10_000
#: Longest a worker's statement waits for a lock, milliseconds.
LOCK_TIMEOUT_MS = 2_000
#: Longest a transaction may idle, milliseconds.
IDLE_IN_TRANSACTION_MS = 30_000
#: Longest sent data may stay unacknowledged by the server's host, milliseconds.
TCP_USER_TIMEOUT_MS = 10_000


def engine_options(
    application: str,
    *,
    pool_size: int,
    statement_timeout: int = STATEMENT_TIMEOUT_MS,
    lock_timeout: int = LOCK_TIMEOUT_MS,
) -> dict[str, Any]:
    """The options of an engine.

    Args:
        application: what `pg_stat_activity` shows for its connections.
        pool_size: connections kept open.
        statement_timeout: longest a statement may run, milliseconds.
        lock_timeout: longest it waits for a lock, milliseconds.
    """
    return {
        "pool_size": pool_size,
        "max_overflow": 2,
        "pool_timeout": POOL_TIMEOUT,
        "pool_recycle": 1_800,
        "connect_args": {
            "application_name": application,
            "connect_timeout": CONNECT_TIMEOUT,
            "keepalives": 1,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": TCP_USER_TIMEOUT_MS,
            "options": f"-c statement_timeout={statement_timeout} -c lock_timeout={lock_timeout}"
            f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_MS} -c timezone=UTC",
        },
    }


def watch_idle(engine: Engine) -> Engine:
    """Makes an engine ask an idle connection for a sign of life before it is used; returns the engine.

    A busy connection was alive a moment ago, and asking costs a round trip.
    """

    @event.listens_for(engine, "checkin")
    def put_back(_connection: Any, record: Any) -> None:
        record.info["idle_since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def take_out(connection: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info.get("idle_since", time.monotonic()) < IDLE_IS_ALIVE:
            return
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            connection.autocommit = False
        except engine.dialect.loaded_dbapi.Error as error:
            # The pool makes a new connection, and another one should that be dead as well.
            raise DisconnectionError("the connection had gone") from error

    return engine


def _autocommit(engine: Engine, work: Callable[[Connection], T]) -> T:
    with engine.connect() as connection:
        raw: Any = connection.connection.dbapi_connection
        # SQLAlchemy's own way of setting this sends a ROLLBACK each time; the attribute sends nothing.
        raw.autocommit = True
        try:
            return work(connection)
        finally:
            if not raw.closed:
                raw.autocommit = False


def in_one_trip(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Runs work whose every statement is a transaction of its own: one round trip each, not three.

    Should the connection turn out to be broken, the work is done once more on another one. It must be safe to do
    twice, for the first commit may have come through although its answer did not.
    """
    try:
        return _autocommit(engine, work)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
    return _autocommit(engine, work)
