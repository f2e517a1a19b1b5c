"""`flask --app wsgi access`: keys are made, listed, rotated, revoked and found."""

from __future__ import annotations

import json
import logging
import re

import pytest

from webapp.access import store
from webapp.access.secret import checked, hash_of, new_key
from webapp.settings import Settings, SettingsError


def said(result, code=0):
    assert result.exit_code == code, result.output
    return result.stdout


def made(flask, *words):
    return json.loads(said(flask("access", "key", "create", *words, "--json")))


def status_of(client, secret, path="/access/me"):
    return client.get(path, headers={"Authorization": f"Bearer {secret}"}).status_code


def test_the_first_key_is_printed_once_and_may_do_everything(flask, client, caplog):
    with caplog.at_level(logging.DEBUG):
        secret = said(flask("access", "init")).strip()
    assert checked(secret) == secret
    assert secret not in caplog.text
    told = client.get("/access/me", headers={"Authorization": f"Bearer {secret}"}).json
    assert (told["name"], "access:manage" in told["scopes"], told["expires_at"]) == ("admin", True, None)
    refused = flask("access", "init")
    assert refused.exit_code == 1
    assert "there is an admin key already: " in refused.output
    assert secret not in refused.output
    assert said(flask("access", "init", "--again")).strip() != secret


def test_a_key_is_made_with_what_was_asked_for(flask):
    words = ("shop", "--role", "viewer", "--scope", "jobs:submit", "--network", "10.0.0.0/8", "--days", "90")
    key = made(flask, *words, "--by", "ada")
    assert (key["name"], key["role"], key["scopes"], key["networks"], key["created_by"]) == (
        "shop",
        "viewer",
        ["jobs:submit"],
        ["10.0.0.0/8"],
        "ada",
    )
    assert (key["state"], key["secrets"]) == ("live", [key["secret"][-4:]])
    assert made(flask, "worker", "--scope", "jobs:read", "--never")["expires_at"] is None
    assert made(flask, "worker", "--scope", "jobs:read")["expires_at"] is not None


def test_keys_of_the_settings_are_made_known_once_by_their_hashes(
    client, flask, settings, monkeypatch, eventually
):
    admin, metrics = new_key(), new_key()
    hashes = {"bootstrap_key_sha256": hash_of(admin).hex(), "metrics_key_sha256": hash_of(metrics).hex()}

    def bootstrap():
        with monkeypatch.context() as patch:
            patch.setitem(client.application.extensions, "settings", settings.model_copy(update=hashes))
            return flask("access", "bootstrap")

    first, second = said(bootstrap()).splitlines()
    assert re.fullmatch(r"key \d+ \(bootstrap\) is known now", first)
    assert re.fullmatch(r"key \d+ \(metrics\) is known now", second)
    assert status_of(client, admin, "/access/keys") == 200
    assert (status_of(client, metrics, "/metrics"), status_of(client, metrics, "/jobs")) == (200, 403)
    assert said(flask("access", "key", "revoke", first.split()[1]))
    again = [line.partition("(")[2] for line in said(bootstrap()).splitlines()]
    assert again == ["bootstrap) is revoked", "metrics) is live"]
    eventually(lambda: status_of(client, admin, "/access/keys") == 401)
    # Without settings there is nothing to do.
    assert said(flask("access", "bootstrap")) == ""


@pytest.mark.parametrize("name", ["bootstrap_key_sha256", "metrics_key_sha256"])
def test_what_is_no_hash_is_refused_at_the_start(monkeypatch, name):
    monkeypatch.setenv(name.upper(), new_key())
    with pytest.raises(SettingsError, match=f"{name.upper()}: must match") as refused:
        Settings.load()
    assert "djps_k_" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("shop",), "must have a role, or scopes, or both"),
        (("shop", "--role", "god"), "'god' is not one of"),
        (("shop", "--scope", "jobs:all"), "'jobs:all' is not one of"),
        (("shop", "--role", "viewer", "--network", "10.0.0.1/8"), "must be a network or an address"),
        (("shop", "--role", "viewer", "--days", "0"), "must be at least 1"),
        (("shop", "--role", "viewer", "--days", "100000"), "must be at most"),
        ((" ", "--role", "viewer"), "must"),
        (("shop", "--role", "viewer", "--queue", "no queue"), "--queue.0: "),
        (("x" * 101, "--role", "viewer"), "must have at most 100 characters"),
    ],
)
def test_what_cannot_be_made_is_refused_with_its_rule(flask, words, sentence):
    result = flask("access", "key", "create", *words)
    assert result.exit_code == 2
    assert sentence in result.output
    assert json.loads(said(flask("access", "key", "list", "--all", "--json")))["items"] == []


def test_keys_are_listed_without_their_secrets(flask):
    keys = [made(flask, f"key {n}", "--role", "viewer") for n in range(3)]
    table = said(flask("access", "key", "list"))
    assert all(key["secret"] not in table for key in keys)
    assert all(key["secret"][-4:] in table for key in keys)
    page = json.loads(said(flask("access", "key", "list", "--limit", "2", "--json")))
    assert [one["name"] for one in page["items"]] == ["key 2", "key 1"]
    rest = json.loads(said(flask("access", "key", "list", "--cursor", page["next_cursor"], "--json")))
    assert [one["name"] for one in rest["items"]] == ["key 0"]
    assert rest["next_cursor"] is None


def test_a_key_is_revoked_and_stays_on_record(flask, client, app):
    key = made(flask, "shop", "--role", "viewer")
    assert status_of(client, key["secret"]) == 200
    revoked = json.loads(said(flask("access", "key", "revoke", key["id"], "--json")))
    assert revoked["state"] == "revoked"
    app.extensions["doorkeeper"].book.forget()
    assert status_of(client, key["secret"]) == 401
    again = json.loads(said(flask("access", "key", "revoke", key["id"], "--json")))
    assert again["revoked_at"] == revoked["revoked_at"]
    assert said(flask("access", "key", "list")) == "no keys\n"
    assert "shop" in said(flask("access", "key", "list", "--all"))
    refused = flask("access", "key", "rotate", key["id"])
    assert (refused.exit_code, "is revoked; make a new one" in refused.output) == (1, True)


@pytest.mark.parametrize("command", ["revoke", "rotate"])
def test_a_key_that_is_not_there_is_not_found(flask, command):
    result = flask("access", "key", command, 999)
    assert (result.exit_code, "there is no key 999" in result.output) == (4, True)


def test_a_key_is_rotated(flask, client, app):
    key = made(flask, "shop", "--role", "viewer")
    secret = said(flask("access", "key", "rotate", key["id"], "--overlap", "60")).strip()
    app.extensions["doorkeeper"].book.forget()
    assert [status_of(client, one) for one in (key["secret"], secret)] == [200, 200]
    last = said(flask("access", "key", "rotate", key["id"], "--overlap", "0")).strip()
    app.extensions["doorkeeper"].book.forget()
    assert [status_of(client, one) for one in (key["secret"], secret, last)] == [401, 401, 200]
    assert flask("access", "key", "rotate", key["id"], "--overlap", "-1").exit_code == 2


def test_a_pasted_key_is_found_also_when_it_is_good_no_more(flask):
    key = made(flask, "shop", "--role", "viewer")
    found = json.loads(said(flask("access", "key", "find", "--json", input=f"  {key['secret']}\n")))
    assert (found["id"], found["name"], found["is_good"]) == (key["id"], "shop", True)
    said(flask("access", "key", "rotate", key["id"], "--overlap", "0"))
    shown = said(flask("access", "key", "find", input=key["secret"]))
    assert "this secret is no longer good for it" in shown
    assert key["secret"] not in shown
    said(flask("access", "key", "revoke", key["id"]))
    found = json.loads(said(flask("access", "key", "find", "--json", input=key["secret"])))
    assert (found["state"], found["is_good"]) == ("revoked", False)


@pytest.mark.parametrize(
    ("given", "code", "sentence"),
    [("sesame", 1, "the key must be djps_k_"), ("", 1, "the key must be"), (new_key(), 4, "no key has this secret")],
)  # fmt: skip
def test_what_is_no_key_of_ours_is_not_found_and_not_repeated(flask, given, code, sentence):
    result = flask("access", "key", "find", input=given)
    assert result.exit_code == code
    assert sentence in result.output
    assert not given or given not in result.output


def test_there_is_a_bound_on_live_keys(flask, monkeypatch):
    monkeypatch.setattr(store, "MOST_KEYS", 1)
    key = made(flask, "one", "--role", "viewer")
    refused = flask("access", "key", "create", "two", "--role", "viewer")
    assert (refused.exit_code, "1 keys are live" in refused.output) == (1, True)
    said(flask("access", "key", "revoke", key["id"]))
    made(flask, "two", "--role", "viewer")
