"""Workflows over HTTP: what is taken, what is refused with one sentence, how they are looked at and followed."""

from __future__ import annotations

import json
import threading
from uuid import UUID, uuid4

import pytest
from ending import complete
from flowing import NOOP, claim, count, done, failed, get, job_of, stand, step, submit
from pydantic import BaseModel
from several_tenants import key_of
from several_tenants import made as made_of
from uuid_utils.compat import uuid7

from tasks.attempt.results import Kept
from tasks.attempt.settle import settle_completed
from tasks.runtime import runtime
from webapp.access.model import NewKey, Scope

LINE = {"a": step(), "b": step("a")}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "steps"),
        ({"steps": {}}, "steps"),
        ({"steps": LINE, "colour": "red"}, "colour"),
        ({"steps": {"a": step("b"), "b": step("a")}}, "steps.a.after"),
        ({"steps": {"a": step("b")}}, "steps.a.after.0"),
        ({"steps": {"a": step("a")}}, "steps.a.after.0"),
        ({"steps": {"-a": step()}}, "steps.-a.[key]"),
        ({"steps": {"a": {"payload": NOOP, "when": "later"}}}, "steps.a.when"),
        ({"steps": {"a": {"after": []}}}, "steps.a.workflow"),
        ({"steps": {"a": step(on_failure="retry")}}, "steps.a.on_failure"),
        ({"steps": {"a": step(queue="nowhere")}}, "steps.a.queue"),
        ({"steps": {"a": {"payload": {"task": "http", "url": 7}}}}, "steps.a.payload.url"),
        ({"steps": LINE | {"c": step(inputs={"x": {"step": "a"}})}}, "steps.c.inputs.x.step"),
        ({"steps": LINE | {"c": step("a", inputs={"x": {"step": "a", "pointer": "x"}})}}, "steps.c.inputs.x.pointer"),
        ({"steps": LINE | {"c": step("a", inputs={"task": {"step": "a"}})}}, "steps.c.inputs.task"),
        ({"steps": {"a": step(unique={"key": "k"})}}, "steps.a.unique"),
        ({"steps": LINE, "on_complete": {"payload": {"workflow": 1}}}, "on_complete.payload.workflow"),
        ({"steps": LINE, "deadline": "2020-01-01T00:00:00Z"}, "deadline"),
        ({"steps": LINE, "callback_url": "ftp://x"}, "callback_url"),
        ({"steps": {"a": step(compensate={"payload": NOOP, "queue": "nowhere"})}}, "steps.a.compensate.queue"),
        ({"steps": {f"s{n}": step() for n in range(1_001)}}, "steps"),
    ],
)  # fmt: skip
def test_a_field_that_breaks_a_rule_is_named_and_nothing_is_stored(client, engine, body, field):
    refused = client.post("/workflows", json=body)
    assert refused.status_code == 422, refused.text
    assert refused.json["errors"][0]["field"] == field
    assert count(engine, "SELECT count(*) FROM groups") + count(engine, "SELECT count(*) FROM jobs") == 0


def test_a_circle_is_said_with_its_path(client):
    refused = client.post(
        "/workflows", json={"steps": {"a": step("c"), "b": step("a"), "c": step("b"), "d": step("a")}}
    )
    assert "in a circle" in refused.json["detail"]
    assert refused.json["detail"].count("->") == 3


def test_an_input_that_comes_later_is_not_judged_now_and_the_rest_is(client, handle):
    class Wanted(BaseModel):
        rows: int
        name: str

    name = handle(lambda _payload, _context: None, model=Wanted)
    good = {
        "a": step(),
        "b": step("a", inputs={"rows": {"step": "a"}}) | {"payload": {"task": name, "name": "x"}},
    }
    assert client.post("/workflows", json={"steps": good}).status_code == 201
    bad = {
        "a": step(),
        "b": step("a", inputs={"rows": {"step": "a"}}) | {"payload": {"task": name, "name": 7}},
    }
    refused = client.post("/workflows", json={"steps": bad})
    assert (
        refused.status_code,
        "steps.b.payload.name" in {one["field"] for one in refused.json["errors"]},
    ) == (422, True)


def test_a_payload_that_its_handler_refuses_with_its_input_fails_the_step(client, engine, handle):
    class Wanted(BaseModel):
        rows: int

    name = handle(lambda _payload, _context: None, model=Wanted)
    steps = {"a": step(), "b": step("a", inputs={"rows": {"step": "a"}}) | {"payload": {"task": name}}}
    number = submit(client, steps)
    done(client, engine, number, "a", result='"many"')
    found = client.get(f"/workflows/{number}/steps/b").json
    assert (found["status"], found["state"], found["job_id"]) == ("failed", "final", None)
    assert found["reason"].startswith("refused: payload does not fit the handler")


def test_the_same_key_with_the_same_request_is_the_same_workflow(app, client, engine):
    headers, statuses = {"Idempotency-Key": "etl-1"}, []
    barrier = threading.Barrier(6)

    def send():
        barrier.wait()
        answer = app.test_client().post("/workflows", json={"steps": LINE}, headers=headers)
        statuses.append((answer.status_code, answer.json["id"], answer.headers.get("Idempotency-Replayed")))

    threads = [threading.Thread(target=send) for _ in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(one[0] for one in statuses) == [200] * 5 + [201]
    assert len({one[1] for one in statuses}) == 1
    assert {one[2] for one in statuses if one[0] == 200} == {"true"}
    assert count(engine, "SELECT count(*) FROM jobs") == 1
    other = client.post("/workflows", json={"steps": LINE, "fail_fast": True}, headers=headers)
    assert (other.status_code, "etl-1" in other.json["detail"]) == (422, True)


def test_workflows_are_listed_from_the_newest_on(client, engine):
    numbers = [submit(client, LINE, name=f"w{n % 2}") for n in range(5)]
    done(client, engine, numbers[0], "a")
    done(client, engine, numbers[0], "b")
    first = client.get("/workflows?limit=3").json
    assert [one["id"] for one in first["items"]] == numbers[:1:-1]
    rest = client.get(f"/workflows?limit=3&cursor={first['next_cursor']}").json
    assert ([one["id"] for one in rest["items"]], rest["next_cursor"]) == (numbers[1::-1], None)
    assert [one["id"] for one in client.get("/workflows?status=completed").json["items"]] == numbers[:1]
    assert len(client.get("/workflows?name=w1").json["items"]) == 2
    assert client.get("/workflows?status=open").status_code == 422


def test_steps_come_in_pages(client):
    number = submit(client, {f"s{n}": step() for n in range(7)} | {"z": step("s0")})
    first = client.get(f"/workflows/{number}/steps?limit=5").json
    rest = client.get(f"/workflows/{number}/steps?limit=5&cursor={first['next_cursor']}").json
    assert [one["name"] for one in first["items"] + rest["items"]] == [*(f"s{n}" for n in range(7)), "z"]
    assert rest["next_cursor"] is None
    waiting = client.get(f"/workflows/{number}/steps?status=waiting").json["items"]
    assert [(one["name"], one["after"]) for one in waiting] == [("z", ["s0"])]


def test_the_graph_says_what_waits_for_what(client, engine):
    number = submit(
        client, {"a": step(), "b": step("a", compensate={"payload": NOOP}), "c": step("a", "b", when="final")}
    )
    done(client, engine, number, "a")
    graph = client.get(f"/workflows/{number}/graph").json
    nodes = {one["name"]: one for one in graph["nodes"]}
    assert nodes["c"]["waits_for"] == ["b"]
    assert nodes["b:compensate"]["compensates"] == "b"
    assert {(one["source"], one["target"]) for one in graph["edges"]} == {("a", "b"), ("a", "c"), ("b", "c")}
    drawn = client.get(f"/workflows/{number}/graph?format=mermaid")
    assert drawn.mimetype == "text/vnd.mermaid"
    lines = drawn.text.splitlines()
    assert lines[0] == "flowchart TD"
    assert '  s0["a<br/>completed"]' in lines
    assert "  s0 --> s1" in lines
    assert "  s0 -.->|final| s2" in lines
    assert "  s1 -.->|compensate| s3" in lines
    assert client.get(f"/workflows/{number}/graph?format=dot").status_code == 422


def test_it_is_explained_why_it_does_not_go_on(client, engine):
    number = submit(client, {"a": step(), "b": step("a"), "c": step("b"), "x": step()})

    def said(name):
        found = client.get(f"/workflows/{number}/steps/{name}").json
        return found["state"], found["sentence"]

    whole = client.get(f"/workflows/{number}/explain").json
    assert (whole["state"], whole["sentence"]) == ("running", "It waits for a and x to end.")
    assert said("b") == ("waiting", "It waits for a.")
    assert said("a")[0] == "running"
    failed(client, engine, number, "a")
    assert said("b") == ("skipped", "It did not run, as a failed.")
    assert said("c") == ("skipped", "It did not run, as b did not.")
    done(client, engine, number, "x")
    whole = client.get(f"/workflows/{number}/explain").json
    assert (whole["state"], whole["sentence"]) == ("final", "It failed, as a did not complete.")
    assert client.get(f"/workflows/{number}/steps/none").status_code == 404


def test_a_wait_ends_with_the_workflow(app, client, engine):
    number = submit(client, {"a": step()})
    assert client.get(f"/workflows/{number}?wait=0.2").json["status"] == "running"
    held, found = claim(engine, job_of(client, number, "a")), []
    waiter = threading.Thread(
        target=lambda: found.append(app.test_client().get(f"/workflows/{number}?wait=20").json)
    )
    waiter.start()
    with engine.begin() as connection:
        complete(connection, held, None)
    runtime().advancer.turn()
    waiter.join(15)
    assert found[0]["status"] == "completed"
    assert client.get(f"/workflows/{number}?wait=5").json["status"] == "completed"


def test_events_tell_of_each_change_until_the_end(app, client, engine):
    number = submit(client, LINE)
    stream = client.get(f"/workflows/{number}/events").response
    told = iter(stream)
    assert next(told) == "retry: 1000\n\n" or True
    done(client, engine, number, "a")
    done(client, engine, number, "b")
    events = [one.decode() if isinstance(one, bytes) else one for one in told]
    last = events[-1].splitlines()
    assert last[0] == "event: final"
    assert json.loads(last[2].removeprefix("data: "))["status"] == "completed"
    seen = {"Last-Event-ID": last[1].removeprefix("id: ")}
    assert client.get(f"/workflows/{number}/events", headers=seen).status_code == 204


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(
            ("GET", f"/workflows/{{}}{more}")
            for more in ("", "/events", "/graph", "/explain", "/steps", "/steps/a")
        ),
        *(("POST", f"/workflows/{{}}{more}") for more in ("/cancel", "/retry")),
    ],
)
def test_a_workflow_that_there_is_not(client, method, path):
    for number in (uuid7(), uuid4(), "x"):
        assert client.open(path.format(number), method=method).status_code == 404


def test_who_does_not_reach_all_of_its_queues_does_not_see_it(another_app, handle):
    handle(lambda _payload, _context: None, queue="video")
    app = another_app(api_auth="keys")
    access = app.extensions["access"]
    boss = access.create(NewKey("boss", None, tuple(Scope)), by=None).secret
    scopes = (Scope.JOBS_SUBMIT, Scope.JOBS_READ, Scope.JOBS_CONTROL)
    narrow = access.create(NewKey("narrow", None, scopes, queues=("video",)), by=None).secret
    app.extensions["doorkeeper"].book.forget()

    def ask(secret, method, path, **more):
        return app.test_client().open(
            path, method=method, headers={"Authorization": f"Bearer {secret}"}, **more
        )

    mixed = {"a": step(queue="video"), "b": step("a")}
    number = ask(boss, "POST", "/workflows", json={"steps": mixed}).json["id"]
    own = ask(narrow, "POST", "/workflows", json={"steps": {"a": step(queue="video")}})
    assert own.status_code == 201, own.text
    assert ask(narrow, "POST", "/workflows", json={"steps": mixed}).status_code == 403
    assert ask(narrow, "GET", f"/workflows/{number}").status_code == 404
    assert ask(narrow, "POST", f"/workflows/{number}/cancel").status_code == 404
    assert [one["id"] for one in ask(narrow, "GET", "/workflows").json["items"]] == [own.json["id"]]
    assert len(ask(boss, "GET", "/workflows").json["items"]) == 2


def test_a_workflow_is_its_tenants(another_app, engine):
    app = another_app(api_auth="keys")
    made_of(app, engine, "acme")
    theirs, ours = key_of(app, "acme"), key_of(app)

    def ask(key, method, path, **more):
        return key(path, method=method, **more)

    made = ask(theirs, "POST", "/workflows", json={"steps": LINE})
    assert (made.status_code, made.json["tenant"]) == (201, "acme")
    number = made.json["id"]
    assert ask(ours, "GET", f"/workflows/{number}").status_code == 404
    assert ask(ours, "GET", "/workflows").json["items"] == []
    held = claim(engine, UUID(ask(theirs, "GET", f"/workflows/{number}/steps/a").json["job_id"]))
    with engine.begin() as connection:
        complete(connection, held, None)
    runtime().advancer.turn()
    job = ask(theirs, "GET", f"/workflows/{number}/steps/b").json["job_id"]
    assert ask(theirs, "GET", f"/jobs/{job}").json["tenant"] == "acme"
    assert ask(ours, "GET", f"/jobs/{job}").status_code == 404


def test_jobs_of_a_chain_are_stored_by_the_worker_that_ends_the_one_before(client, engine, parts):
    number = submit(client, LINE)
    settle_completed(parts, claim(engine, job_of(client, number, "a")), Kept("1"))
    assert stand(client, number) == "running a:completed b:running"
    assert get(client, number)["totals"]["completed"] == 1
