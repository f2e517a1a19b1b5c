"""Our connections to PostgreSQL, for the gauges."""

from __future__ import annotations

from sqlalchemy import Connection, text

_CONNECTIONS = text("""
    SELECT substr(application_name, 6), coalesce(state, 'unknown'), count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name LIKE 'djps-%' GROUP BY 1, 2 LIMIT 100""")
_MOST_CONNECTIONS = text("SELECT setting::int FROM pg_settings WHERE name = 'max_connections'")


def connections(connection: Connection) -> dict[tuple[str, str], int]:
    """Our connections to PostgreSQL, by (role of the process, state)."""
    return {(row[0], row[1]): row[2] for row in connection.execute(_CONNECTIONS)}


def most_connections(connection: Connection) -> int:
    """How many connections PostgreSQL takes."""
    return int(connection.execute(_MOST_CONNECTIONS).scalar_one())
