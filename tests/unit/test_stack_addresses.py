"""Which servers a shell's commands reach, what they say of them, and what goes around proxies."""

from __future__ import annotations

import json
import socket

import pytest
import requests

from ops.stack import addresses, early, ports, readiness
from webapp.settings import Settings, reaching_stack
from webapp.settings.local import go_around_proxies


@pytest.fixture
def closed_port():
    return ports.free()


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Settings as a shell with these variables has them, beside a stack whose note says `note`."""

    def make(note=None, **variables):
        monkeypatch.setenv("DJPS_ENV_FILE", "")
        monkeypatch.setenv("DJPS_DATA_DIR", str(tmp_path))
        for name in ("DATABASE_URL", "REDIS_URL", "POSTGRES_PORT", "REDIS_PORT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        if note is not None:
            (tmp_path / "run").mkdir(exist_ok=True)
            addresses.write_note(tmp_path, note)
        found = reaching_stack(Settings.load())
        return found.database_url, found.redis_url

    return make


NOTE = {
    "database_url": "postgresql+psycopg2://djps:djps@127.0.0.1:7001/djps",
    "redis_url": "redis://h:7002/0",
}


def test_without_a_stack_the_defaults_hold(load):
    assert load() == ("postgresql+psycopg2://djps:djps@localhost:5432/djps", "redis://localhost:6379/0")


def test_the_running_stack_is_reached(load):
    assert load(NOTE) == (NOTE["database_url"], NOTE["redis_url"])


def test_a_port_of_the_shells_own_comes_first(load):
    assert load(NOTE, POSTGRES_PORT="7003") == (
        "postgresql+psycopg2://djps:djps@localhost:7003/djps",
        NOTE["redis_url"],
    )
    assert load(NOTE, POSTGRES_PORT="7003", REDIS_PORT="7004")[1] == "redis://localhost:7004/0"


def test_the_running_stacks_own_port_is_the_running_stack(load):
    """It has a password that is in its note, and not in the defaults."""
    note = {**NOTE, "places": {"postgres_port": 7001, "redis_port": 7002}}
    assert load(note, POSTGRES_PORT="7001", REDIS_PORT="7002") == (NOTE["database_url"], NOTE["redis_url"])
    assert load(note, POSTGRES_PORT="7003")[0] == "postgresql+psycopg2://djps:djps@localhost:7003/djps"


def test_an_address_of_the_shells_own_comes_before_everything(load):
    given = {"DATABASE_URL": "postgresql://u:p@there/d", "REDIS_URL": "redis://there/1"}
    assert load(NOTE, **given, POSTGRES_PORT="7003", REDIS_PORT="7004") == (
        "postgresql+psycopg2://u:p@there/d",
        "redis://there/1",
    )


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"database_url": 5}'])
def test_a_note_that_cannot_be_read_is_none(load, tmp_path, text):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stack.json").write_text(text)
    assert load()[0] == "postgresql+psycopg2://djps:djps@localhost:5432/djps"


def test_only_the_owner_may_read_the_note(tmp_path):
    (tmp_path / "run").mkdir()
    addresses.write_note(tmp_path, NOTE)
    file = tmp_path / "run" / "stack.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text()) == NOTE
    addresses.forget_note(tmp_path)
    addresses.forget_note(tmp_path)
    assert not file.exists()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:sesame@h/0", "redis://:***@h/0"),
        ("rediss://user:ses@me@h/0", "rediss://user:***@h/0"),
        ("postgresql://u:ses/ame@h:1/d", "postgresql://u:***@h:1/d"),
        ("postgresql://h/d?user=u&password=sesame&x=1", "postgresql://h/d?user=u&password=***&x=1"),
        ("cannot connect to redis://u:sesame@h today", "cannot connect to redis://u:***@h today"),
    ],
)
def test_no_password_is_shown(url, shown):
    assert addresses.masked(url) == shown


@pytest.mark.parametrize("url", ["redis://:sesame@127.0.0.1:{port}/0", "redis://u:sesame@localhost:{port}/3"])
def test_a_redis_that_does_not_answer_is_named_with_its_setting(load, closed_port, url):
    load(REDIS_URL=url.format(port=closed_port))
    said = addresses.unanswered(Settings.load())
    assert "does not answer; check REDIS_URL (" in said
    assert "sesame" not in said


def test_a_database_that_refuses_is_named_with_its_setting_and_its_reason(load, closed_port):
    load(DATABASE_URL=f"postgresql://u:sesame@127.0.0.1:{closed_port}/d")
    said = addresses.unanswered(Settings.load())
    assert "check DATABASE_URL (" in said
    assert "refused" in said
    assert "sesame" not in said


def test_servers_of_the_stacks_own_are_not_asked(load):
    load()
    assert addresses.unanswered(Settings.load()) is None


def test_a_taken_port_is_named_before_anything_is_installed(tmp_path):
    others = {name: str(ports.free()) for name in early.PORTS if name != "POSTGRES_PORT"} | {
        "DJPS_ENV_FILE": ""
    }
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = early.refusal({**others, "POSTGRES_PORT": str(port)})
        assert f"port {port} is in use" in said
        assert "POSTGRES_PORT" in said
        own = {**others, "POSTGRES_PORT": str(port), "DATABASE_URL": "postgresql://nowhere.invalid/d"}
        assert "POSTGRES_PORT" not in early.refusal(own)
        file = tmp_path / "env"
        file.write_text(f"# mine\nexport POSTGRES_PORT='{port}'\n")
        assert "POSTGRES_PORT" in early.refusal({**others, "DJPS_ENV_FILE": str(file)})


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
def test_loopback_goes_around_proxies(monkeypatch, name, closed_port):
    for one in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(one, raising=False)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    go_around_proxies()
    for host in ("127.0.0.1", "localhost", "127.0.0.9", "intranet.example"):
        assert requests.utils.get_environ_proxies(f"http://{host}:8000/") == {}
    assert requests.utils.get_environ_proxies("http://elsewhere.example/") != {}


def test_without_proxies_nothing_is_set():
    found = {"HOME": "/root"}
    go_around_proxies(found)
    assert found == {"HOME": "/root"}


def test_last_words_are_the_last_error(tmp_path):
    log = tmp_path / "worker.log"
    assert readiness.last_words(log) == "it has written nothing"
    log.write_text('{"level": "INFO", "message": "old"}\n')
    mark = readiness.size_of(log)
    assert readiness.last_words(log, mark) == "it has written nothing"
    with log.open("a") as file:
        file.write(
            "Traceback (most recent call last):\n  File x\nModuleNotFoundError: No module named 'typo'\n"
        )
        file.write('{"level": "INFO", "message": "bye"}\n')
    assert readiness.last_words(log, mark) == "ModuleNotFoundError: No module named 'typo'"
    with log.open("a") as file:
        file.write(
            json.dumps({"level": "ERROR", "message": "it failed", "exc_info": "Traceback\nKeyError: 1"})
        )
    assert readiness.last_words(log, mark) == "it failed (KeyError: 1)"


def states(started, state="RUNNING"):
    return {
        "worker": {"pid": 1 if state in {"RUNNING", "STARTING"} else None, "state": state, "started": started}
    }


@pytest.mark.parametrize(
    "seen",
    [
        [states(1), states(2, "BACKOFF")],
        [states(1, "BACKOFF"), states(1, "BACKOFF"), states(3, "BACKOFF")],
        [states(1), states(2, "STARTING"), states(5, "STARTING")],
        [states(0, "STOPPED"), states(1, "EXITED"), states(2, "EXITED")],
        [states(1, "FATAL")],
    ],
)
def test_a_second_death_is_one_too_many(seen):
    deaths = readiness.Deaths()
    *before, last = [deaths.look(one, ["worker"]) for one in seen]
    assert set(before) <= {None}
    assert last == "worker"


@pytest.mark.parametrize(
    "seen",
    [
        [states(1, "STARTING"), states(1)],
        [states(1, "BACKOFF"), states(2, "STARTING"), states(2)],
        [states(0, "STOPPED"), states(5, "STARTING"), states(5)],
        [{}, states(1)],
    ],
)
def test_one_death_may_come_of_a_passing_cause(seen):
    deaths = readiness.Deaths()
    assert {deaths.look(one, ["worker"]) for one in seen} == {None}
    assert deaths.look(states(99), ["another"]) is None
