"""What DATABASE_URL and REDIS_URL may say, and in whose words it is said on."""

from __future__ import annotations

import pytest
from kombu import Connection
from redis import Redis

from webapp.api import extensions
from webapp.api.extensions import HintStorage
from webapp.infra.postgres.engine import engine_options
from webapp.settings import Settings, SettingsError
from webapp.settings.database_url import connect_arguments, read_database_url
from webapp.settings.server_urls import check_redis_url, redis_url_for_kombu

SECRET = "sesame"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql://u:p@h/d", {"host": "h", "user": "u", "password": "p", "dbname": "d"}),
        ("postgres://u:p%25w%40@h:1/d", {"password": "p%w@", "port": 1}),
        ("postgresql+psycopg2://u:p@h1:5432,h2:5433/d", {"host": "h1,h2", "port": "5432,5433"}),
        (
            "postgresql://u:p%2Cq@h1,h2:5433/d?target_session_attrs=read-write",
            {
                "host": "h1,h2",
                "port": ",5433",
                "password": "p,q",
                "dbname": "d",
                "target_session_attrs": "read-write",
            },
        ),
        ("postgresql://u@h1:1,h2:2", {"host": "h1,h2", "port": "1,2", "user": "u"}),
        ("postgresql://u:p@/d?host=h1:1&host=h2:2", {"host": "h1,h2", "port": "1,2"}),
        ("postgresql://u:p@/d?host=h1,h2&port=1,2", {"host": "h1,h2", "port": "1,2"}),
        ("postgresql://u:p@/d?host=/run/postgresql", {"host": "/run/postgresql"}),
        (
            "postgresql://h/d?sslmode=require&connect_timeout=9",
            {"sslmode": "require", "connect_timeout": "9"},
        ),
        ("postgresql://h/d?options=-c%20search_path%3Dx", {"options": "-c search_path=x"}),
    ],
)
def test_a_database_url_is_said_on_to_libpq(given, expected):
    found = connect_arguments(read_database_url(given))
    assert {name: found.get(name) for name in expected} == expected
    assert connect_arguments(read_database_url(read_database_url(given))) == found


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (f"postgresql://u:{SECRET}@h:x/d", "must be a database URL"),
        (f"postgresql://u:{SECRET}@h1:1,h2:x/d", "host:port between the commas"),
        (f"postgresql://u:{SECRET}@h1:1,,h2/d", "host:port between the commas"),
        (f"postgresql://u:{SECRET}@/d?host=h1:1&host=h2:2&port=3", "cannot be used"),
        (f"postgresql://u:{SECRET}@h/d?nonsense=1", 'invalid connection option "nonsense"'),
        (f"postgresql://u:{SECRET}@h/d?target_session_attrs=standby", "target_session_attrs"),
        (f"postgresql://u:{SECRET}@h/d?sslmode=sometimes", "sslmode"),
        (f"postgresql://u:{SECRET}@h/d?connect_timeout=0", "connect_timeout"),
        (f"mysql://u:{SECRET}@h/d", "PostgreSQL"),
        (SECRET, "must be a database URL"),
        ("", "must be a database URL"),
    ],
)
def test_a_database_url_that_cannot_be_used_is_refused_in_a_sentence(monkeypatch, given, word):
    monkeypatch.setenv("DATABASE_URL", given)
    with pytest.raises(SettingsError, match=r"^DATABASE_URL: ") as caught:
        Settings.load()
    assert word in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_database_url_says_of_timeouts_and_options_holds():
    url = "postgresql+psycopg2://h/d?connect_timeout=9&keepalives_idle=3&options=-c%20search_path%3Dx&application_name=y"
    options = engine_options("djps-test", pool_size=1, url=url)["connect_args"]
    assert (options["connect_timeout"], options["keepalives_idle"], options["keepalives_count"]) == (
        "9",
        "3",
        3,
    )
    assert options["application_name"] == "djps-test"
    assert options["options"].startswith("-c search_path=x -c statement_timeout=")


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h/",
        "redis://h:1/2",
        "redis://user:p%25w%40@h:1/2",
        "redis://h?db=2",
        "redis://h/2?db=2",
        "rediss://:pw@h/3",
        "rediss://h/0?ssl_cert_reqs=none&ssl_check_hostname=false",
        "unix:///run/redis.sock",
        "unix://user:pw@/run/redis.sock?db=2",
    ],
)
def test_all_libraries_take_a_redis_url_for_the_same(url):
    check_redis_url(url)
    ours = Redis.from_url(url).connection_pool.connection_kwargs
    counted = HintStorage(extensions.LIMITER_SCHEME + url).storage.connection_pool.connection_kwargs
    for name in ("host", "port", "db", "path", "username", "password", "ssl_cert_reqs"):
        assert counted.get(name) == ours.get(name), name
    kombu = Connection(redis_url_for_kombu(url))
    if url.startswith("unix"):
        assert kombu.hostname.startswith(
            f"redis+socket://{url.removeprefix('unix://').partition('?')[0]}"
        ) or (kombu.hostname.startswith("socket://"))
        return
    assert kombu.hostname == ours["host"]
    assert (kombu.port or 6379) == ours.get("port", 6379)
    assert int(kombu.virtual_host.strip("/") or 0) == (ours.get("db") or 0)
    assert (kombu.userid, kombu.password) == (ours.get("username"), ours.get("password"))
    assert bool(kombu.ssl) == url.startswith("rediss")
    if kombu.ssl:
        assert kombu.ssl["ssl_cert_reqs"].name == f"CERT_{ours.get('ssl_cert_reqs', 'required').upper()}"


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (f"redis://:{SECRET}@h/nonsense", "number of a database"),
        (f"redis://:{SECRET}@h/-1", "number of a database"),
        (f"redis://:{SECRET}@h?db=x", "number"),
        (f"redis://:{SECRET}@h/1?db=2", "one database"),
        (f"redis://:{SECRET}@h/0?socket_timeout=5", "'socket_timeout'"),
        (f"redis://:{SECRET}@h/0?max_connections=5", "'max_connections'"),
        (f"redis://:{SECRET}@h/0?ssl_cert_reqs=none", "'ssl_cert_reqs'"),
        (f"rediss://:{SECRET}@h/0?ssl_cert_reqs=maybe", "ssl_cert_reqs"),
        (f"rediss://:{SECRET}@h/0?ssl_check_hostname=maybe", "ssl_check_hostname"),
        (f"redis://:{SECRET}@h:99999/0", "port"),
        (f"redis://:{SECRET}/x@h/0", "port"),
        (f"redis://:{SECRET}@h/0#x", "#"),
        (f"unix://:{SECRET}@host/run/redis.sock", "path of a socket"),
        (f"unix://:{SECRET}@", "path of a socket"),
        (f"http://:{SECRET}@h/0", "must start with"),
        (f"redis:{SECRET}", "must start with"),
    ],
)
def test_a_redis_url_that_would_be_misread_is_refused_in_a_sentence(monkeypatch, given, word):
    monkeypatch.setenv("REDIS_URL", given)
    with pytest.raises(SettingsError, match=r"^REDIS_URL: ") as caught:
        Settings.load()
    assert word in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
