"""What gunicorn's worker refuses to do, and what it does when files or clients are gone."""

from __future__ import annotations

import errno
import resource
import socket
from types import SimpleNamespace

import pytest
from gunicorn.config import Config

from webapp.server import worker as workers
from webapp.server.connection import Connection
from webapp.server.worker import OTHER_FILES, PatientWorker


@pytest.fixture
def worker():
    """A worker that was not started."""
    made = PatientWorker.__new__(PatientWorker)
    made.cfg = Config()
    made._loop = None
    return made


def test_it_speaks_no_tls():
    with pytest.raises(RuntimeError, match="speaks no TLS"):
        PatientWorker.check_config(SimpleNamespace(is_ssl=True), None)
    PatientWorker.check_config(SimpleNamespace(is_ssl=False), None)


def test_before_it_runs_it_has_no_connections(worker):
    with pytest.raises(RuntimeError, match="does not run"):
        worker.loop  # noqa: B018 - it is the property that raises


@pytest.mark.parametrize(
    ("soft", "hard", "raised_to", "most"),
    [
        (10_000, 10_000, None, 1_000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None, 1_000),
        (100, resource.RLIM_INFINITY, 1_000 + OTHER_FILES, 1_000),
        (100, 5_000, 1_000 + OTHER_FILES, 1_000),
        (100, 600, 600, 600 - OTHER_FILES),
        (100, 200, 200, 100),
    ],
)
def test_it_takes_no_more_connections_than_files_may_be_open(
    worker, monkeypatch, *, soft, hard, raised_to, most
):
    limits = []
    monkeypatch.setattr(workers.resource, "getrlimit", lambda _what: (soft, hard))
    monkeypatch.setattr(workers.resource, "setrlimit", lambda _what, given: limits.append(given))
    worker.cfg.set("worker_connections", 1_000)
    assert worker._connections_allowed() == most
    assert limits == ([] if raised_to is None else [(raised_to, hard)])


@pytest.mark.parametrize(("code", "closed"), [(errno.EMFILE, 1), (errno.ECONNABORTED, 0)])
def test_without_a_file_for_a_new_connection_an_old_one_is_closed(worker, code, closed):
    asked = []
    worker._loop = SimpleNamespace(close_one=lambda: asked.append(1))

    def accept():
        raise OSError(code, "no")

    worker.accept(SimpleNamespace(accept=accept))
    assert len(asked) == closed


def test_an_error_after_the_client_has_gone_is_logged_and_no_more(worker, caplog):
    caplog.set_level("INFO")
    own, client = socket.socketpair()
    with own, client:
        connection = Connection(worker.cfg, own, ("127.0.0.1", 1), ("127.0.0.1", 2))
        # What has begun to answer is not answered again.
        worker.handle_error(None, connection, None, ValueError("of our own"))
        assert caplog.messages == ["request failed unexpectedly"]
        connection.begin_answer()
        client.close()
        worker.handle_error(None, connection, None, ValueError("of our own"))
    assert caplog.messages[-1] == "client was lost"
