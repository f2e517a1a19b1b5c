"""The examples in the API's description: each is as its schema says, and each request is one that is taken."""

from __future__ import annotations

import json
from http import HTTPStatus

import pytest
from factories import claimed, completed, dead_lettered, queued
from jsonschema import Draft202012Validator
from scheduled import put

from webapp.access.model import NewKey, Role
from webapp.api.openapi import document
from webapp.infra.broker import heartbeats

#: Operations whose example needs a job in a certain state.
STATES = {
    "retryJob": dead_lettered,
    "requeueDeadLetter": dead_lettered,
    "discardDeadLetter": dead_lettered,
    "watchJob": completed,
    "getJob": completed,
}


@pytest.fixture
def described(app):
    return document(app)


def operations(described):
    """Every operation as (path, method, description)."""
    return [
        (path, method, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]


def contents(operation):
    """Every described body of an operation, as (where, media type, description)."""
    body = operation.get("requestBody", {"content": {}})["content"]
    yield from (("request", media, content) for media, content in body.items())
    for status, answer in operation["responses"].items():
        yield from ((status, media, content) for media, content in answer.get("content", {}).items())


def examples_of(content):
    """The values of a body's or parameter's examples."""
    named = [one["value"] for one in content.get("examples", {}).values()]
    return named + ([content["example"]] if content.get("example") is not None else [])


def breaks(described, schema, value):
    """What a value breaks of a schema of the description."""
    whole = schema | {"components": described["components"]}
    return [error.message for error in Draft202012Validator(whole).iter_errors(value)]


def test_every_body_and_every_answer_has_an_example(described):
    bare = [
        (method, path, where)
        for path, method, operation in operations(described)
        for where, _, content in contents(operation)
        if not examples_of(content)
    ]
    assert bare == []


def test_every_query_has_an_example(described):
    bare = [
        (method, path)
        for path, method, operation in operations(described)
        if (query := [one for one in operation["parameters"] if one["in"] == "query"])
        and not any(_of_parameter(one) for one in query)
    ]
    assert bare == []


def test_every_example_is_as_its_schema_says(described):
    checked = 0
    for path, method, operation in operations(described):
        for where, _, content in contents(operation):
            for value in examples_of(content):
                assert breaks(described, content["schema"], value) == [], (method, path, where)
                checked += 1
        for parameter in operation["parameters"]:
            holder = parameter.get("content", {}).get("application/json", parameter)
            for value in examples_of(holder):
                assert breaks(described, holder["schema"], value) == [], (method, path, parameter["name"])
                checked += 1
    assert checked > 150


def test_a_problem_says_the_status_that_it_is_an_example_of(described):
    for path, method, operation in operations(described):
        for where, media, content in contents(operation):
            if media == "application/problem+json":
                example = content["example"]
                assert (str(example["status"]), example["title"]) == (
                    where,
                    HTTPStatus(example["status"]).phrase,
                ), (method, path)


def _of_parameter(parameter):
    return examples_of(parameter.get("content", {}).get("application/json", parameter))


def query_of(operation):
    """The query that an operation's parameters are an example of."""
    found = {}
    for parameter in operation["parameters"]:
        if parameter["in"] == "query" and (values := _of_parameter(parameter)):
            found[parameter["name"]] = json.dumps(values[0]) if "content" in parameter else values[0]
    return found


def requests_of(described):
    """Every request that the description has an example of, as (operation, name, path, method, query, body)."""
    for path, method, operation in operations(described):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        bodies = {name: one["value"] for name, one in content.get("examples", {}).items()} or {"": None}
        for name, body in bodies.items():
            yield operation["operationId"], name, path, method, query_of(operation), body


def workflow_for(client, operation, headers):
    """A workflow that an operation can be asked for: one that has ended where it is retried, waited for or followed."""
    noop = {"payload": {"task": "noop"}}
    steps = {"extract": noop, "load": noop | {"after": ["extract"]}}
    number = client.post("/workflows", json={"steps": steps}, headers=headers).json["id"]
    if operation in {"getWorkflow", "retryWorkflow", "watchWorkflow"}:
        client.post(f"/workflows/{number}/cancel", headers=headers)
    return number


def test_every_example_of_a_request_is_taken(described, client, engine, app, redis):
    sent, access = 0, app.extensions["access"]
    # Keys are changed by who shows one.
    secret = access.init(by="a test").secret
    for operation, name, path, method, query, body in requests_of(described):
        job = STATES.get(operation, queued)(engine, task="noop")
        number = access.create(NewKey("an example's", Role.VIEWER), by="a test").key.id
        heartbeats.beat(redis, "vm:1:0", 30, "{}")
        put(client, "nightly-report", headers={"Authorization": f"Bearer {secret}"}, cron="30 2 * * *")
        # A stream lasts until its batch is over.
        is_over = {"close": operation == "watchBatch"}
        batch = client.post("/batches", json=is_over, headers={"Authorization": f"Bearer {secret}"}).json[
            "id"
        ]
        workflow = workflow_for(client, operation, {"Authorization": f"Bearer {secret}"})
        request = {
            "headers": {"Authorization": f"Bearer {secret}"},
            "method": method.upper(),
            "query_string": query,
            **({} if body is None else {"json": body}),
        }
        # Closed, for a stream of events holds a place until it is.
        with client.open(
            path.format(
                job_id=job.id,
                queue="default",
                task="noop",
                key="acme",
                number=number,
                schedule="nightly-report",
                worker="vm:1:0",
                batch_id=batch,
                workflow_id=workflow,
                step="load",
            ),
            **request,
        ) as answer:
            assert 200 <= answer.status_code < 300, (operation, name, answer.text)
        sent += 1
    assert sent >= 25


def test_the_description_is_said_to_be_an_object(described, client):
    (schema,) = [
        operation["responses"]["200"]["content"]["application/json"]["schema"]
        for path, _, operation in operations(described)
        if path == "/openapi.json"
    ]
    assert breaks(described, schema, client.get("/openapi.json").json) == []


@pytest.mark.parametrize("wrong", [{"payload": 17}, {"priority": 5}, {"payload": {}, "tags": [1]}])
def test_the_comparison_can_fail(described, wrong):
    (content,) = [
        content
        for path, method, operation in operations(described)
        for where, _, content in contents(operation)
        if (path, method, where) == ("/jobs", "post", "request")
    ]
    assert breaks(described, content["schema"], wrong)


def test_a_cancel_of_a_running_job_answers_as_its_example(described, client, engine):
    claim = claimed(engine)
    body = {"reason": "not needed any more"}
    answer = client.post(f"/jobs/{claim.id}/cancel", json=body)
    (content,) = [
        content
        for _, _, operation in operations(described)
        for where, _, content in contents(operation)
        if (operation["operationId"], where) == ("cancelJob", "202")
    ]
    assert answer.status_code == 202
    assert set(answer.json) == set(content["example"])
