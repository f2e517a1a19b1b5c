"""How DJPS connects to PostgreSQL: every wait is bounded."""

from __future__ import annotations

from typing import Any

#: Longest wait for a new connection, seconds.
CONNECT_TIMEOUT = 2
#: Longest wait for a connection from the pool, seconds.
POOL_TIMEOUT = 1.0
#: Longest a statement may run, milliseconds.
STATEMENT_TIMEOUT_MS = 10_000
#: Longest a statement waits for a lock, milliseconds.
LOCK_TIMEOUT_MS = 2_000
#: Longest a transaction may idle, milliseconds.
IDLE_IN_TRANSACTION_MS = 30_000
#: Longest sent data may stay unacknowledged by the server's host, milliseconds.
TCP_USER_TIMEOUT_MS = 10_000


def engine_options(application: str, *, pool_size: int) -> dict[str, Any]:
    """The options of an engine.

    Args:
        application: what `pg_stat_activity` shows for its connections.
        pool_size: connections kept open.
    """
    return {
        "pool_size": pool_size,
        "max_overflow": 2,
        "pool_timeout": POOL_TIMEOUT,
        "pool_pre_ping": True,
        "pool_recycle": 1_800,
        "connect_args": {
            "application_name": application,
            "connect_timeout": CONNECT_TIMEOUT,
            "keepalives": 1,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": TCP_USER_TIMEOUT_MS,
            "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}"
            f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_MS} -c timezone=UTC",
        },
    }
