"""DJPS with PostgreSQL and Redis behind TLS: certificates are verified, a client's own is shown, and a wrong one is named."""

from __future__ import annotations

import ssl
import subprocess
from contextlib import ExitStack
from urllib.parse import quote

import pytest
import requests
import trustme
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.engine import make_url
from tls import Front

from ops.stack.ports import LOOPBACK

pytestmark = pytest.mark.system

#: What the server's certificate is for; libpq and redis-py both connect to it by this name.
NAME = "localhost"


class Secured:
    """A fleet whose servers are reached through TLS alone, and the files that it needs for that.

    Args:
        fleet: not started; its Redis has no TLS of its own.
        stack: ends the fronts.
        of: the name in the servers' certificate.
    """

    def __init__(self, fleet, stack, of=NAME):
        self.fleet = fleet
        self.authority, self.stranger = trustme.CA(), trustme.CA()
        own = self.authority.issue_cert("djps.example", common_name="djps")
        self.ca = self._file("ca.pem", self.authority.cert_pem)
        self.wrong_ca = self._file("wrong.pem", self.stranger.cert_pem)
        self.certificate = self._file("djps.pem", *own.cert_chain_pems)
        self.key = self._file("djps.key", own.private_key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(of).configure_cert(context)
        # Both servers ask for a certificate of the client's, as `tls-auth-clients yes` and `clientcert=verify-ca` do.
        self.authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        self.url = make_url(fleet.database_url)
        self.postgres = stack.enter_context(Front(self.url.port or 5432, context, is_postgresql=True))
        self.redis = stack.enter_context(Front(fleet.redis_port, context))

    def _file(self, name, *pems):
        path = self.fleet.folder / name
        path.write_bytes(b"".join(pem.bytes() for pem in pems))
        path.chmod(0o600)
        return str(path)

    def database_url(self, ca, **options):
        files = {"sslrootcert": ca, "sslcert": self.certificate, "sslkey": self.key}
        query = {"sslmode": "verify-full", **files, **options}
        url = self.url.set(host=NAME, port=self.postgres.port, query=query)
        return url.render_as_string(hide_password=False)

    def redis_url(self, ca, more=""):
        files = {"ssl_ca_certs": ca, "ssl_certfile": self.certificate, "ssl_keyfile": self.key}
        query = "&".join(f"{name}={quote(path)}" for name, path in files.items())
        return f"rediss://{NAME}:{self.redis.port}/0?{query}{more}"

    def use(self, database=None, redis=None):
        self.fleet.environment |= {
            "DATABASE_URL": database or self.database_url(self.ca),
            "REDIS_URL": redis or self.redis_url(self.ca),
        }

    def dependencies(self):
        """What readiness says of the two servers."""
        try:
            return requests.get(f"{self.fleet.url}/health/ready", timeout=5).json()["dependencies"]
        except requests.RequestException:
            return {}


@pytest.fixture
def secured(another_fleet, database):
    """Makes secured fleets; the servers run, the schema is there."""
    with ExitStack() as stack:

        def make(**options):
            made = Secured(another_fleet("tls", database), stack, **options)
            made.fleet.start("redis")
            made.fleet.wait_until(lambda: answers(made.fleet.redis_port))
            made.fleet.migrate()
            return made

        yield make


def answers(port):
    with Redis(port=port, socket_timeout=1) as client:
        try:
            return client.ping()
        except RedisError:
            return False


def log_of(fleet, name):
    return (fleet.folder / f"{name}.log").read_text()


def test_jobs_run_with_both_servers_behind_tls_that_verifies_both_sides(secured):
    made = secured()
    made.use()
    fleet = made.fleet
    fleet.migrate()
    fleet.start("api", "worker", "maintenance", "beat")
    fleet.wait_until(lambda: fleet.ready() and fleet.live_workers() == 2)
    job = fleet.post("noop")
    retried = fleet.post("again")
    watched = fleet.post("sleep", seconds=1)
    told = fleet.http.get(f"{fleet.url}/jobs/{watched['id']}?wait=20", timeout=30).json()
    assert told["status"] == "completed"
    assert fleet.wait_for(job)["status"] == "completed"
    assert fleet.wait_for(retried)["status"] == "failed"
    fleet.wait_until(lambda: fleet.metric("beat_age_seconds") < 10)
    assert made.postgres.taken >= 5
    assert made.redis.taken >= 5


@pytest.mark.parametrize("how", ["of a stranger", "of another name"])
def test_readiness_says_that_a_certificate_is_not_trusted(secured, how):
    made = secured(of=NAME if how == "of a stranger" else "elsewhere.example")
    ca = made.wrong_ca if how == "of a stranger" else made.ca
    made.use(made.database_url(ca), made.redis_url(ca))
    made.fleet.start("api")
    made.fleet.wait_until(made.dependencies)
    assert made.dependencies() == {
        "postgresql": "certificate not trusted, see DATABASE_URL",
        "redis": "certificate not trusted, see REDIS_URL",
    }


def test_a_worker_says_that_redis_certificate_is_not_trusted(secured):
    made = secured()
    made.use(redis=made.redis_url(made.wrong_ca))
    made.fleet.start("worker")
    made.fleet.wait_until(lambda: "certificate verify failed" in log_of(made.fleet, "worker"))
    assert "Traceback" not in log_of(made.fleet, "worker")


def test_a_migration_says_that_postgresqls_certificate_is_not_trusted(secured):
    made = secured()
    made.use(made.database_url(made.wrong_ca))
    with pytest.raises(subprocess.CalledProcessError) as failed:
        made.fleet.migrate()
    assert b"certificate verify failed" in failed.value.stderr


def test_a_name_that_is_not_the_certificates_can_be_allowed(secured):
    made = secured(of="elsewhere.example")
    made.use(
        made.database_url(made.ca, sslmode="verify-ca"),
        made.redis_url(made.ca, "&ssl_check_hostname=false"),
    )
    made.fleet.start("api")
    made.fleet.wait_until(made.dependencies)
    assert made.dependencies() == {"postgresql": "ok", "redis": "ok"}


@pytest.mark.parametrize("setting", ["DATABASE_URL", "REDIS_URL"])
def test_a_file_that_is_not_there_is_named_at_start(secured, setting):
    made = secured()
    gone = "/nowhere/ca.pem"
    made.use(
        **{"database": made.database_url(gone)}
        if setting == "DATABASE_URL"
        else {"redis": made.redis_url(gone)}
    )
    with pytest.raises(subprocess.CalledProcessError) as failed:
        made.fleet.migrate()
    said = failed.value.stderr.decode()
    assert setting in said
    assert f"{gone} (No such file or directory)" in said
    assert "djps:djps" not in said


def test_without_tls_the_front_takes_no_one(secured):
    made = secured()
    with Redis(host=LOOPBACK, port=made.redis.port, socket_timeout=2) as plain, pytest.raises(RedisError):
        plain.ping()
