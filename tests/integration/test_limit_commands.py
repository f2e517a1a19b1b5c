"""`flask --app wsgi queues set`, `keys`, `set-key`, `apply` and `tasks set`, over real servers."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    """Changes do not wait until other processes know of them: here there are none."""
    monkeypatch.setattr("webapp.flow.service.LONGEST_AGE", 0.0)
    monkeypatch.setattr("webapp.flow.service.ON_ITS_WAY", 0.0)


def said(result, code=0):
    assert result.exit_code == code, result.output
    return result.stdout


def limits_of(client, path="/queues/default"):
    return client.get(path).json["limits"]


def test_a_queue_and_a_task_are_given_limits_and_have_none_again(flask, client):
    words = ("queues", "set", "default", "--concurrency", "4", "--rate", "100/60", "--burst", "5")
    shown = json.loads(
        said(flask(*words, "--key-concurrency", "1", "--key-rate", "2", "--fair", "--ageing", "60", "--json"))
    )
    assert shown["limits"] == limits_of(client) == {
        "concurrency": 4, "rate": {"limit": 100, "per": 60.0, "burst": 5}, "fair": True, "ageing": 60.0,
        "keys": {"concurrency": 1, "rate": {"limit": 2, "per": 1.0, "burst": 1}, "order": None, "max_depth": None},
        "max_depth": None, "max_age": None,
    }  # fmt: skip
    assert said(flask("tasks", "set", "noop", "--concurrency", "2", "--why", "two seats")).startswith(
        "task 'noop': {"
    )
    assert limits_of(client, "/tasks/noop")["concurrency"] == 2
    newest = client.get("/flow/changes").json["items"][0]
    assert (newest["target"], newest["why"], newest["who"] != "") == ("tasks/noop", "two seats", True)
    said(flask("queues", "set", "default", "--none"))
    said(flask("tasks", "set", "noop", "--none"))
    assert limits_of(client)["concurrency"] is limits_of(client, "/tasks/noop")["concurrency"] is None


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("queues", "set", "default"), 2, "say which limits it shall have, or --none"),
        (("queues", "set", "default", "--none", "--concurrency", "1"), 2, "or --none for no limits"),
        (("queues", "set", "default", "--rate", "many"), 2, "'many' is no rate: as 100/60"),
        (("queues", "set", "default", "--burst", "3"), 2, "--burst needs --rate"),
        (("queues", "set", "default", "--key-burst", "3"), 2, "--key-burst needs --key-rate"),
        (("queues", "set", "default", "--concurrency", "0"), 2, "--concurrency"),
        (("queues", "set", "default", "--ageing", "0"), 2, "--ageing: must be at least 0.1"),
        (("queues", "set", "default", "--key-order", "lifo"), 2, "'lifo' is not 'fifo'"),
        (
            ("queues", "set", "default", "--key-order", "fifo", "--key-concurrency", "2"),
            2,
            "keys.order: must be null where the concurrency of keys is 2",
        ),
        (("queues", "set", "nowhere", "--concurrency", "1"), 4, "there is no queue 'nowhere'"),
        (("queues", "set-key", "default", "a", "--weight", "0"), 2, "--weight"),
        (("queues", "set-key", "default", "a", "--burst", "2"), 2, "--burst needs --rate"),
        (("queues", "set-key", "default", "a", "--rate", "0"), 2, "--rate.limit"),
        (("queues", "keys", "default", "--order", "waiting", "--cursor", "a"), 2, "together with cursor"),
        (("queues", "keys", "nowhere"), 4, "there is no queue 'nowhere'"),
    ],
)
def test_what_breaks_a_rule_is_said_in_a_sentence(flask, engine, words, code, sentence):
    result = flask(*words)
    assert (result.exit_code, sentence in result.stderr) == (code, True), result.stderr
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM flow_changes")).scalar_one() == 0


def test_keys_are_given_an_order_by_a_command_and_by_a_file(flask, client, tmp_path):
    said(flask("queues", "set", "default", "--key-order", "fifo"))
    assert limits_of(client)["keys"]["order"] == "fifo"
    assert '"order": "fifo"' in said(flask("queues", "show", "default"))
    # Of no key more may run at once.
    refused = flask("queues", "set-key", "default", "acme", "--concurrency", "2")
    assert (refused.exit_code, "their jobs run one at a time" in refused.stderr) == (1, True)
    said(flask("queues", "set-key", "default", "acme", "--concurrency", "1"))
    said(flask("queues", "set", "default", "--none"))
    said(flask("queues", "set-key", "default", "acme", "--concurrency", "2"))
    file = tmp_path / "order.toml"
    file.write_text('[queues.default]\nageing = 30\nkeys = {order = "fifo"}\n')
    refused = flask("queues", "apply", str(file))
    assert (
        refused.exit_code,
        "key 'acme' of queue 'default' cannot have a concurrency of 2" in refused.stderr,
    ) == (1, True)
    said(flask("queues", "set-key", "default", "acme", "--none"))
    said(flask("queues", "apply", str(file)))
    assert (limits_of(client)["keys"]["order"], limits_of(client)["ageing"]) == ("fifo", 30.0)


def test_a_key_is_given_limits_listed_and_like_every_key_again(flask):
    assert "no keys with limits" in said(flask("queues", "keys", "default"))
    assert "key 'acme' of queue 'default'" in said(
        flask("queues", "set-key", "default", "acme", "--weight", "3")
    )
    slow = flask(
        "queues", "set-key", "default", "acme", "--weight", "3", "--rate", "2/60", "--burst", "2", "--json"
    )
    assert json.loads(said(slow))["rate"] == {"limit": 2, "per": 60.0, "burst": 2}
    paused = json.loads(
        said(flask("queues", "set-key", "default", "b", "--paused", "--why", "loops", "--json"))
    )
    assert (paused["paused"], paused["paused_why"]) == (True, "loops")
    (acme, b) = json.loads(said(flask("queues", "keys", "default", "--json")))["items"]
    assert ((acme["key"], acme["weight"]), (b["key"], b["paused"])) == (("acme", 3.0), ("b", True))
    assert "acme" in said(flask("queues", "keys", "default"))
    for key in ("acme", "b"):
        said(flask("queues", "set-key", "default", key, "--none"))
    assert json.loads(said(flask("queues", "keys", "default", "--json")))["items"] == []


WANTED = """
[queues.default]
concurrency = 8
keys = {concurrency = 1}

[keys.default.acme]
weight = 3
rate = {limit = 5, per = 60}

[tasks.noop]
rate = {limit = 100, per = 60}
"""


def test_a_file_is_applied_and_what_it_does_not_name_stays(flask, client, tmp_path):
    file = tmp_path / "limits.toml"
    file.write_text(WANTED)
    assert client.put("/tasks/sleep", json={"concurrency": 3}).status_code == 200
    assert said(flask("queues", "apply", str(file), "--dry-run")).splitlines()[-1] == "3 would be changed"
    assert limits_of(client)["concurrency"] is None
    assert (
        said(flask("queues", "apply", str(file), "--why", "release 7")).splitlines()[-1] == "3 were changed"
    )
    assert (limits_of(client)["concurrency"], limits_of(client)["keys"]["concurrency"]) == (8, 1)
    assert limits_of(client, "/tasks/noop")["rate"] == {"limit": 100, "per": 60.0, "burst": 2}
    acme = client.get("/queues/default/keys/acme").json
    assert (acme["weight"], acme["rate"]) == (3.0, {"limit": 5, "per": 60.0, "burst": 1})
    assert limits_of(client, "/tasks/sleep")["concurrency"] == 3
    assert client.get("/flow/changes").json["items"][0]["why"] == "release 7"
    again = said(flask("queues", "apply", str(file))).splitlines()
    assert (again[0], again[-1]) == ("queue 'default': as it is", "0 were changed")
    same = tmp_path / "limits.json"
    same.write_text(json.dumps({"queues": {"default": {}}}))
    assert said(flask("queues", "apply", str(same))).splitlines()[-1] == "1 were changed"


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        ("[queues.default]\nconcurrency = 0\n", (2, "queues.default.concurrency")),
        ("[queues.default]\nspeed = 1\n", (2, "queues.default.speed")),
        (
            '[queues.default]\nkeys = {order = "fifo", concurrency = 3}\n',
            (2, "queues.default.keys.order: must be null"),
        ),
        ("[queues.default]\nconcurrency = 1\n[tasks.nowhere]\n", (4, "there is no task 'nowhere'")),
        ("[queues.default]\nconcurrency = 1\n[keys.nowhere.a]\n", (4, "there is no queue 'nowhere'")),
        ("queues = [", (2, "is no TOML")),
        ("# " + "x" * 4 * 1024**2, (2, "must be at most 4194304 bytes")),
    ],
)
def test_a_file_that_breaks_a_rule_changes_nothing(flask, client, tmp_path, content, refusal):
    file = tmp_path / "limits.toml"
    file.write_text(content)
    result = flask("queues", "apply", str(file))
    code, sentence = refusal
    assert (result.exit_code, sentence in result.stderr) == (code, True), result.stderr
    assert limits_of(client)["concurrency"] is None
