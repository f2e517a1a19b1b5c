"""DATABASE_URL and REDIS_URL: read and checked once, and put in the words of each library that connects by them.

Each library reads such a URL in a way of its own: what one takes for an option is a host to another, and ends in a
traceback at a third. So a URL is checked here, and what the others get is made from what was understood.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import psycopg2
from psycopg2.extensions import make_dsn
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

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

#: How to write what has a meaning of its own in a URL.
_QUOTING = "(in a password @ : / # ? and % are written %40 %3A %2F %23 %3F and %25)"
#: What a URL of Redis may say after its `?`, beside the number of the database; all of it is about TLS.
_TLS_OPTIONS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
_CERT_REQS = ("required", "optional", "none")
_LAST_PORT = 65_535
#: The options that name a file: of libpq, and of a Redis URL. `sslrootcert` may also be `system`: what the machine trusts.
_TLS_FILES = ("sslrootcert", "sslcert", "sslkey", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


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
            f"must be a database URL such as postgresql+psycopg2://user:pw@host/name {_QUOTING}"
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
        if one is None or int(one["port"] or 1) > _LAST_PORT:
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


def check_redis_url(given: str) -> None:
    """Refuses a Redis URL that redis-py and kombu would not all take for the same.

    Raises:
        ValueError: it cannot be read, or has an option that DJPS does not know; the sentence holds no password.
    """
    scheme, separator, _ = given.partition("://")
    if not separator or scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("must start with redis://, rediss:// or unix://")
    try:
        parts = urlsplit(given)
        has_host = parts.port is not None or bool(parts.hostname)
    except ValueError:
        raise ValueError(f"must have a port from 0 to {_LAST_PORT} after its host {_QUOTING}") from None
    if parts.fragment:
        raise ValueError(f"must have no # {_QUOTING}")
    if scheme == "unix":
        if has_host or parts.path in {"", "/"}:
            raise ValueError("must name the path of a socket, as in unix:///run/redis.sock?db=0")
    elif parts.path not in {"", "/"} and not _is_number(parts.path[1:]):
        raise ValueError(f"must end in the number of a database, as in redis://host:6379/0 {_QUOTING}")
    _check_options(scheme, parse_qsl(parts.query, keep_blank_values=True), path=parts.path)


def _check_options(scheme: str, options: list[tuple[str, str]], *, path: str) -> None:
    known = ("db", *(_TLS_OPTIONS if scheme == "rediss" else ()))
    names = [name for name, _ in options]
    for name, value in options:
        if name not in known:
            raise ValueError(
                f"has an option {name[:40]!r}; it may have {', '.join(known)} (DJPS sets timeouts and pools itself)"
            )
        if names.count(name) > 1:
            raise ValueError(f"has the option {name!r} twice")
        if name == "db":
            _check_database(scheme, value, path)
        if name == "ssl_cert_reqs" and value not in _CERT_REQS:
            raise ValueError(f"must have ssl_cert_reqs {', '.join(_CERT_REQS)}")
        if name == "ssl_check_hostname" and value not in {"true", "false"}:
            raise ValueError("must have ssl_check_hostname true or false")


def _check_database(scheme: str, number: str, path: str) -> None:
    names_another = scheme != "unix" and path not in {"", "/", f"/{number}"}
    if names_another or not _is_number(number):
        raise ValueError("must name one database by its number, as /0 or as ?db=0")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def check_tls_files(url: str) -> None:
    """Looks for the files that a checked URL names for TLS; without one no connection will ever be made.

    Raises:
        ValueError: one cannot be read.
    """
    for name, value in parse_qsl(urlsplit(url).query):
        if name not in _TLS_FILES or (name, value) == ("sslrootcert", "system"):
            continue
        try:
            Path(value).read_bytes()
        except OSError as error:
            raise ValueError(f"names a file that cannot be read: {name}={value} ({error.strerror})") from None


def redis_url_for_kombu(url: str) -> str:
    """A checked Redis URL in kombu's words.

    Example:
        >>> redis_url_for_kombu("unix://:pw@/run/redis.sock?db=2"), redis_url_for_kombu("rediss://h?db=1")
        ('redis+socket://:pw@/run/redis.sock?virtual_host=2', 'rediss://h/1?ssl_cert_reqs=required')
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    db = options.pop("db", None)
    if parts.scheme == "unix":
        return f"redis+socket://{parts.netloc}{parts.path}" + (f"?virtual_host={db}" if db else "")
    if parts.scheme == "rediss":
        # Left out, it means "required" to redis-py and "none" to kombu.
        options.setdefault("ssl_cert_reqs", "required")
    path = f"/{db}" if db else parts.path
    return f"{parts.scheme}://{parts.netloc}{path}" + (f"?{urlencode(options)}" if options else "")
