"""DATABASE_URL: read and checked once, and put in the words of each library that connects by it.

It is read with SQLAlchemy and the driver, so a process that has no database, as beat, never imports this.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import psycopg2
from psycopg2.extensions import make_dsn
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from webapp.settings.server_urls import LAST_PORT, QUOTING

#: What each of these options of libpq may be for DJPS, which writes.
_CHOICES = {
    "target_session_attrs": ("any", "read-write", "primary"),
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "load_balance_hosts": ("disable", "random"),
}
#: libpq's form with several hosts: scheme and user, the hosts, and the rest.
_SEVERAL_HOSTS = re.compile(
    r"(?P<before>[^:/]+://(?:[^/?]*@)?)(?P<hosts>[^/?@]*,[^/?@]*)(?P<after>[/?].*)?", re.DOTALL
)
_ONE_HOST = re.compile(r"(?P<host>[^\s:,\[\]]+)(?::(?P<port>\d{1,5}))?")


def read_database_url(given: str) -> str:
    """A database URL as SQLAlchemy takes it, with the driver named; several hosts may be given in libpq's way.

    Raises:
        ValueError: it cannot be read, or asks for what DJPS cannot do; the sentence holds no password.

    Example:
        >>> read_database_url("postgres://u:p@a:1,b:2/d?target_session_attrs=read-write")
        'postgresql+psycopg2://u:p@/d?host=a%3A1&host=b%3A2&target_session_attrs=read-write'
    """
    try:
        url = make_url(_with_hosts_apart(given))
    except (ArgumentError, ValueError) as error:
        if isinstance(error, _Sentence):
            raise
        raise ValueError(
            f"must be a database URL such as postgresql+psycopg2://user:pw@host/name {QUOTING}"
        ) from None
    # libpq and many hosting platforms also say `postgres://`.
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        raise ValueError("must be a PostgreSQL URL (postgresql+psycopg2://...)")
    url = url.set(drivername="postgresql+psycopg2")
    for name, choices in _CHOICES.items():
        if name in url.query and url.query[name] not in choices:
            raise ValueError(f"must have {name} {', '.join(choices[:-1])} or {choices[-1]}")
    if not str(url.query.get("connect_timeout", 1)).strip("0").isdigit():
        raise ValueError("must have connect_timeout 1 or more, in seconds")
    try:
        make_dsn(**_arguments_of(url))
    except ArgumentError as error:
        raise ValueError(f"cannot be used: {str(error)[:200]}") from None
    except psycopg2.ProgrammingError as error:
        # It names the option that libpq does not know.
        raise ValueError(f"cannot be used: {str(error).strip()[:200]}") from None
    return url.render_as_string(hide_password=False)


class _Sentence(ValueError):
    """An error that says in our words what is wrong."""


def _with_hosts_apart(given: str) -> str:
    """Moves `h1:1,h2:2` into the query, which is where SQLAlchemy looks for several hosts."""
    found = _SEVERAL_HOSTS.fullmatch(given)
    if found is None:
        return given
    hosts = []
    for entry in found["hosts"].split(","):
        one = _ONE_HOST.fullmatch(entry)
        if one is None or int(one["port"] or 1) > LAST_PORT:
            raise _Sentence("must have host or host:port between the commas")
        hosts.append("host=" + quote(entry, safe=""))
    after = found["after"] or "/"
    path, _, query = after.partition("?")
    return f"{found['before']}{path or '/'}?{'&'.join([*hosts, *filter(None, [query])])}"


def connect_arguments(database_url: str) -> dict[str, Any]:
    """The arguments of `psycopg2.connect` for a URL as SQLAlchemy takes it.

    Example:
        >>> connect_arguments("postgresql+psycopg2://u@/d?host=a:1&host=b:2")
        {'dbname': 'd', 'user': 'u', 'host': 'a,b', 'port': '1,2'}
    """
    return _arguments_of(make_url(database_url))


def _arguments_of(url: URL) -> dict[str, Any]:
    # SQLAlchemy's dialects are partly typed.
    _, arguments = PGDialect_psycopg2().create_connect_args(url)  # type: ignore[no-untyped-call]
    return dict(arguments)
