"""How DJPS connects to PostgreSQL: every wait is bounded."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, TypeVar

import psycopg2
from psycopg2.extensions import encrypt_password
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, DisconnectionError

from webapp.infra.postgres import column_values
from webapp.infra.postgres.database_errors import Trouble, met_a_moved_row, trouble_of
from webapp.infra.postgres.hosts import go_through_hosts
from webapp.infra.postgres.prepared import KEEPS_PLANS, Prepared
from webapp.infra.postgres.sql_files import read_sql
from webapp.settings.database_url import connect_arguments

T = TypeVar("T")

#: Longest wait for a new connection, seconds.
CONNECT_TIMEOUT = 2
#: A connection that was used within this time is taken for alive, seconds.
IDLE_IS_ALIVE = 1.0
#: A connection that finds the server read-only is replaced when it is older than this, seconds.
YOUNG = 0.5
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

#: Tries of a transaction that meets rows on their way to another partition: each moves once, when its job ends.
MOST_TRIES = 10

#: What the planner goes without where every statement finds its rows by an index.
BY_INDEX = ("enable_sort", "enable_hashjoin", "enable_mergejoin", "enable_seqscan")

#: How libpq watches over a connection; DATABASE_URL may say otherwise.
_WATCHED = {
    "connect_timeout": CONNECT_TIMEOUT,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": TCP_USER_TIMEOUT_MS,
}


def load_libraries() -> None:
    """Has the libraries of a connection load what they need, before a process forks: its children share it.

    The first connection of a process has OpenSSL fill its tables, 2 MiB, and loads four modules. No server is asked here: a
    checksum of MD5 has libpq do the first, and no password depends on it.
    """
    # SQLAlchemy loads it when it connects.
    importlib.import_module("psycopg2.extras")
    # Python's sockets encode the name of a host with it.
    "localhost".encode("idna")
    # Where OpenSSL may not do MD5, each child fills its own tables.
    with suppress(Exception):
        encrypt_password("x", "x", algorithm="md5")


def engine_options(
    application: str,
    *,
    pool_size: int,
    statement_timeout: int = STATEMENT_TIMEOUT_MS,
    lock_timeout: int = LOCK_TIMEOUT_MS,
    finds_rows: bool = False,
    url: str = "",
) -> dict[str, Any]:
    """The options of an engine.

    Args:
        application: what `pg_stat_activity` shows for its connections.
        pool_size: connections kept open.
        statement_timeout: longest a statement may run, milliseconds.
        lock_timeout: longest it waits for a lock, milliseconds.
        finds_rows: every statement finds its rows by an index, up to hundreds of them. So the planner may neither sort what an
            index has in order, nor join by reading a whole table: statistics of a table that has just filled up are those of
            an empty one, and by them a claim would read the whole backlog, each time. And plans are kept, where a
            statement asks for it (`webapp/infra/postgres/prepared.py`).
        url: the database's; what it says of timeouts and server options holds beside ours.
    """
    theirs = connect_arguments(url) if url else {}
    options = f"{theirs['options']} " if "options" in theirs else ""
    return {
        "pool_size": pool_size,
        "max_overflow": 2,
        "pool_timeout": POOL_TIMEOUT,
        "pool_recycle": 1_800,
        "json_deserializer": column_values.json_of,
        # Errors find their way into logs.
        "hide_parameters": True,
        "connect_args": {
            **_WATCHED,
            **{name: value for name, value in theirs.items() if name in _WATCHED},
            "application_name": application,
            "options": f"{options}-c statement_timeout={statement_timeout}"
            f" -c lock_timeout={lock_timeout} -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_MS} -c timezone=UTC"
            + (f" -c {KEEPS_PLANS}" + "".join(f" -c {one}=off" for one in BY_INDEX) if finds_rows else ""),
        },
    }


def watch_idle(engine: Engine) -> Engine:
    """Makes an engine ask an idle connection for a sign of life before it is used; returns the engine.

    A busy connection was alive a moment ago, and asking costs a round trip. And all connections are replaced when one
    finds the server read-only: after a failover the next ones reach the server that takes writes.
    """
    go_through_hosts(engine)

    @event.listens_for(engine, "connect")
    def made(_connection: Any, record: Any) -> None:
        record.info["made_at"] = time.monotonic()

    @event.listens_for(engine, "handle_error")
    def judge(context: ExceptionContext) -> None:
        error = context.original_exception
        if context.connection is not None and _leads_elsewhere(error, context.connection):
            context.is_disconnect = True

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


#: Asks a server whether it takes no writes.
IS_READ_ONLY = read_sql(__file__, "is_read_only")


def takes_writes(engine: Engine) -> bool:
    """True if the server that connections lead to takes writes; where it does not, all connections are replaced first.

    Raises:
        SQLAlchemyError: it does not answer.
    """

    def read_only() -> bool:
        with engine.connect() as connection:
            return bool(connection.execute(text(IS_READ_ONLY)).scalar_one())

    if not read_only():
        return True
    _replace_all(engine)
    return not read_only()


def _replace_all(engine: Engine) -> None:
    """Makes every connection from now on a new one; those that are in use are closed when they come back."""
    engine.dispose()


def _leads_elsewhere(error: BaseException, connection: Connection) -> bool:
    """True if the server takes no writes, and a new connection may reach one that does.

    A connection that was made a moment ago has just been led here, so it is kept.
    """
    if trouble_of(error) is not Trouble.READ_ONLY:
        return False
    made_at: float = connection.info.get("made_at", 0.0)
    return time.monotonic() - made_at > YOUNG


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


class Outcome(NamedTuple):
    """What a statement did.

    Args:
        rows: those that it returned.
        number: how many it changed or returned.
    """

    rows: list[tuple[Any, ...]]
    number: int


_DIALECT = PGDialect_psycopg2()  # type: ignore[no-untyped-call] # SQLAlchemy's dialects are partly typed


def for_driver(sql: str) -> str:
    """A statement with `:names` as psycopg2's own cursor takes it.

    Example:
        >>> for_driver("SELECT CAST(:one AS int)")
        'SELECT CAST(%(one)s AS int)'
    """
    return str(text(sql).compile(dialect=_DIALECT))


class Statement:
    """A statement of the hot path, run on the driver's own cursor: SQLAlchemy's way costs 60 to 100 us of CPU more.

    What goes in and what comes out is as with `Connection.execute(text(sql), values)`, errors and transactions included.

    Args:
        sql: with `:names` for its values.
        plan_lasts: seconds that a plan of it is used, in a session that keeps plans and where it is a transaction of its own.

    Example:
        >>> Statement("SELECT CAST(:one AS int)")  # doctest: +ELLIPSIS
        <...Statement object at ...>
    """

    def __init__(self, sql: str, *, plan_lasts: float = 0.0) -> None:
        self.text = sql
        self._driver_sql = for_driver(sql)
        self._prepared = Prepared.of(self._driver_sql, plan_lasts) if plan_lasts else None

    def run(self, connection: Connection, values: Mapping[str, Any]) -> Outcome:
        """Runs it.

        Raises:
            DBAPIError: PostgreSQL refused it, or the connection is gone and will not be used again.
        """
        if not connection.in_transaction():
            connection.begin()
        raw: Any = connection.connection.dbapi_connection
        cursor = raw.cursor()
        try:
            prepared = self._prepared if raw.autocommit else None
            if prepared is None or not prepared.run(cursor, values, connection.info):
                cursor.execute(self._driver_sql, values)
            return Outcome(cursor.fetchall() if cursor.description else [], cursor.rowcount)
        except psycopg2.Error as error:
            elsewhere = _leads_elsewhere(error, connection)
            gone = elsewhere or connection.dialect.is_disconnect(error, raw, cursor)  # type: ignore[arg-type] # a DBAPI's error
            if gone:
                connection.invalidate(error)
            if elsewhere:
                _replace_all(connection.engine)
            raise DBAPIError.instance(
                self._driver_sql,
                values,
                error,
                psycopg2.Error,
                hide_parameters=True,
                connection_invalidated=gone,
                dialect=connection.dialect,
            ) from error
        finally:
            cursor.close()


class Read(Protocol):
    """Runs work that only reads on a connection of its choice, as `in_one_trip` does on the primary's."""

    def __call__(self, work: Callable[[Connection], T]) -> T:
        """What the work came to."""


def in_one_trip(
    engine: Engine, work: Callable[[Connection], T], *, if_broken: Callable[[Connection], T] | None = None
) -> T:
    """Runs work whose every statement is a transaction of its own: one round trip each, not three.

    Should the connection turn out to be broken, the work is done again on another one. It must be safe to do
    twice, for the first commit may have come through although its answer did not. It is also done again when a row that it
    waited for has meanwhile moved to another partition: PostgreSQL raises then what would be a second look in a plain table.

    Args:
        if_broken: what is done then in place of `work`, in one transaction.
    """
    if if_broken is None:
        return _again(lambda: _autocommit(engine, work))
    try:
        return _autocommit(engine, work)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
    with engine.begin() as connection:
        return if_broken(connection)


def in_transaction(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Runs work whose statements are one transaction, and commits; does it again where `in_one_trip` does."""

    def once() -> T:
        with engine.begin() as connection:
            return work(connection)

    return _again(once)


def _again(once: Callable[[], T]) -> T:
    """Does it until no moved row is in the way, `MOST_TRIES` times at most; a second time where the connection broke."""
    broken = False
    for _ in range(MOST_TRIES - 1):
        try:
            return once()
        except DBAPIError as error:
            if broken or not (error.connection_invalidated or met_a_moved_row(error)):
                raise
            broken = error.connection_invalidated
    return once()


_CONNECTIONS, _MOST_CONNECTIONS = (
    text(read_sql(__file__, "connections", name)) for name in ("by_role", "most")
)


def connections(connection: Connection) -> dict[tuple[str, str], int]:
    """Our connections to PostgreSQL, by (role of the process, state)."""
    return {(row[0], row[1]): row[2] for row in connection.execute(_CONNECTIONS)}


def most_connections(connection: Connection) -> int:
    """How many connections PostgreSQL takes."""
    return int(connection.execute(_MOST_CONNECTIONS).scalar_one())
