"""Every view of the application, and what a key of queues learns by it: one that is not in the table here fails."""

from __future__ import annotations

import json
import re
from functools import partial

import pytest
from factories import claimed, completed, dead_lettered, queued, tables
from uuid_utils.compat import uuid7

from webapp.access.model import OF_ALL_QUEUES, NewKey, Scope
from webapp.api.needs import needs_of
from webapp.jobs.options import Terms

#: What stands in all that belongs to another queue.
CANARY = "canary-7310"
MINE, OTHER, UNKNOWN = "video", "billing", "nowhere"

#: A schedule of another queue.
SCHEDULE = "of-billing"
#: What each view is to a key of queues, by its endpoint. A new view belongs in one of these; where it names, counts or touches
#: jobs, it takes the caller's reach.
VIEWS = {
    "a job of another queue is not there": {
        *("following.show", "following.events"),
        *("control.cancel", "control.retry", "control.attempts", "control.explain"),
        "job_logs.logs",
        *("dlq.requeue_one", "dlq.discard_one"),
    },
    "a workflow of another queue is not there": {
        *("workflows.one", "workflows.events", "workflows.graph", "workflows.explain"),
        *("workflows.steps", "workflows.step", "workflows.cancel", "workflows.retry"),
    },
    "a schedule of another queue is not there": {
        *("schedules.one", "schedules.delete", "schedules.pause", "schedules.resume", "schedules.run"),
        *("schedules.backfill", "schedules.firings", "schedules.versions", "schedules.next_times"),
        "schedules.explain",
    },
    "a batch of another key is not there": {
        *("batch_following.show", "batch_following.events", "batches.members", "batches.add"),
        *("batches.close", "batches.cancel", "batches.retry", "batches.explain"),
    },
    "another queue is not there": {
        *("flow.queue", "flow.limit_queue", "flow.unlimit_queue", "flow.pause_queue", "flow.resume_queue"),
        *("queue_keys.page", "queue_keys.one", "queue_keys.put", "queue_keys.forget"),
    },
    "its answer is the same whatever other queues hold": {
        *("jobs.index", "dlq.index", "dlq.letters", "dlq.groups", "dlq.history"),
        *("flow.queues", "flow.changes", "dlq.requeue_many", "dlq.discard_many", "schedules.index"),
        *("batches.index", "workflows.index"),
    },
    "another queue takes nothing from it": {
        *("jobs.submit", "batch.submit_many", "schedules.put", "batches.create", "workflows.submit"),
    },
    "what runs in all queues is not changed": {
        *("flow.limit_task", "flow.unlimit_task", "flow.pause_task", "flow.resume_task"),
    },
    "it is about all queues, so refused": {
        *("audit.index", "metrics.exposition"),
        *("figures.overview", "figures.series"),
        *("system.index", "system.one", "system.settings", "system.system"),
        *(
            "access.index",
            "access.create",
            "access.one",
            "access.rotate",
            "access.set_quotas",
            "access.revoke",
        ),
    },
    "it is about no job": {
        *("flow.tasks", "flow.task", "access.me", "schedules.preview"),
        *("health.alive", "health.ready", "index.index", "openapi.openapi"),
        *("docs.page", "docs.start", "docs.file"),
    },
}
_JOB = {"payload": {"task": "noop"}, "queue": OTHER}
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
    "schedules.put": {"every": 60, "job": _JOB},
    "schedules.backfill": {"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:02:00Z"},
    "schedules.preview": {"every": 60},
    "dlq.requeue_many": {"all": True, "dry_run": True},
    "dlq.discard_many": {"all": True, "dry_run": True},
    "access.create": {"name": "robot", "role": "viewer"},
}


@pytest.fixture
def guarded(another_app):
    """An application that asks for keys."""
    return another_app(api_auth="keys")


@pytest.fixture
def ask(guarded):
    """Sends what a view takes, with a key of one queue that has every scope which such a key may have."""
    may = tuple(scope for scope in Scope if scope not in OF_ALL_QUEUES)
    issued = guarded.extensions["access"].create(NewKey("a test's", None, may, queues=(MINE,)), by=None)
    guarded.extensions["doorkeeper"].book.forget()
    client, headers = guarded.test_client(), {"Authorization": f"Bearer {issued.secret}"}

    def send(rule, method, **given):
        of_path = {
            "job_id": uuid7(),
            "queue": OTHER,
            "key": CANARY,
            "task": "noop",
            "number": 1,
            "name": "x.js",
            "workflow_id": uuid7(),
            "step": CANARY,
            "schedule": SCHEDULE,
            "worker": "vm:1:0",
            "batch_id": uuid7(),
        }
        of_path |= given
        path = re.sub(r"<(?:[a-z]+:)?([a-z_]+)>", lambda one: str(of_path[one[1]]), rule.rule)
        body = json.dumps(BODIES.get(rule.endpoint)).replace(OTHER, of_path["queue"])
        sent = {} if body == "null" else {"data": body, "content_type": "application/json"}
        return client.open(path, method=method, headers=headers, **sent)

    return send


@pytest.fixture
def held(engine, guarded, handle):
    """Fills another queue with a job in each state, a pause and a key's limits; gives the jobs."""
    handle(lambda _payload, _context: None, queue=OTHER)
    handle(lambda _payload, _context: None, queue=MINE)
    boss = guarded.extensions["access"].create(NewKey("boss", None, tuple(Scope)), by=None)
    guarded.extensions["doorkeeper"].book.forget()
    send = partial(guarded.test_client().open, headers={"Authorization": f"Bearer {boss.secret}"})

    def fill():
        carried = {"queue": OTHER, "payload": {"card": CANARY}, "terms": Terms(tags=(CANARY,), key=CANARY)}
        jobs = [queued(engine, **carried), completed(engine, f'"{CANARY}"', **carried)]
        jobs += [dead_lettered(engine, **carried), claimed(engine, **carried)]
        of_other = {"payload": {"task": "noop", "card": CANARY}, "queue": OTHER, "tags": [CANARY]}
        schedule = {"every": 60, "job": of_other, "why": CANARY}
        for path, method, body in (
            (f"/queues/{OTHER}/pause", "POST", {"why": CANARY}),
            (f"/queues/{OTHER}/keys/{CANARY}", "PUT", {"concurrency": 1, "why": CANARY}),
            (f"/schedules/{SCHEDULE}", "PUT", schedule),
            (f"/schedules/{SCHEDULE}/run", "POST", {"why": CANARY}),
            ("/batches", "POST", {"name": CANARY, "jobs": [of_other], "on_complete": of_other}),
        ):
            answer = send(path, method=method, json=body)
            assert answer.status_code in {200, 201}, answer.text
        fill.batch = answer.json["id"]
        workflow = {"name": CANARY, "steps": {CANARY: of_other, "b": {"payload": {"task": "noop"}}}}
        fill.workflow = send("/workflows", method="POST", json=workflow).json["id"]
        return jobs

    return fill


def called(app, kind):
    """The rules and methods of the views of one kind."""
    return [
        (rule, method)
        for rule in app.url_map.iter_rules()
        if rule.endpoint in VIEWS[kind]
        for method in sorted(rule.methods - {"HEAD", "OPTIONS"})
    ]


def without_names(answer):
    """An answer, without what names the request, the job and the queue."""
    words = re.sub(rf"[0-9a-f]{{8}}-[0-9a-f-]{{27}}|\b({OTHER}|{UNKNOWN})\b", "NAME", answer.text)
    return answer.status_code, words, set(answer.headers.keys())


def test_every_view_is_in_the_table_once(guarded):
    told = [endpoint for endpoints in VIEWS.values() for endpoint in endpoints]
    assert sorted(told) == sorted(guarded.view_functions)
    refused = {endpoint for endpoint, need in needs_of(guarded).items() if need in OF_ALL_QUEUES}
    assert refused == VIEWS["it is about all queues, so refused"]


def test_no_view_names_or_changes_what_belongs_to_another_queue(guarded, ask, held, engine):
    jobs = held()
    named = {str(job.id) for job in jobs}
    before = tables(engine)
    for kind in VIEWS:
        for rule, method in called(guarded, kind):
            for job in jobs:
                given = {"job_id": job.id, "batch_id": held.batch, "workflow_id": held.workflow}
                answer = ask(rule, method, **given)
                # A path that was asked for may be said again.
                told = answer.text.replace(str(job.id), "").replace(f"/keys/{CANARY}", "")
                assert not [word for word in (CANARY, *named) if word in told], (method, rule, told)
                if "job_id" not in rule.arguments:
                    break
    assert tables(engine) == before


def test_a_view_of_one_job_answers_as_for_one_that_is_not_there(guarded, ask, held):
    jobs = held()
    for rule, method in called(guarded, "a job of another queue is not there"):
        unknown = ask(rule, method)
        assert unknown.status_code == 404, (rule, unknown.text)
        for job in jobs:
            assert without_names(ask(rule, method, job_id=job.id)) == without_names(unknown), (method, rule)


def test_a_view_of_one_batch_answers_as_for_one_that_is_not_there(guarded, ask, held):
    held()
    for rule, method in called(guarded, "a batch of another key is not there"):
        unknown = ask(rule, method)
        assert unknown.status_code == 404, (rule, unknown.text)
        theirs = ask(rule, method, batch_id=held.batch)
        assert without_names(theirs) == without_names(unknown), (method, rule)


def test_a_view_of_one_workflow_answers_as_for_one_that_is_not_there(guarded, ask, held):
    held()
    for rule, method in called(guarded, "a workflow of another queue is not there"):
        unknown = ask(rule, method)
        assert unknown.status_code == 404, (rule, unknown.text)
        theirs = ask(rule, method, workflow_id=held.workflow)
        assert without_names(theirs) == without_names(unknown), (method, rule)


def test_a_view_of_one_schedule_answers_as_for_one_that_is_not_there(guarded, ask, held):
    held()
    for rule, method in called(guarded, "a schedule of another queue is not there"):
        unknown = ask(rule, method, schedule="of-nowhere")
        assert unknown.status_code == 404, (rule, unknown.text)
        told = without_names(ask(rule, method))
        assert (told[0], told[1].replace(SCHEDULE, "of-nowhere"), told[2]) == without_names(unknown), (
            method,
            rule,
        )


def test_a_view_of_one_queue_answers_as_for_one_that_is_not_there(guarded, ask, held):
    held()
    for rule, method in called(guarded, "another queue is not there"):
        unknown = ask(rule, method, queue=UNKNOWN)
        assert unknown.status_code == 404, (rule, unknown.text)
        assert without_names(ask(rule, method)) == without_names(unknown), (method, rule)


def test_a_view_of_many_answers_the_same_whatever_other_queues_hold(guarded, ask, held):
    kind = "its answer is the same whatever other queues hold"
    before = [ask(rule, method) for rule, method in called(guarded, kind)]
    held()
    after = [ask(rule, method) for rule, method in called(guarded, kind)]
    assert [one.status_code for one in after] == [200] * len(VIEWS[kind])
    assert [one.json for one in after] == [one.json for one in before]


def test_a_view_that_takes_jobs_takes_none_for_another_queue_and_does_not_say_whether_there_is_one(
    guarded, ask, held, engine
):
    held()
    before = tables(engine)
    for rule, method in called(guarded, "another queue takes nothing from it"):
        theirs, none = ask(rule, method), ask(rule, method, queue=UNKNOWN)
        assert "is not one of this key's" in theirs.text
        assert without_names(theirs) == without_names(none), (method, rule)
    assert tables(engine) == before


@pytest.mark.parametrize(
    "kind", ["what runs in all queues is not changed", "it is about all queues, so refused"]
)
def test_a_view_about_all_queues_refuses(guarded, ask, kind):
    for rule, method in called(guarded, kind):
        assert ask(rule, method).status_code == 403, (method, rule)
