"""Tenants: made and suspended by commands, with keys that name the same and never meet, and quotas of all their keys together."""

from __future__ import annotations

import json
import logging
from uuid import uuid4

import pytest
from factories import claimed, completed, dead_lettered, queued, row_of
from pydantic import SecretStr
from several_tenants import CANARY, MINE, OTHER, SHARED, filled, key_of, made
from sqlalchemy import text

from tasks.attempt.run import _tenant_of
from tasks.sweeps import callbacks as delivering
from webapp.access import service as access_service
from webapp.access.errors import UnknownTenant
from webapp.access.model import NewKey, Role
from webapp.access.queued import LOOK_EVERY
from webapp.access.quotas import Quotas
from webapp.access.secret import apart, hash_of
from webapp.flow.tenant import DEFAULT
from webapp.infra.broker import heartbeats
from webapp.jobs import search
from webapp.jobs.options import Terms
from webapp.outbound.signature import Purpose, secrets_of

JOB = {"payload": {"task": "noop"}}


@pytest.fixture
def tenants(app, engine):
    return made(app, engine, MINE, OTHER)


@pytest.fixture
def pair(app, tenants, handle):
    """Keys of two tenants, and one of the default one."""
    handle(lambda _payload, _context: None, queue=SHARED)
    return key_of(app, MINE), key_of(app, OTHER), key_of(app)


def said(result, code=0):
    assert result.exit_code == code, result.output
    return result.output


# ---- commands ----


def test_a_tenant_is_made_shown_suspended_and_resumed_by_commands(flask, app, client, engine):
    told = json.loads(said(flask("access", "tenant", "create", "acme", "--name", "ACME Ltd", "--json")))
    assert (told["slug"], told["name"], told["status"], told["keys"]) == ("acme", "ACME Ltd", "active", 0)
    with engine.begin() as connection:
        connection.execute(text("UPDATE tenants SET created_at = created_at - interval '1 minute'"))
    issued = json.loads(
        said(flask("access", "key", "create", "boss", "--role", "admin", "--tenant", "acme", "--json"))
    )
    headers = {"Authorization": f"Bearer {issued['secret']}"}
    app.extensions["doorkeeper"].book.forget()
    me = client.get("/access/me", headers=headers).json
    assert (me["tenant"], "access:manage" in me["scopes"], "metrics:read" in me["scopes"]) == (
        "acme",
        True,
        False,
    )
    assert "acme" in said(flask("access", "tenant", "list"))
    assert json.loads(said(flask("access", "tenant", "show", "acme", "--json")))["keys"] == 1
    assert (
        json.loads(said(flask("access", "key", "list", "--tenant", "acme", "--json")))["items"][0]["name"]
        == "boss"
    )

    assert json.loads(said(flask("access", "tenant", "suspend", "acme", "--json")))["status"] == "suspended"
    app.extensions["doorkeeper"].book.forget()
    refused = client.get("/access/me", headers=headers)
    assert (refused.status_code, refused.json["title"]) == (403, "Forbidden")
    assert "the tenant 'acme' is suspended" in refused.json["detail"]
    assert json.loads(said(flask("access", "tenant", "resume", "acme", "--json")))["suspended_at"] is None
    app.extensions["doorkeeper"].book.forget()
    assert client.get("/access/me", headers=headers).status_code == 200
    events = [one["event"] for one in json.loads(said(flask("audit", "list", "--json")))["items"]]
    assert events[:2] == ["tenant.resume", "tenant.suspend"]
    assert events[-1] == "tenant.create"


def test_a_tenants_signing_secrets_are_printed_for_its_receivers(flask, app, monkeypatch):
    given = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    changed = app.extensions["settings"].model_copy(update={"callback_secrets": SecretStr(given)})
    monkeypatch.setitem(app.extensions, "settings", changed)
    said(flask("access", "tenant", "create", "acme"))
    told = json.loads(said(flask("access", "tenant", "secrets", "acme", "--json")))
    assert told == {"callbacks": secrets_of([given], Purpose.CALLBACKS, "acme"), "http_jobs": []}
    assert given not in said(flask("access", "tenant", "secrets", "acme"))
    assert "none is set" in said(flask("access", "tenant", "secrets", "acme"))
    assert "there is no tenant 'none'" in said(flask("access", "tenant", "secrets", "none"), 4)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("create", "Acme"), 2, "slug"),
        (("create", "a" * 31), 2, "slug"),
        (("create", "a.b"), 2, "slug"),
        (("create", "default"), 1, "there is a tenant 'default' already"),
        (("show", "none"), 4, "there is no tenant 'none'"),
        (("suspend", "none"), 4, "there is no tenant 'none'"),
        (("suspend", "default"), 1, "the default tenant cannot be suspended"),
        (("quotas", "default", "max_cats=3"), 2, "max_queued"),
        (("quotas", "default", "max_queued=3"), 1, "bound its queues by max_depth"),
    ],
)
def test_what_cannot_be_done_with_a_tenant_is_said_in_a_sentence(flask, words, code, sentence):
    assert sentence in said(flask("access", "tenant", *words), code)


def test_a_tenant_is_not_made_beside_a_worker_of_a_release_that_keeps_none_apart(flask, redis):
    described = {"role": "worker@old", "queues": ["default"], "children": 2, "knows": ["limits"]}
    heartbeats.beat(redis, "old:1:x", 60, json.dumps(described))
    assert "once no worker of a release" in said(flask("access", "tenant", "create", "acme"), 1)
    heartbeats.beat(redis, "old:1:x", 60, json.dumps(described | {"knows": list(heartbeats.KNOWN)}))
    said(flask("access", "tenant", "create", "acme"))


def test_a_tenant_does_not_take_a_queue_that_others_may_use(flask, handle, engine):
    handle(lambda _payload, _context: None, queue="acme.mail")
    assert "acme.mail" in said(flask("access", "tenant", "create", "acme"), 1)
    queued(engine, queue="beta.video")
    assert "beta.video" in said(flask("access", "tenant", "create", "beta"), 1)


def test_a_tenants_first_key_comes_when_every_process_knows_the_tenant(app, monkeypatch):
    app.extensions["tenants"].create("acme", "acme", by=None)
    waited = []
    monkeypatch.setattr(access_service.time, "sleep", waited.append)
    app.extensions["access"].create(NewKey("x", Role.VIEWER, tenant="acme"), by=None)
    (seconds,) = waited
    assert 0 < seconds <= access_service.KEPT_APART_AFTER


# ---- keys of the API ----


def test_a_process_of_an_older_release_lets_no_one_in_with_a_tenants_key(app, engine, tenants):
    key = key_of(app, MINE)
    secret = key.shown["Authorization"].removeprefix("Bearer ")
    with engine.connect() as connection:
        hashes = {bytes(one) for one in connection.execute(text("SELECT hash FROM access_secrets")).scalars()}
    assert hashes == {apart(hash_of(secret))}
    assert app.extensions["access"].of_secret(secret)[0].id == key.key.id


def test_a_key_makes_keys_in_its_own_tenant_alone(pair, app):
    mine, theirs, ours = pair
    made_by_mine = mine("/access/keys", method="POST", json={"name": "robot", "role": "viewer"})
    assert (made_by_mine.status_code, made_by_mine.json["tenant"]) == (201, MINE)
    assert {one["tenant"] for one in mine("/access/keys").json["items"]} == {MINE}
    assert {one["tenant"] for one in theirs("/access/keys").json["items"]} == {OTHER}
    assert {one["tenant"] for one in ours("/access/keys").json["items"]} == {"default"}
    with pytest.raises(UnknownTenant):
        app.extensions["access"].create(NewKey("x", Role.VIEWER, tenant=OTHER), by=None, giver=mine.key.id)
    rotated = mine(f"/access/keys/{made_by_mine.json['id']}/rotate", method="POST")
    assert rotated.status_code == 200
    app.extensions["doorkeeper"].book.forget()
    headers = {"Authorization": f"Bearer {rotated.json['secret']}"}
    assert app.test_client().get("/access/me", headers=headers).json["tenant"] == MINE


# ---- keys of jobs ----


def test_an_idempotency_key_is_a_tenants_own(pair):
    answers = [
        key(
            "/jobs",
            method="POST",
            json={**JOB, "payload": {"task": "noop", "of": number}, "idempotency_key": "k" * 255},
        )
        for number, key in enumerate(pair)
    ]
    assert [one.status_code for one in answers] == [201] * 3
    assert {one.json["idempotency_key"] for one in answers} == {"k" * 255}
    again = pair[0](
        "/jobs",
        method="POST",
        json={**JOB, "payload": {"task": "noop", "of": 0}, "idempotency_key": "k" * 255},
    )
    assert (again.status_code, again.json["id"]) == (200, answers[0].json["id"])
    assert again.json["idempotency_key"] == "k" * 255
    reused = pair[0]("/jobs", method="POST", json={**JOB, "idempotency_key": "k" * 255})
    assert (reused.status_code, answers[0].json["id"] in reused.text, "\x1f" in reused.text) == (
        422,
        True,
        False,
    )


@pytest.mark.parametrize("on_conflict", ["return", "refuse", "replace"])
def test_a_unique_key_is_a_tenants_own(pair, on_conflict):
    asked = {**JOB, "unique": {"key": "u" * 200, "on_conflict": on_conflict}}
    first = [key("/jobs", method="POST", json=asked) for key in pair]
    assert [one.status_code for one in first] == [201] * 3
    second = [key("/jobs", method="POST", json=asked) for key in pair]
    for one, other in zip(first, second, strict=True):
        assert one.json["id"] in other.text
        assert "\\u001f" not in other.text
    shown = pair[0](f"/jobs/{first[0].json['id']}").json
    assert (shown["unique_key"], shown["tenant"]) == ("u" * 200, MINE)


def test_a_batch_of_a_tenant_has_its_own_keys(pair):
    items = [
        {**JOB, "idempotency_key": "a", "key": "customer"},
        {**JOB, "unique": {"key": "u"}},
        {**JOB, "payload": {"task": "noop", "other": 1}, "idempotency_key": "a"},
    ]
    for key in pair:
        answer = key("/jobs/batch", method="POST", json={"jobs": items}).json
        assert (answer["created"], answer["invalid"]) == (2, 1)
        assert "\\u001f" not in json.dumps(answer)
        again = key("/jobs/batch", method="POST", json={"jobs": items[:2]}).json
        assert (again["existing"], [one["id"] for one in again["items"]]) == (
            2,
            [one["id"] for one in answer["items"][:2]],
        )
        assert key("/jobs?key=customer").json["total"] == 1


def test_keys_of_jobs_lie_in_lanes_of_their_own(pair, engine):
    mine, theirs, ours = pair
    assert ours(f"/queues/{SHARED}", method="PUT", json={"keys": {"concurrency": 1}}).status_code == 200
    jobs = [key("/jobs", method="POST", json={**JOB, "queue": SHARED, "key": "k"}).json for key in pair]
    with engine.connect() as connection:
        lanes = connection.execute(text("SELECT count(DISTINCT lane) FROM jobs_living")).scalar()
    assert lanes == 3
    assert {one["key"] for one in jobs} == {"k"}
    for key in pair:
        figures = key(f"/queues/{SHARED}/keys/k").json
        assert (figures["key"], figures["waiting"]) == ("k", 1)
        ranked = key(f"/queues/{SHARED}/keys?order=waiting").json["items"]
        assert [(one["key"], one["waiting"]) for one in ranked] == [("k", 1)]
    assert mine(f"/queues/{SHARED}/keys/k", method="PUT", json={"paused": True}).status_code == 403
    assert (
        ours(f"/queues/{SHARED}/keys/k", method="PUT", json={"paused": True, "why": CANARY}).status_code
        == 200
    )
    assert CANARY not in theirs(f"/queues/{SHARED}/keys").text
    assert CANARY not in theirs(f"/jobs/{jobs[1]['id']}/explain").text


@pytest.mark.parametrize("field", ["idempotency_key", "key", "unique"])
def test_no_client_writes_what_keeps_tenants_apart(client, field):
    value = {"key": "\x1f7\x1fk"} if field == "unique" else "\x1f7\x1fk"
    answer = client.post("/jobs", json={**JOB, field: value})
    assert (answer.status_code, "must not begin with" in answer.text) == (422, True)
    assert client.get("/queues/default/keys/%1F7%1Fk").status_code == 422


# ---- what is made for a job ----


def test_a_callback_and_a_dead_letter_are_of_the_tenant_of_their_job(parts, engine, tenants, pair):
    mine, theirs, ours = pair
    job = completed(engine, f'"{CANARY}"', tenant=tenants[MINE], submitted_by=5)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET callback_url = 'https://example.org/hook' WHERE id = :id"), {"id": job.id}
        )
    assert delivering.run_callbacks(parts) == 1
    told = mine(f"/jobs/{row_of(engine, job.id).callback_job_id}").json
    assert (told["task"], told["tenant"], told["submitted_by"]) == ("http", MINE, 5)
    assert ours("/jobs").json["total"] == theirs("/jobs").json["total"] == 0
    dead_lettered(engine, tenant=tenants[MINE])
    assert [key("/dlq/letters").json["total"] for key in pair] == [1, 0, 0]
    assert mine("/dlq/requeue", method="POST", json={"all": True}).json["changed"] == 1


def test_a_handler_may_ask_whose_job_it_runs(engine, tenants):
    assert _tenant_of(engine, claimed(engine, tenant=tenants[MINE]).id) == MINE
    assert _tenant_of(engine, claimed(engine).id) == "default"
    assert _tenant_of(engine, uuid4()) == "default"


def test_lines_of_a_tenants_requests_say_whose_they_are(pair, caplog):
    with caplog.at_level(logging.INFO):
        job = pair[0]("/jobs", method="POST", json=JOB).json
        pair[0](f"/jobs/{job['id']}/cancel", method="POST")
    assert "job's cancellation was asked" in caplog.text


# ---- lists ----


def test_the_total_of_many_jobs_tells_nothing_of_other_tenants(pair, engine, tenants, monkeypatch):
    monkeypatch.setattr(search, "COUNTED_UP_TO", 3)
    for number in range(6):
        queued(engine, tenant=tenants[MINE], queue=SHARED, terms=Terms(tags=(f"t{number}",)))
    before = pair[0]("/jobs").json
    for _ in range(20):
        queued(engine, tenant=tenants[OTHER], queue=SHARED)
        queued(engine, queue=SHARED)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE jobs_living"))
    assert pair[0]("/jobs").json == before


def test_pages_of_one_tenant_follow_each_other(pair, engine, tenants):
    wanted = []
    for number in range(30):
        wanted.append(queued(engine, tenant=tenants[MINE], queue=SHARED))
        for other in (tenants[OTHER], DEFAULT):
            (completed if number % 2 else queued)(engine, tenant=other, queue=SHARED)
    for key, number in zip(pair, (30, 30, 30), strict=True):
        found, cursor = [], None
        while True:
            page = key("/jobs?limit=7" + (f"&cursor={cursor}" if cursor else "")).json
            found += page["items"]
            assert page["total"] == number
            if (cursor := page["next_cursor"]) is None:
                break
        assert len({one["id"] for one in found}) == len(found) == number
    assert [key("/jobs?status=queued").json["total"] for key in pair] == [30, 15, 15]


def test_a_list_of_one_tenant_among_many_rows_of_others_reads_its_own_alone(engine, tenants):
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 60000"))
        connection.execute(
            text("""
                INSERT INTO jobs_living (id, task, payload, queue, max_retries, timeout, fingerprint)
                SELECT gen_random_uuid(), 'noop', '{}', 'default', 3, 300, 'f' FROM generate_series(1, 20000)""")
        )
    for _ in range(5):
        queued(engine, tenant=tenants[MINE])
    with engine.connect() as connection:
        plan = "\n".join(
            connection.execute(
                text(f"""EXPLAIN SELECT id FROM jobs_living WHERE tenant_id <> 1 AND tenant_id >= {tenants[MINE].id}
                         AND tenant_id <= {tenants[MINE].id} ORDER BY tenant_id DESC, id DESC LIMIT 20""")  # noqa: S608
            ).scalars()
        )
    assert "jobs_by_tenant" in plan


def test_the_default_tenants_list_passes_over_what_others_have(pair, engine, tenants):
    for _ in range(3):
        queued(engine, queue=SHARED)
    for _ in range(250):
        queued(engine, tenant=tenants[OTHER], queue=SHARED)
    page = pair[2]("/jobs?limit=2").json
    assert (len(page["items"]), page["total"], page["total_is_estimate"]) == (2, 3, False)


# ---- quotas ----


def test_all_keys_of_a_tenant_share_its_quotas(app, pair, flask):
    said(flask("access", "tenant", "quotas", MINE, "submit_per_minute=3"))
    app.extensions["doorkeeper"].book.forget()
    second = key_of(app, MINE, role=Role.OPERATOR)
    assert [key("/jobs", method="POST", json=JOB).status_code for key in (pair[0], second, pair[0])] == [
        201
    ] * 3
    refused = second("/jobs", method="POST", json=JOB)
    assert (refused.status_code, refused.json["quota"], "the tenant's quota" in refused.json["detail"]) == (
        429,
        "submit_per_minute",
        True,
    )
    assert pair[1]("/jobs", method="POST", json=JOB).status_code == 201


def test_a_tenant_has_so_many_jobs_waiting_and_no_more(app, pair, engine, tenants):
    app.extensions["tenants"].set_quotas(MINE, Quotas(max_queued=5), by=None)
    app.extensions["doorkeeper"].book.forget()
    looks = app.extensions["queued_looks"]
    mine = pair[0]
    assert mine("/jobs/batch", method="POST", json={"jobs": [JOB] * 3}).status_code == 200
    assert [mine("/jobs", method="POST", json=JOB).status_code for _ in range(2)] == [201] * 2
    refused = mine("/jobs", method="POST", json=JOB)
    problem = refused.json
    assert (refused.status_code, problem["type"], problem["quota"], problem["limit"], problem["used"]) == (
        429,
        "quota",
        "max_queued",
        5,
        5,
    )
    assert int(refused.headers["Retry-After"]) >= 1
    never = mine("/jobs/batch", method="POST", json={"jobs": [JOB] * 6})
    assert (never.status_code, "Retry-After" in never.headers) == (429, False)
    assert pair[1]("/jobs", method="POST", json=JOB).status_code == 201
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM jobs_living WHERE tenant_id = :id"), {"id": tenants[MINE].id})
    look = looks._looks[tenants[MINE].id]
    looks._looks[tenants[MINE].id] = type(look)(look.at - LOOK_EVERY, look.waiting, look.let_in)
    assert mine("/jobs", method="POST", json=JOB).status_code == 201


def test_jobs_of_tenants_are_counted_for_metrics(client, app, engine, tenants):
    filled(engine, tenants[MINE], SHARED)
    told = client.get("/metrics").text
    assert f'djps_tenant_jobs{{status="queued",tenant="{MINE}"}} 1.0' in told
    assert f'djps_tenant_jobs{{status="processing",tenant="{MINE}"}} 1.0' in told
    assert f'djps_tenant_jobs{{status="queued",tenant="{OTHER}"}} 0.0' in told
