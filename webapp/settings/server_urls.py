"""REDIS_URL: read and checked once, and put in the words of each library that connects by it; what both URLs have in common.

Each library reads such a URL in a way of its own: what one takes for an option is a host to another, and ends in a
traceback at a third. So a URL is checked here, and what the others get is made from what was understood.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

#: How to write what has a meaning of its own in a URL.
QUOTING = "(in a password @ : / # ? and % are written %40 %3A %2F %23 %3F and %25)"
#: What a URL of Redis may say after its `?`, beside the number of the database; all of it is about TLS.
_TLS_OPTIONS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
_CERT_REQS = ("required", "optional", "none")
LAST_PORT = 65_535
#: The options that name a file: of libpq, and of a Redis URL. `sslrootcert` may also be `system`: what the machine trusts.
_TLS_FILES = ("sslrootcert", "sslcert", "sslkey", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


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
        raise ValueError(f"must have a port from 0 to {LAST_PORT} after its host {QUOTING}") from None
    if parts.fragment:
        raise ValueError(f"must have no # {QUOTING}")
    if scheme == "unix":
        if has_host or parts.path in {"", "/"}:
            raise ValueError("must name the path of a socket, as in unix:///run/redis.sock?db=0")
    elif parts.path not in {"", "/"} and not _is_number(parts.path[1:]):
        raise ValueError(f"must end in the number of a database, as in redis://host:6379/0 {QUOTING}")
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
