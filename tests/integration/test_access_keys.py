"""Keys made, listed, rotated and revoked over HTTP: never more than the key that asks has itself."""

from __future__ import annotations

import logging

import pytest

from webapp.access import store
from webapp.access.model import NewKey, Role, Scope
from webapp.flow.reach import EVERYTHING

MANAGER = (Scope.ACCESS_MANAGE, Scope.JOBS_READ)


@pytest.fixture
def guarded(another_app):
    """An application that asks for keys."""
    return another_app(api_auth="keys")


@pytest.fixture
def make(guarded):
    """Makes keys as the command line does; gives the number of one, and the header that shows it."""

    def made(*scopes, role=None, networks=(), lifetime=None):
        issued = guarded.extensions["access"].create(
            NewKey("a test's", role, scopes, networks, lifetime), by=None
        )
        return issued.key.id, {"Authorization": f"Bearer {issued.secret}"}

    return made


def numbers(client, headers, query=""):
    return [one["id"] for one in client.get(f"/access/keys{query}", headers=headers).json["items"]]


def test_a_key_is_made_shown_once_and_good_soon(guarded, make, caplog, eventually):
    number, headers = make(*MANAGER)
    client = guarded.test_client()
    with caplog.at_level(logging.DEBUG):
        answer = client.post(
            "/access/keys",
            headers=headers,
            json={"name": "robot", "scopes": ["jobs:read"], "networks": ["127.0.0.0/8"], "lifetime": 60},
        )
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    secret = answer.json["secret"]
    assert secret not in caplog.text
    assert answer.json["created_by"] == f"key {number} (a test's)"
    assert (answer.json["scopes"], answer.json["networks"]) == (["jobs:read"], ["127.0.0.0/8"])
    shown = {"Authorization": f"Bearer {secret}"}
    # A key that is not known is looked for again a tenth of a second after the last look.
    eventually(lambda: client.get("/access/me", headers=shown).status_code == 200)
    assert client.get("/access/me", headers=shown).json["scopes"] == ["jobs:read"]
    for path in ("/access/keys", f"/access/keys/{answer.json['id']}"):
        shown = client.get(path, headers=headers)
        assert shown.status_code == 200
        assert secret not in shown.text
        assert secret[-4:] in shown.text


def test_a_key_lives_a_year_unless_something_else_is_said(guarded, make):
    _, headers = make(*MANAGER)
    client = guarded.test_client()
    body = {"name": "robot", "scopes": ["jobs:read"]}
    year = client.post("/access/keys", headers=headers, json=body).json
    assert year["expires_at"][:4] > year["created_at"][:4]
    assert (
        client.post("/access/keys", headers=headers, json=body | {"lifetime": None}).json["expires_at"]
        is None
    )


@pytest.mark.parametrize(
    ("giver", "body", "sentence"),
    [
        ({}, {"scopes": ["jobs:submit"]}, "the key \"a test's\" cannot give what it does not have: the scope jobs:submit"),
        ({}, {"role": "viewer"}, "the role viewer"),
        ({"networks": ("127.0.0.0/8",)}, {"scopes": ["jobs:read"]}, "use from other networks than 127.0.0.0/8"),
        (
            {"networks": ("127.0.0.0/8",)},
            {"scopes": ["jobs:read"], "networks": ["0.0.0.0/0"]},
            "the network 0.0.0.0/0",
        ),
        ({"lifetime": 3_600}, {"scopes": ["jobs:read"]}, "a life beyond"),
        ({"lifetime": 3_600}, {"scopes": ["jobs:read"], "lifetime": None}, "a life beyond"),
        ({}, {"scopes": ["access:manage"]}, "on the command line alone: use `flask --app wsgi access key`"),
        ({"role": Role.ADMIN}, {"role": "admin"}, "on the command line alone"),
    ],
)  # fmt: skip
def test_a_key_gives_nothing_that_it_does_not_have(guarded, make, giver, body, sentence):
    number, headers = make(*MANAGER, **giver)
    client = guarded.test_client()
    answer = client.post("/access/keys", headers=headers, json={"name": "robot"} | body)
    assert (answer.status_code, sentence in answer.json["detail"]) == (403, True), answer.text
    assert answer.mimetype == "application/problem+json"
    assert numbers(client, headers) == [number]


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ({"scopes": (Scope.JOBS_SUBMIT,)}, "the scope jobs:submit"),
        ({"role": Role.OPERATOR}, "the role operator"),
        ({"role": Role.ADMIN}, "on the command line alone"),
    ],
)
def test_a_key_gets_no_secret_of_one_that_may_more(guarded, make, target, sentence):
    _, headers = make(*MANAGER)
    scopes = target.get("scopes", ())
    number, other = make(*scopes, role=target.get("role"))
    client = guarded.test_client()
    answer = client.post(f"/access/keys/{number}/rotate", headers=headers)
    assert (answer.status_code, sentence in answer.json["detail"]) == (403, True), answer.text
    assert client.get("/access/me", headers=other).status_code == 200


def test_a_key_that_makes_keys_does_not_rotate_itself(guarded, make):
    number, headers = make(*MANAGER)
    answer = guarded.test_client().post(f"/access/keys/{number}/rotate", headers=headers)
    assert (answer.status_code, "on the command line alone" in answer.json["detail"]) == (403, True)


def test_a_key_is_rotated_and_revoked(guarded, make):
    _, headers = make(*MANAGER)
    number, first = make(Scope.JOBS_READ)
    client, book = guarded.test_client(), guarded.extensions["doorkeeper"].book
    answer = client.post(f"/access/keys/{number}/rotate", headers=headers, json={"overlap": 60})
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    assert len(answer.json["secrets"]) == 2
    second = {"Authorization": f"Bearer {answer.json['secret']}"}
    book.forget()
    assert [client.get("/jobs", headers=one).status_code for one in (first, second)] == [200, 200]
    revoked = client.post(f"/access/keys/{number}/revoke", headers=headers)
    assert (revoked.status_code, revoked.json["state"]) == (200, "revoked")
    book.forget()
    assert [client.get("/jobs", headers=one).status_code for one in (first, second)] == [401, 401]
    assert client.post(f"/access/keys/{number}/rotate", headers=headers).status_code == 409
    assert number not in numbers(client, headers)
    assert number in numbers(client, headers, "?ended=true")
    assert client.get(f"/access/keys/{number}", headers=headers).json["state"] == "revoked"


def test_keys_are_listed_a_page_at_a_time(guarded, make):
    made = [make(Scope.JOBS_READ)[0] for _ in range(3)]
    number, headers = make(*MANAGER)
    client = guarded.test_client()
    page = client.get("/access/keys?limit=2", headers=headers).json
    assert [one["id"] for one in page["items"]] == [number, made[2]]
    rest = client.get(f"/access/keys?limit=2&cursor={page['next_cursor']}", headers=headers).json
    assert [one["id"] for one in rest["items"]] == [made[1], made[0]]


@pytest.mark.parametrize(
    ("method", "path"),
    [("get", ""), ("post", "/rotate"), ("post", "/revoke")],
)
@pytest.mark.parametrize("number", ["999", "99999999999999999999", "0"])
def test_a_key_that_is_not_there_is_not_found(guarded, make, method, path, number):
    _, headers = make(*MANAGER)
    answer = guarded.test_client().open(
        f"/access/keys/{number}{path}", method=method.upper(), headers=headers
    )
    assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": "x"}, "body"),
        ({"name": "x", "role": "god"}, "role"),
        ({"name": "x", "scopes": ["jobs:read"], "networks": ["10.0.0.1/8"]}, "networks.0"),
        ({"name": "x", "scopes": ["jobs:read"], "lifetime": 0}, "lifetime"),
        ({"name": "x", "scopes": ["jobs:read"], "tenant": 2}, "tenant"),
    ],
)
def test_what_cannot_be_made_is_refused_with_its_rule(guarded, make, body, field):
    _, headers = make(*MANAGER)
    answer = guarded.test_client().post("/access/keys", headers=headers, json=body)
    assert answer.status_code == 422
    assert answer.json["errors"][0]["field"] == field


def test_a_giver_that_was_revoked_a_moment_ago_gives_nothing(guarded, make):
    number, headers = make(*MANAGER)
    client = guarded.test_client()
    assert numbers(client, headers) == [number]
    guarded.extensions["access"].revoke(number, EVERYTHING, by=None)
    # This process has not looked since, and lets it in for a second more.
    answer = client.post("/access/keys", headers=headers, json={"name": "robot", "scopes": ["jobs:read"]})
    assert answer.status_code == 401
    assert len(guarded.extensions["access"].page(EVERYTHING, ended=True, before=None, limit=10)) == 1


def test_there_is_a_bound_on_live_keys(guarded, make, monkeypatch):
    _, headers = make(*MANAGER)
    monkeypatch.setattr(store, "MOST_KEYS", 1)
    answer = guarded.test_client().post(
        "/access/keys", headers=headers, json={"name": "x", "scopes": ["jobs:read"]}
    )
    assert answer.status_code == 409


@pytest.mark.parametrize("api_auth", ["auto", "open"])
def test_who_shows_no_key_changes_none(another_app, api_auth):
    app = another_app(api_auth=api_auth)
    issued = app.extensions["access"].create(NewKey("a test's", Role.VIEWER), by=None)
    client = app.test_client()
    calls = (
        ("/access/keys", {"json": {"name": "robot", "role": "viewer"}}),
        (f"/access/keys/{issued.key.id}/rotate", {}),
        (f"/access/keys/{issued.key.id}/revoke", {}),
    )
    for path, more in calls:
        answer = client.post(path, **more)
        assert (answer.status_code, "flask --app wsgi access key" in answer.json["detail"]) == (403, True)
    (key,) = app.extensions["access"].page(EVERYTHING, ended=True, before=None, limit=10)
    assert (key.state, len(key.hints)) == ("live", 1)


def test_on_loopback_who_shows_a_key_may_make_others(client, app):
    issued = app.extensions["access"].init(by=None)
    headers = {"Authorization": f"Bearer {issued.secret}"}
    assert (
        client.post("/access/keys", headers=headers, json={"name": "robot", "role": "viewer"}).status_code
        == 201
    )
