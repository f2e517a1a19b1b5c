"""With and without keys, on loopback and elsewhere: which server starts, and what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import event

from webapp.access.model import NewKey, Role
from webapp.api.callers import check_start
from webapp.flow.reach import EVERYTHING
from webapp.settings import SettingsError

ROOT = Path(__file__).resolve().parents[2]
EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing is bound here
SENTENCE = "and there is no API key: make one with `flask --app wsgi access init`, or set API_AUTH=open"


@pytest.fixture
def key(app):
    """There is a key."""
    return app.extensions["access"].create(NewKey("a test's", Role.ADMIN), by="a test")


@pytest.fixture
def said(capfd):
    """What was logged, by level and message; an application takes the handlers of others from the log."""

    def read():
        text = capfd.readouterr().err
        assert "sesame" not in text
        lines = (json.loads(line) for line in text.splitlines())
        return [(line["level"], line["message"]) for line in lines]

    return read


def engine_of(app):
    with app.app_context():
        return app.extensions["sqlalchemy"].engine


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"api_host": EVERYWHERE}, "API_HOST 0.0.0.0 is not loopback"),
        ({"api_host": EVERYWHERE, "api_auth": "keys"}, "API_HOST 0.0.0.0 is not loopback"),
        ({"trusted_proxies": 1}, "TRUSTED_PROXIES 1 lets others than this host reach the API"),
    ],
)
def test_a_server_that_others_reach_does_not_start_without_a_key(another_app, changes, sentence):
    app = another_app(**changes)
    with pytest.raises(SettingsError) as refused:
        check_start(app)
    assert str(refused.value).startswith(f"{sentence} {SENTENCE}")
    # Where it was started all the same, it lets no one in.
    client = app.test_client()
    assert client.get("/jobs").status_code == 401
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize("changes", [{"api_host": EVERYWHERE}, {"trusted_proxies": 1}])
def test_with_a_key_it_starts_and_holds_no_connection(another_app, key, changes, said):
    app = another_app(**changes)
    check_start(app)
    assert engine_of(app).pool.checkedin() == 0
    assert said() == []
    client = app.test_client()
    assert client.get("/jobs").status_code == 401
    assert client.get("/jobs", headers={"Authorization": f"Bearer {key.secret}"}).status_code == 200


def test_a_key_that_is_revoked_is_none(another_app, app, key):
    app.extensions["access"].revoke(key.key.id, EVERYTHING, by=None)
    with pytest.raises(SettingsError, match="there is no API key"):
        check_start(another_app(api_host=EVERYWHERE))


@pytest.mark.parametrize("changes", [{}, {"api_auth": "keys"}, {"api_auth": "open"}, {"api_host": "::1"}])
def test_on_loopback_nothing_is_asked_and_nothing_said(another_app, changes, said):
    app = another_app(**changes)
    sent = []
    event.listen(engine_of(app), "before_cursor_execute", lambda *given: sent.append(given[2]))
    check_start(app)
    assert (sent, said()) == ([], [])
    assert not is_open(app)


def is_open(app):
    """What the gauge says."""
    found = {one.name: one for one in app.extensions["gauges"].collect()}
    return found["djps_auth_open"].samples[0].value == 1


def test_one_that_is_open_elsewhere_says_so_at_each_start_and_in_a_metric(another_app, said):
    app = another_app(api_host=EVERYWHERE, api_auth="open")
    check_start(app)
    assert said() == [("WARNING", "API is open to all who reach it")]
    assert is_open(app)
    assert app.test_client().get("/jobs").status_code == 200


def test_while_the_database_is_away_a_server_starts_and_lets_no_one_in(another_app, closed_port, said):
    url = f"postgresql://djps:sesame@127.0.0.1:{closed_port}/djps"
    app = another_app(api_host=EVERYWHERE, database_url=url)
    check_start(app)
    assert said() == [("WARNING", "whether there is a key is not known")]
    client = app.test_client()
    assert client.get("/jobs").status_code == 401
    assert client.get("/health").status_code == 200


def started(*words, **environment):
    return subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "API_HOST": EVERYWHERE, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_program_ends_with_one_sentence_and_the_command_line_makes_the_key_it_asks_for(app):
    refused = started("-c", "import wsgi")
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"djps: API_HOST 0.0.0.0 is not loopback {SENTENCE}")
    made = started("-m", "flask", "--app", "wsgi", "access", "init")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("djps_k_")
    assert started("-c", "import wsgi").returncode == 0
