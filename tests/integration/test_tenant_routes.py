"""Every view of the application, and what a tenant's key learns by it of another tenant: a view that is not in the table here fails."""

from __future__ import annotations

import json
import re

import pytest
from factories import tables
from several_tenants import CANARY, MINE, OTHER, SHARED, filled, key_of, made, without_names
from uuid_utils.compat import uuid7

from webapp.access.model import Scope
from webapp.flow.tenant import DEFAULT

OWN, THEIRS, NOWHERE = f"{MINE}.mail", f"{OTHER}.mail", "nowhere.mail"

#: What each view is to a tenant's key, by its endpoint. A new view belongs in one of these; where it names, counts or touches
#: something of a tenant, it takes the caller's reach.
VIEWS = {
    "a job of another tenant is not there": {
        *("following.show", "following.events"),
        *("control.cancel", "control.retry", "control.attempts", "control.explain"),
        *("job_logs.logs", "dlq.requeue_one", "dlq.discard_one"),
    },
    "a batch of another tenant is not there": {
        *("batch_following.show", "batch_following.events", "batches.members", "batches.add"),
        *("batches.close", "batches.cancel", "batches.retry", "batches.explain"),
    },
    "a workflow of another tenant is not there": {
        *("workflows.one", "workflows.events", "workflows.graph", "workflows.explain"),
        *("workflows.steps", "workflows.step", "workflows.cancel", "workflows.retry"),
    },
    "a queue of another tenant is not there": {
        *("flow.queue", "flow.limit_queue", "flow.unlimit_queue", "flow.pause_queue", "flow.resume_queue"),
        *("queue_keys.page", "queue_keys.one", "queue_keys.put", "queue_keys.forget"),
    },
    "its answer is the same whatever other tenants have": {
        *(
            "jobs.index",
            "dlq.index",
            "dlq.letters",
            "dlq.groups",
            "dlq.history",
            "dlq.requeue_many",
            "dlq.discard_many",
        ),
        *("flow.queues", "flow.changes", "audit.index", "access.index", "batches.index"),
        "workflows.index",
    },
    "a queue of another tenant takes nothing from it": {
        *("jobs.submit", "batch.submit_many", "batches.create", "workflows.submit"),
    },
    "what tenants share is not changed": {
        *("flow.limit_task", "flow.unlimit_task", "flow.pause_task", "flow.resume_task"),
    },
    "a key of another tenant is not there": {
        *("access.one", "access.rotate", "access.set_quotas", "access.revoke"),
    },
    "it is about all tenants, so refused": {
        *("metrics.exposition", "figures.overview", "figures.series"),
        *("system.index", "system.one", "system.settings", "system.system"),
    },
    "it is the default tenant's alone, so refused": {
        *("schedules.index", "schedules.one", "schedules.put", "schedules.delete", "schedules.pause"),
        *("schedules.resume", "schedules.run", "schedules.backfill", "schedules.firings"),
        *("schedules.versions", "schedules.next_times", "schedules.explain", "schedules.preview"),
    },
    "it is about no tenant, or the caller's own": {
        *("flow.tasks", "flow.task", "access.me", "access.create"),
        *("health.alive", "health.ready", "index.index", "openapi.openapi"),
        *("docs.page", "docs.start", "docs.file"),
    },
}
_JOB = {"payload": {"task": "noop"}, "queue": THEIRS}
#: What is sent to those that take something.
BODIES = {
    "jobs.submit": _JOB,
    "batch.submit_many": {"jobs": [_JOB]},
    "batches.create": {"on_complete": _JOB},
    "batches.add": {"part": "a", "jobs": [_JOB]},
    "workflows.submit": {"steps": {"a": _JOB}},
    "flow.limit_queue": {"concurrency": 1},
    "flow.limit_task": {"concurrency": 1},
    "queue_keys.put": {"paused": True},
    "dlq.requeue_many": {"all": True, "dry_run": True},
    "dlq.discard_many": {"all": True, "dry_run": True},
    "access.create": {"name": "robot", "role": "viewer"},
    "access.set_quotas": {"max_waiters": 3},
}


@pytest.fixture
def guarded(another_app, handle):
    """An application that asks for keys, with queues of two tenants."""
    app = another_app(api_auth="keys")
    app.tenants = made(app, _engine(app), MINE, OTHER)
    for queue in (OWN, THEIRS, SHARED):
        handle(lambda _payload, _context: None, queue=queue)
    return app


def _engine(app):
    with app.app_context():
        return app.extensions["sqlalchemy"].engine


@pytest.fixture
def ask(guarded):
    """Sends what a view takes, with a key of one tenant that has every scope."""
    key = key_of(guarded, MINE, role=None, scopes=tuple(Scope))

    def send(rule, method, **given):
        of_path = {
            "job_id": uuid7(),
            "queue": THEIRS,
            "key": CANARY,
            "task": "noop",
            "number": 1,
            "name": "x.js",
            "workflow_id": uuid7(),
            "step": CANARY,
            "schedule": "nightly",
            "batch_id": uuid7(),
            "worker": "vm:1:0",
        }
        of_path |= given
        path = re.sub(r"<(?:[a-z]+:)?([a-z_]+)>", lambda one: str(of_path[one[1]]), rule.rule)
        body = json.dumps(BODIES.get(rule.endpoint)).replace(THEIRS, of_path["queue"])
        sent = {} if body == "null" else {"data": body, "content_type": "application/json"}
        return key(path, method=method, **sent)

    send.key = key
    return send


@pytest.fixture
def held(engine, guarded):
    """Fills what another tenant and the default one have: jobs in each state, in queues of its own and shared ones; pauses, keys, acts."""
    theirs, ours = key_of(guarded, OTHER), key_of(guarded)

    def fill():
        jobs = [
            *filled(engine, guarded.tenants[OTHER], THEIRS),
            *filled(engine, guarded.tenants[OTHER], SHARED),
        ]
        for path, method, body in (
            (f"/queues/{THEIRS}/pause", "POST", {"why": CANARY}),
            (f"/queues/{THEIRS}/keys/{CANARY}", "PUT", {"concurrency": 1, "why": CANARY}),
            ("/access/keys", "POST", {"name": CANARY, "role": "viewer"}),
            ("/batches", "POST", {"name": CANARY, "jobs": [{"payload": {"task": "noop", "card": CANARY}}]}),
        ):
            answer = theirs(path, method=method, json=body)
            assert answer.status_code < 300, answer.text
        fill.batch = answer.json["id"]
        answer = ours("/access/keys", method="POST", json={"name": CANARY, "role": "viewer"})
        assert answer.status_code == 201, answer.text
        workflow = {"name": CANARY, "steps": {CANARY: {"payload": {"task": "noop", "card": CANARY}}}}
        fill.workflow = theirs("/workflows", method="POST", json=workflow).json["id"]
        return jobs

    fill.key = theirs.key
    return fill


def called(app, kind):
    """The rules and methods of the views of one kind."""
    return [
        (rule, method)
        for rule in app.url_map.iter_rules()
        if rule.endpoint in VIEWS[kind]
        for method in sorted(rule.methods - {"HEAD", "OPTIONS"})
    ]


def test_every_view_is_in_the_table_once(guarded):
    told = [endpoint for endpoints in VIEWS.values() for endpoint in endpoints]
    assert sorted(told) == sorted(guarded.view_functions)


def test_no_view_names_or_changes_what_belongs_to_another_tenant(guarded, ask, held, engine):
    jobs = held()
    named = {str(job.id) for job in jobs}
    before = tables(engine)
    for kind in VIEWS:
        for rule, method in called(guarded, kind):
            for job in jobs:
                given = {"number": held.key.id, "batch_id": held.batch, "workflow_id": held.workflow}
                answer = ask(rule, method, job_id=job.id, **given)
                # A path that was asked for may be said again.
                told = answer.text.replace(str(job.id), "").replace(f"/keys/{CANARY}", "")
                assert not [word for word in (CANARY, *named) if word in told], (method, rule, told)
                if "job_id" not in rule.arguments:
                    break
    assert tables(engine) == before


def test_a_view_of_one_job_answers_as_for_one_that_is_not_there(guarded, ask, held):
    jobs = held()
    for rule, method in called(guarded, "a job of another tenant is not there"):
        unknown = ask(rule, method)
        assert unknown.status_code == 404, (rule, unknown.text)
        for job in jobs:
            assert without_names(ask(rule, method, job_id=job.id)) == without_names(unknown), (method, rule)


def test_a_view_of_one_batch_answers_as_for_one_that_is_not_there(guarded, ask, held):
    held()
    for rule, method in called(guarded, "a batch of another tenant is not there"):
        unknown = ask(rule, method)
        assert unknown.status_code == 404, (rule, unknown.text)
        theirs = ask(rule, method, batch_id=held.batch)
        assert without_names(theirs) == without_names(unknown), (method, rule)


def test_a_view_of_one_workflow_answers_as_for_one_that_is_not_there(guarded, ask, held):
    held()
    for rule, method in called(guarded, "a workflow of another tenant is not there"):
        unknown = ask(rule, method)
        assert unknown.status_code == 404, (rule, unknown.text)
        theirs = ask(rule, method, workflow_id=held.workflow)
        assert without_names(theirs) == without_names(unknown), (method, rule)


def test_a_view_of_one_queue_answers_as_for_one_that_is_not_there(guarded, ask, held):
    held()
    for rule, method in called(guarded, "a queue of another tenant is not there"):
        unknown = ask(rule, method, queue=NOWHERE)
        assert unknown.status_code == 404, (rule, unknown.text)
        assert without_names(ask(rule, method), THEIRS) == without_names(unknown, NOWHERE), (method, rule)


def test_a_view_of_many_answers_the_same_whatever_other_tenants_have(guarded, ask, held, engine):
    filled(engine, guarded.tenants[MINE], SHARED, "mine")
    filled(engine, guarded.tenants[MINE], OWN, "mine")
    kind = "its answer is the same whatever other tenants have"
    before = [ask(rule, method) for rule, method in called(guarded, kind)]
    held()
    after = [ask(rule, method) for rule, method in called(guarded, kind)]
    assert [one.status_code for one in after] == [200] * len(VIEWS[kind])
    timeless = re.compile(r'"(oldest_due_seconds|last_used_at|last_used_from)":[^,}]*')
    for one, other in zip(before, after, strict=True):
        assert timeless.sub("", one.text) == timeless.sub("", other.text)


@pytest.mark.parametrize(
    "path",
    [
        *("/jobs?status=queued", "/jobs?status=completed", "/jobs?status=processing", "/jobs?task=noop"),
        *(
            f"/jobs?tag={CANARY}",
            f"/jobs?queue={SHARED}",
            f'/jobs?payload={{"card":"{CANARY}"}}',
            f"/jobs?key={CANARY}",
        ),
        *(
            f"/dlq?queue={SHARED}",
            f"/dlq/letters?queue={SHARED}",
            "/dlq/letters?state=all",
            f"/queues/{SHARED}",
        ),
        *(
            f"/queues/{SHARED}/keys",
            f"/queues/{SHARED}/keys?order=waiting",
            f"/queues/{SHARED}/keys?order=running",
        ),
        f"/queues/{SHARED}/keys/{CANARY}",
    ],
)
def test_no_list_number_or_search_knows_of_other_tenants(guarded, ask, held, engine, path):
    filled(engine, guarded.tenants[MINE], SHARED, "mine")
    before = ask.key(path)
    assert before.status_code == 200, before.text
    held()
    after = ask.key(path)
    seconds = re.compile(r'"oldest_due_seconds":[^,}]*')
    assert seconds.sub("", after.text) == seconds.sub("", before.text)
    if f"keys/{CANARY}" not in path:
        assert CANARY not in after.text


def test_a_view_that_takes_jobs_takes_none_for_a_queue_of_another_tenant_and_does_not_say_that_there_is_one(
    guarded, ask, held, engine
):
    held()
    before = tables(engine)
    for rule, method in called(guarded, "a queue of another tenant takes nothing from it"):
        theirs, none = ask(rule, method), ask(rule, method, queue=NOWHERE)
        assert "must be one that workers listen to" in theirs.text
        assert without_names(theirs, THEIRS) == without_names(none, NOWHERE), (method, rule)
        assert OTHER not in theirs.text.replace(THEIRS, "")
    assert tables(engine) == before


def test_a_view_of_what_tenants_share_changes_nothing_of_it(guarded, ask):
    for rule, method in called(guarded, "what tenants share is not changed"):
        assert ask(rule, method).status_code == 403, (method, rule)
    for rule, method in called(guarded, "a queue of another tenant is not there"):
        if method != "GET":
            answer = ask(rule, method, queue=SHARED)
            assert (answer.status_code, "is shared by tenants" in answer.text) == (403, True), (method, rule)


def test_a_view_of_a_key_answers_as_for_one_that_is_not_there(guarded, ask, held):
    held()
    for rule, method in called(guarded, "a key of another tenant is not there"):
        theirs, none = ask(rule, method, number=held.key.id), ask(rule, method, number=99_999)
        assert none.status_code == 404, none.text
        assert without_names(theirs, str(held.key.id)) == without_names(none, "99999"), (method, rule)


@pytest.mark.parametrize(
    "which", ["it is about all tenants, so refused", "it is the default tenant's alone, so refused"]
)
def test_a_view_that_is_no_tenants_own_refuses(guarded, ask, which):
    for rule, method in called(guarded, which):
        assert ask(rule, method).status_code == 403, (method, rule)


def test_a_tenant_steers_and_sees_what_is_its_own(guarded, ask, engine):
    jobs = filled(engine, guarded.tenants[MINE], OWN, "mine")
    listed = ask.key("/jobs").json
    assert {one["id"] for one in listed["items"]} == {str(job.id) for job in jobs}
    assert {(one["tenant"], one["key"], one["submitted_by"]) for one in listed["items"]} == {
        (MINE, "mine", 41)
    }
    assert ask.key(f"/queues/{OWN}/pause", method="POST", json={"why": "mine"}).json["paused"]
    assert ask.key("/flow/changes").json["items"][0]["target"] == f"queues/{OWN}"
    assert ask.key(f"/jobs/{jobs[0].id}/cancel", method="POST").json["tenant"] == MINE
    assert {one["tenant"] for one in ask.key("/audit").json["items"]} == {MINE}


def test_one_of_whom_no_key_is_asked_is_of_the_default_tenant(app, engine, client):
    tenants = made(app, engine, MINE)
    theirs, ours = filled(engine, tenants[MINE], SHARED), filled(engine, DEFAULT, SHARED, "ours")
    assert client.get(f"/jobs/{theirs[0].id}").status_code == 404
    assert {one["id"] for one in client.get("/jobs").json["items"]} == {str(job.id) for job in ours}
    assert client.get("/dlq/letters").json["total"] == 1
    (queue,) = [one for one in client.get("/queues").json["items"] if one["name"] == SHARED]
    assert (queue["waiting"], queue["running"]) == (1, 1)
