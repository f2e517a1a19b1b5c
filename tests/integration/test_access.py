"""Keys over HTTP: what each may do, from when on, until when, and while the database is away."""

from __future__ import annotations

import re
import threading
import time
from contextlib import contextmanager
from uuid import uuid4

import psycopg2
import pytest
from factories import completed, dead_lettered
from sqlalchemy import event, text

from webapp.access import store
from webapp.access.attempts import MOST_ATTEMPTS, WINDOW
from webapp.access.book import GRACE, LONGEST_AGE, LOOK_BUDGET, LOOK_EVERY, LOOK_FOR_UNKNOWN, REST, KeyBook
from webapp.access.errors import KeysUnknown
from webapp.access.model import SCOPES_OF, NewKey, Role, Scope
from webapp.access.secret import hash_of, new_key
from webapp.api.openapi import document
from webapp.flow.reach import EVERYTHING
from webapp.infra.telemetry import metrics

#: How soon a key that is revoked is refused everywhere, seconds.
REVOKED_WITHIN = 2.5
#: What stands in all that a job of these tests carries.
CANARY = "canary-4111"


@pytest.fixture
def guarded(another_app):
    """An application that asks for keys."""
    return another_app(api_auth="keys")


@pytest.fixture
def make(guarded):
    """Makes keys; gives the number of one, and the header that shows it."""

    def made(*scopes, role=None, networks=(), lifetime=None):
        wanted = NewKey("a test's", role, scopes, networks, lifetime)
        issued = guarded.extensions["access"].create(wanted, by="a test")
        return issued.key.id, {"Authorization": f"Bearer {issued.secret}"}

    return made


@contextmanager
def away(engine):
    """The database answers no new connection, and there are no others."""

    def refuse(*_):
        raise psycopg2.OperationalError("connection refused, says the test")

    engine.dispose()
    connect, engine.pool._creator = engine.pool._creator, refuse
    try:
        yield
    finally:
        engine.pool._creator = connect


@contextmanager
def statements(engine):
    """The statements that are sent meanwhile."""
    sent = []

    def note(_connection, _cursor, statement, *_):
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


def engine_of(app):
    with app.app_context():
        return app.extensions["sqlalchemy"].engine


# What each may do


def operations(app):
    """Every operation as (method, path, scopes that it needs), with paths of what is not there."""
    given = {
        "job_id": str(uuid4()),
        "batch_id": str(uuid4()),
        "workflow_id": str(uuid4()),
        "step": "a",
        "queue": "no-such-queue",
        "task": "no-such-task",
        "key": "acme",
        "number": "999999",
        "schedule": "no-such-schedule",
        "worker": "vm:1:0",
    }
    return [
        (
            method.upper(),
            re.sub(r"{(\w+)}", lambda found: given[found[1]], path),
            [one["key"] for one in operation["security"]],
        )
        for path, methods in document(app)["paths"].items()
        for method, operation in methods.items()
    ]


def called(client, method, path, headers):
    """The status of a request that nothing comes of: what has a body gets one that is refused."""
    body = {"json": {"no such field": 1}} if method in {"POST", "PUT"} else {}
    return client.open(path, method=method, headers=headers, **body)


@pytest.mark.parametrize(
    ("role", "scopes"), [(None, ()), *((None, (one,)) for one in Scope), *((role, ()) for role in Role)]
)
def test_an_operation_is_open_to_those_who_have_its_scope_and_to_no_others(guarded, make, role, scopes):
    client = guarded.test_client()
    _, headers = make(*scopes, role=role)
    has = {str(scope) for scope in (SCOPES_OF[role] if role else scopes)}
    for method, path, security in operations(guarded):
        answer = called(client, method, path, headers)
        if not security or set(security[0]) <= has:
            assert answer.status_code not in {401, 403}, (method, path, answer.text)
        else:
            assert answer.status_code == 403, (method, path)
            assert [answer.json["missing_scope"]] == security[0]


def test_without_a_key_only_what_is_public_is_open(guarded):
    client = guarded.test_client()
    for method, path, security in operations(guarded):
        answer = called(client, method, path, {})
        assert (answer.status_code == 401) == bool(security), (method, path)
        if security:
            assert answer.mimetype == "application/problem+json"
            assert answer.json["request_id"] == answer.headers["X-Request-ID"]
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    for path in ("/docs/", "/docs/start.js", "/docs/swagger-ui.css"):
        with client.get(path) as answer:
            assert answer.status_code == 200, path
    assert client.get("/no/such/path").status_code == 404


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("Bearer", "the header Authorization has no key"),
        ("Basic YTpi", "the header Authorization has no key"),
        ("Bearer sesame", "the key must be djps_k_ and 46 letters"),
        ("Bearer djps_k_" + "0" * 40 + "3i2RuX", "its checksum is wrong"),
        ("Bearer djps_k_" + "0" * 40 + "3i2RuQ", "the key is unknown, or was revoked"),
    ],
)
def test_a_key_that_is_not_good_is_refused_and_not_repeated(guarded, header, sentence):
    answer = guarded.test_client().get("/jobs", headers={"Authorization": header})
    assert answer.status_code == 401
    assert sentence in answer.json["detail"]
    assert "sesame" not in answer.text
    assert "3i2Ru" not in answer.text
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


def test_a_key_that_has_expired_says_so(guarded, make, engine):
    _, headers = make(Scope.JOBS_READ, lifetime=3_600)
    client = guarded.test_client()
    assert client.get("/jobs", headers=headers).status_code == 200
    with engine.begin() as connection:
        connection.execute(text("UPDATE access_keys SET expires_at = now() - interval '1 s'"))
        store.stamp(connection)
    guarded.extensions["doorkeeper"].book.forget()
    answer = client.get("/jobs", headers=headers)
    assert (answer.status_code, "has expired" in answer.json["detail"]) == (401, True)
    assert (
        guarded.extensions["access"].page(EVERYTHING, ended=True, before=None, limit=1)[0].state == "expired"
    )
    assert guarded.extensions["access"].page(EVERYTHING, ended=False, before=None, limit=1) == []


def test_a_key_is_good_from_its_networks_alone(guarded, make):
    _, headers = make(Scope.JOBS_READ, networks=("10.0.0.0/8",))
    client = guarded.test_client()
    inside, outside = ({"REMOTE_ADDR": address} for address in ("10.1.2.3", "192.0.2.1"))
    assert client.get("/jobs", headers=headers, environ_base=inside).status_code == 200
    answer = client.get("/jobs", headers=headers, environ_base=outside)
    assert (answer.status_code, "may not be used from 192.0.2.1" in answer.json["detail"]) == (403, True)


def test_a_key_in_a_query_is_no_key(guarded, make):
    _, headers = make(Scope.JOBS_READ)
    secret = headers["Authorization"].removeprefix("Bearer ")
    assert guarded.test_client().get(f"/jobs?access_token={secret}").status_code == 401


def test_a_caller_learns_who_they_are(guarded, make):
    key_id, headers = make(Scope.JOBS_SUBMIT, lifetime=3_600)
    told = guarded.test_client().get("/access/me", headers=headers).json
    assert told.pop("expires_at") is not None
    assert told == {
        "mode": "keys",
        "tenant": "default",
        "key": key_id,
        "name": "a test's",
        "scopes": ["jobs:submit"],
        "queues": None,
        "quotas": None,
    }


def test_a_key_whose_row_was_changed_by_hand_is_good_for_nothing_and_harms_no_other(guarded, make, engine):
    _, broken = make(Scope.JOBS_READ)
    _, whole = make(Scope.JOBS_READ, networks=("127.0.0.0/8",))
    with engine.begin() as connection:
        connection.execute(text("UPDATE access_keys SET networks = '{everywhere}' WHERE networks = '{}'"))
    client = guarded.test_client()
    assert client.get("/jobs", headers=broken).status_code == 401
    assert client.get("/jobs", headers=whole).status_code == 200


# Without keys


def test_on_loopback_no_key_is_needed_and_none_costs_a_statement(client, engine):
    with statements(engine) as sent:
        told = client.get("/access/me").json
    assert sent == []
    assert (told["mode"], told["key"], told["scopes"]) == ("loopback", None, sorted(map(str, Scope)))


def test_on_loopback_a_key_that_is_sent_must_be_good(client, app):
    issued = app.extensions["access"].create(NewKey("a test's", None, (Scope.JOBS_READ,)), by=None)
    good = {"Authorization": f"Bearer {issued.secret}"}
    assert client.get("/jobs", headers=good).status_code == 200
    assert client.get("/dlq", headers=good).status_code == 403
    assert client.get("/jobs", headers={"Authorization": "Bearer sesame"}).status_code == 401
    # A password of a proxy's, or of another program's, is not ours to judge.
    assert client.get("/jobs", headers={"Authorization": "Basic YTpi"}).status_code == 200


@pytest.mark.parametrize(
    "given",
    [
        {"environ_base": {"REMOTE_ADDR": "10.0.0.5"}},
        {"headers": {"X-Forwarded-For": "10.0.0.5"}},
        {"headers": {"Forwarded": "for=10.0.0.5"}},
    ],
)
def test_who_is_let_in_since_they_are_on_this_host_must_be(client, given):
    answer = client.get("/jobs", **given)
    assert answer.status_code == 403
    assert "flask --app wsgi access init" in answer.json["detail"]
    assert client.get("/health", **given).status_code == 200


def test_where_access_is_open_no_key_is_looked_at(another_app):
    app = another_app(api_auth="open")
    client = app.test_client()
    with statements(engine_of(app)) as sent:
        told = client.get("/access/me", headers={"Authorization": "Bearer sesame", "X-Forwarded-For": "1.2.3.4"})  # fmt: skip
    assert (told.status_code, told.json["mode"], sent) == (200, "open", [])


# Those who try keys


def test_an_address_that_tries_keys_is_refused_before_they_are_looked_up_and_no_other_is(guarded, make):
    _, headers = make(Scope.JOBS_READ)
    client, engine = guarded.test_client(), engine_of(guarded)
    here, elsewhere = {"REMOTE_ADDR": "10.0.0.9"}, {"REMOTE_ADDR": "10.0.0.10"}

    def tried(secret, base=here):
        return client.get("/access/me", headers={"Authorization": f"Bearer {secret}"}, environ_base=base)

    assert client.get("/access/me", headers=headers, environ_base=here).status_code == 200
    answers = [tried(new_key()) for _ in range(300)]
    assert [one.status_code for one in answers] == [401] * MOST_ATTEMPTS + [429] * (300 - MOST_ATTEMPTS)
    assert all(1 <= int(one.headers["Retry-After"]) <= WINDOW for one in answers[MOST_ATTEMPTS:])
    assert answers[-1].mimetype == "application/problem+json"
    assert "20 keys that are not good" in answers[-1].json["detail"]
    # Also what has not the form of a key is not read.
    assert tried("sesame").status_code == 429
    with away(engine):
        # A look for the key would end in 503.
        assert tried(new_key()).status_code == 429
    assert tried(new_key(), elsewhere).status_code == 401
    assert client.get("/access/me", headers=headers, environ_base=here).status_code == 200
    assert client.get("/access/me", environ_base=here).status_code == 401


def test_all_addresses_of_a_site_count_as_one(guarded):
    client = guarded.test_client()
    codes = [
        client.get(
            "/access/me",
            headers={"Authorization": f"Bearer {new_key()}"},
            environ_base={"REMOTE_ADDR": f"2001:db8::{number:x}"},
        ).status_code
        for number in range(1, 100)
    ]
    assert codes == [401] * MOST_ATTEMPTS + [429] * (99 - MOST_ATTEMPTS)


def test_a_key_made_a_moment_ago_is_good_also_from_an_address_that_tries_keys(guarded, make, eventually):
    client = guarded.test_client()
    for _ in range(MOST_ATTEMPTS):
        assert client.get("/jobs", headers={"Authorization": f"Bearer {new_key()}"}).status_code == 401
    _, headers = make(Scope.JOBS_READ)
    eventually(lambda: client.get("/jobs", headers=headers).status_code == 200)


def test_what_is_refused_is_counted_by_its_reason(guarded, make):
    def counts():
        return {
            labels[0]: one.get()
            for labels, one in ((k, v._value) for k, v in metrics.auth_refusals._metrics.items())
        }

    client, before = guarded.test_client(), counts()
    _, reader = make(Scope.JOBS_READ)
    _, inside = make(Scope.JOBS_READ, networks=("10.0.0.0/8",))
    for headers in ({}, {"Authorization": "Bearer sesame"}, {"Authorization": f"Bearer {new_key()}"}, inside):
        client.get("/jobs", headers=headers)
    client.get("/dlq", headers=reader)
    client.get("/jobs", headers={"Host": "evil.example"})
    client.post("/jobs", headers={"Sec-Fetch-Site": "cross-site"})
    after = counts()
    rise = {reason: after[reason] - before[reason] for reason in after if after[reason] != before[reason]}
    once = ("no_key", "malformed", "unknown", "address", "scope", "host", "another_site")
    assert rise == dict.fromkeys(once, 1)


# As time goes by


def test_a_key_is_looked_up_once_and_a_change_is_seen_within_its_time(app, clock):
    access, engine = app.extensions["access"], engine_of(app)
    book, wanted = KeyBook(engine, clock), NewKey("a test's", None, (Scope.JOBS_READ,))
    issued = access.create(wanted, by=None)
    digest = hash_of(issued.secret)
    with statements(engine) as sent:
        assert book.find(digest).caller.key == issued.key.id
        for _ in range(100):
            assert book.find(digest) is not None
    # The stamp, the tenants, the keys.
    assert len(sent) == 3
    access.revoke(issued.key.id, EVERYTHING, by=None)
    clock.now += LOOK_EVERY - 0.01
    assert book.find(digest) is not None
    clock.now += 0.02
    assert book.find(digest) is None
    assert book.find_new(digest) is None


def test_a_look_in_time_is_a_promise():
    # The look itself may take its budget, and what is left is for a busy machine.
    assert LONGEST_AGE + LOOK_BUDGET < REVOKED_WITHIN
    assert LOOK_EVERY < LONGEST_AGE


def test_keys_are_read_anew_only_after_a_change(app, clock):
    access, engine = app.extensions["access"], engine_of(app)
    book = KeyBook(engine, clock)
    digest = hash_of(access.create(NewKey("a test's", None, (Scope.JOBS_READ,)), by=None).secret)
    assert book.find(digest)
    with statements(engine) as sent:
        for _ in range(5):
            clock.now += LOOK_EVERY
            assert book.find(digest)
    assert len(sent) == 5
    assert all("access_keys" not in one for one in sent)


def test_a_new_key_is_good_at_once_and_made_up_ones_cost_few_looks(app, clock):
    access, engine = app.extensions["access"], engine_of(app)
    book = KeyBook(engine, clock)
    assert book.find(hash_of(new_key())) is None
    clock.now += LOOK_FOR_UNKNOWN
    digest = hash_of(access.create(NewKey("a test's", None, (Scope.JOBS_READ,)), by=None).secret)
    assert book.find(digest) is None
    assert book.find_new(digest) is not None
    with statements(engine) as sent:
        for _ in range(200):
            assert book.find(hash_of(secret := new_key())) is None
            assert book.find_new(hash_of(secret)) is None
    assert sent == []


def test_a_key_that_is_revoked_is_refused_by_every_process_in_time(guarded, make, another_app):
    elsewhere = another_app(api_auth="keys").test_client()
    key_id, headers = make(Scope.QUEUES_READ)
    assert elsewhere.get("/access/me", headers=headers).status_code == 200
    begun, statuses, halt = [], [], threading.Event()

    def hammer():
        while not halt.is_set():
            began = time.monotonic()
            status = elsewhere.get("/access/me", headers=headers).status_code
            statuses.append(status)
            if status == 200:
                begun.append(began)
            elif status == 401:
                return

    thread = threading.Thread(target=hammer)
    thread.start()
    guarded.extensions["access"].revoke(key_id, EVERYTHING, by=None)
    revoked = time.monotonic()
    thread.join(20)
    halt.set()
    assert statuses[-1] == 401
    # A request that began in time may be answered later.
    assert max(begun, default=revoked) - revoked < REVOKED_WITHIN
    assert guarded.test_client().get("/access/me", headers=headers).status_code == 401


# Rotation


def test_two_secrets_are_good_while_a_key_is_rotated_and_the_scopes_stay(guarded, make):
    access, client = guarded.extensions["access"], guarded.test_client()
    book = guarded.extensions["doorkeeper"].book
    key_id, first = make(Scope.JOBS_READ)
    shown = [first]
    for _ in range(2):
        issued = access.rotate(key_id, EVERYTHING, overlap=3_600, by="a test")
        shown.append({"Authorization": f"Bearer {issued.secret}"})
        assert len(issued.key.hints) == 2
        book.forget()
        assert [client.get("/jobs", headers=one).status_code for one in shown[-2:]] == [200, 200]
    assert client.get("/jobs", headers=first).status_code == 401
    issued = access.rotate(key_id, EVERYTHING, overlap=0, by="a test")
    book.forget()
    assert [client.get("/jobs", headers=one).status_code for one in shown] == [401, 401, 401]
    last = {"Authorization": f"Bearer {issued.secret}"}
    assert client.get("/access/me", headers=last).json["key"] == key_id
    assert client.get("/dlq", headers=last).status_code == 403


# The database away


def test_while_the_database_is_away_no_one_gets_in_and_no_one_is_told_that_their_key_is_bad(
    guarded, make, eventually
):
    client, engine = guarded.test_client(), engine_of(guarded)
    _, headers = make(role=Role.ADMIN)
    assert client.get("/jobs", headers=headers).status_code == 200
    unknown = {"Authorization": f"Bearer {new_key()}"}
    with away(engine):
        # What is not known is looked for again a tenth of a second after the last look.
        eventually(lambda: client.get("/jobs", headers=unknown).status_code == 503)
        for _ in range(3):
            answer = client.get("/jobs", headers=headers)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert client.get("/jobs", headers=unknown).status_code == 503
            assert client.get("/access/me", headers=headers).status_code == 200
        assert client.get("/jobs").status_code == 401
        guarded.extensions["doorkeeper"].book.forget()
        for one in (headers, unknown):
            answer = client.get("/access/me", headers=one)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert "the database is not answering" in answer.json["detail"]


def test_known_keys_are_good_for_a_while_without_the_database_and_then_no_more(app, clock):
    engine = engine_of(app)
    book = KeyBook(engine, clock)
    digest = hash_of(app.extensions["access"].create(NewKey("a test's", Role.VIEWER), by=None).secret)
    assert book.find(digest)
    with away(engine):
        clock.now += GRACE - 1
        assert book.find(digest)
        with pytest.raises(KeysUnknown):
            book.find_new(hash_of(new_key()))
        clock.now += 2
        assert book.find(digest) is None
        with pytest.raises(KeysUnknown):
            book.find_new(digest)
    clock.now += REST
    assert book.find(digest)


# Uses


def test_when_a_key_was_last_used_is_written_for_all_at_once(guarded, make):
    access, client = guarded.extensions["access"], guarded.test_client()
    uses = guarded.extensions["doorkeeper"].uses
    used = [make(Scope.JOBS_READ) for _ in range(3)]
    for _, headers in used:
        for _ in range(3):
            client.get("/access/me", headers=headers, environ_base={"REMOTE_ADDR": "10.0.0.7"})
    with statements(engine_of(guarded)) as sent:
        assert uses.flush()
        assert not uses.flush()
    assert len(sent) == 1
    keys = access.page(EVERYTHING, ended=False, before=None, limit=10)
    assert {key.id for key in keys if key.last_used_from == "10.0.0.7"} == {key_id for key_id, _ in used}
    newest = keys[0].last_used_at
    uses.note(keys[0].id, 1.0, "10.0.0.8")
    uses.flush()
    assert access.page(EVERYTHING, ended=False, before=None, limit=1)[0].last_used_at == newest


def test_uses_that_cannot_be_written_harm_no_one(guarded, make):
    _, headers = make(Scope.JOBS_READ)
    guarded.test_client().get("/access/me", headers=headers)
    with away(engine_of(guarded)):
        assert guarded.extensions["doorkeeper"].uses.flush()
    assert guarded.test_client().get("/jobs", headers=headers).status_code == 200


# What jobs carry


def test_what_jobs_carry_is_shown_to_those_alone_who_may_see_it(guarded, make, engine):
    done = completed(engine, payload={"task": "noop", "card": CANARY})
    dead = dead_lettered(engine, payload={"task": "noop", "card": CANARY})
    with engine.begin() as connection:
        connection.execute(
            text("""
            UPDATE jobs SET callback_url = :url, last_error = :words, progress = jsonb_build_object('done', 1, 'note', CAST(:words AS text))"""),
            {"url": f"https://example.org/?token={CANARY}", "words": f"E: {CANARY}"},
        )
        for table in ("job_attempts", "dead_letters"):
            connection.execute(text(f"UPDATE {table} SET error_message = :words"), {"words": CANARY})  # noqa: S608
        connection.execute(text("UPDATE job_attempts SET traceback = :words"), {"words": CANARY})
    client = guarded.test_client()
    _, viewer = make(role=Role.VIEWER)
    _, operator = make(role=Role.OPERATOR)
    paths = ["/jobs", "/jobs?fields=id,payload,result", "/dlq", "/dlq/letters", "/dlq/groups"]
    for job in (done, dead):
        paths += [f"/jobs/{job.id}{part}" for part in ("", "/events", "/attempts", "/explain")]
    seen = 0
    for path in paths:
        shown = client.get(path, headers=viewer)
        assert shown.status_code == 200, (path, shown.text)
        assert CANARY not in shown.text, path
        seen += CANARY in client.get(path, headers=operator).text
    assert seen >= 8
    assert client.get("/jobs", headers=viewer).json["items"][0]["redacted"] is True
    assert "redacted" not in client.get("/jobs", headers=operator).json["items"][0]
    # What may not be seen may not be guessed at either.
    answer = client.get(f'/jobs?payload={{"card":"{CANARY}"}}', headers=viewer)
    assert (answer.status_code, answer.json["missing_scope"]) == (403, "jobs:content")
    assert client.get(f'/jobs?payload={{"card":"{CANARY}"}}', headers=operator).status_code == 200


def test_who_may_only_submit_does_not_see_what_became_of_a_job(guarded, make, engine):
    _, headers = make(Scope.JOBS_SUBMIT)
    client, body = guarded.test_client(), {"payload": {"task": "noop"}, "idempotency_key": "once"}
    assert client.post("/jobs", json=body, headers=headers).status_code == 201
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET last_error = :words"), {"words": CANARY})
    answer = client.post("/jobs", json=body, headers=headers)
    assert answer.status_code == 200
    assert CANARY not in answer.text
    assert answer.json["redacted"] is True
