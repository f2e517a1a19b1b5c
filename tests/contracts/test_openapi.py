"""What the API says of itself: complete, true, and readable without a network."""

from __future__ import annotations

import re

import pytest
import schemathesis
from described import answers_as_described, walk_from_jobs
from factories import completed, dead_lettered, queued
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode

from webapp import VERSION
from webapp.api import operations
from webapp.api.examples import JOB_ID
from webapp.api.openapi import document, operation_of

#: Requests to each operation.
EXAMPLES = 25


@pytest.fixture
def described(app):
    return document(app)


def test_every_route_is_described(app, described):
    bare = {
        rule.rule
        for rule in app.url_map.iter_rules()
        if operation_of(app.view_functions[rule.endpoint]) is None and not rule.endpoint.startswith("docs.")
    }
    assert bare == set()
    assert len(described["paths"]) >= 18


def test_every_operation_has_words_and_every_schema_is_one(described):
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"].endswith("."), (method, path)
            assert operation["responses"]
    for schema in described["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def operations_of(described):
    return [
        (method, path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]


def test_operations_are_named_as_a_client_would_call_them(described):
    ids = [operation["operationId"] for _, _, operation in operations_of(described)]
    assert len(set(ids)) == len(ids)
    assert [one for one in ids if not re.fullmatch(r"[a-z]+([A-Z][a-z]+)+", one)] == []
    assert {"submitJob", "getJob", "cancelJob", "submitJobs", "requeueDeadLetters"} <= set(ids)


def test_each_operation_is_in_one_group_that_says_what_it_is_for(described):
    tags = {one["name"]: one["description"] for one in described["tags"]}
    assert list(tags) == ["Jobs", "Batches", "Dead letters", "Operations"]
    assert all(says.endswith(".") for says in tags.values())
    found = [operation["tags"] for _, _, operation in operations_of(described)]
    assert {len(one) for one in found} == {1}
    order = [list(tags).index(one[0]) for one in found]
    assert set(order) == {0, 1, 2, 3}


def test_submitting_a_job_comes_first(client, described):
    method, path, _ = operations_of(described)[0]
    assert (method, path) == ("post", "/jobs")
    assert list(client.get("/openapi.json").json["paths"]) == list(described["paths"])


def test_every_endpoint_with_a_name_is_there(described):
    ids = {operation["operationId"] for _, _, operation in operations_of(described)}
    assert ids == {one.id for one in operations.KNOWN.values()}


def test_there_is_one_version(client, described):
    assert described["info"]["version"] == VERSION
    assert re.search(
        rf'^djps_build_info{{.*version="{re.escape(VERSION)}"', client.get("/metrics").text, re.MULTILINE
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)


def test_what_names_a_job_is_linked_to_all_that_can_be_asked_of_one(described):
    of_a_job = {
        operation["operationId"]
        for path, methods in described["paths"].items()
        for operation in methods.values()
        if "{job_id}" in path
    }
    assert len(of_a_job) >= 8
    for method, path, status in (
        ("post", "/jobs", "201"),
        ("post", "/jobs", "200"),
        ("post", "/jobs/batch", "200"),
        ("get", "/jobs", "200"),
        ("get", "/dlq", "200"),
    ):
        links = described["paths"][path][method]["responses"][status]["links"]
        assert {one["operationId"] for one in links.values()} == of_a_job


def test_the_description_is_sent_once(client):
    first = client.get("/openapi.json")
    assert first.json["openapi"] == "3.1.0"
    again = client.get("/openapi.json", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_the_page_loads_nothing_from_elsewhere(client):
    page = client.get("/docs/")
    assert page.status_code == 200
    assert 'name="viewport"' in page.text  # else a phone shows it in the width of a desktop
    assert "connect-src 'self'" in page.headers["Content-Security-Policy"]
    elsewhere = set(re.findall(r"https?://[^/\"']+", page.text)) - {"http://localhost"}
    assert elsewhere == set()
    with client.get("/docs/swagger-ui-bundle.js") as script:
        assert script.status_code == 200


@pytest.fixture
def schema(app, engine, clean):
    queued(engine, payload={"task": "noop"})
    completed(engine)
    dead_lettered(engine)
    return schemathesis.openapi.from_wsgi("/openapi.json", app)


def test_every_way_from_a_job_is_answered_as_described(schema, client):
    walk_from_jobs(schema, lambda job_id: client.post(f"/jobs/{job_id}/cancel"), walks=60)


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_whatever_is_sent_is_answered_as_described(schema, mode):
    """Requests that fit the description, and requests that do not.

    That one that fits is never refused is not asked: no schema says that a text must not hold NUL, or that a queue exists.
    """
    answers_as_described(schema, mode, EXAMPLES)


def test_the_description_names_the_version_that_runs(client):
    assert client.get("/openapi.json").json["info"]["version"] == VERSION == client.get("/").json["version"]


def test_the_index_leads_to_what_is_there(client):
    named = {value for value in client.get("/").json.values() if value.startswith("/")}
    assert {"/docs/", "/openapi.json", "/health"} <= named
    for path in named:
        with client.get(path) as answer:
            assert answer.status_code == 200, path


def test_the_page_runs_only_files_that_come_with_it(client):
    page = client.get("/docs/")
    policy = dict(
        part.strip().partition(" ")[::2] for part in page.headers["Content-Security-Policy"].split(";")
    )
    assert policy["script-src"] == "'self'"
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page.text, re.DOTALL)
    assert scripts
    for attributes, inner in scripts:
        assert inner == ""
        with client.get(re.search(r'src="([^"]+)"', attributes)[1]) as script:
            assert script.status_code == 200
            assert script.mimetype in {"text/javascript", "application/javascript"}
    assert not re.findall(r"\son\w+=|javascript:", page.text)
    for link in re.findall(r'href="([^"]+)"', page.text):
        with client.get(link) as file:
            assert file.status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/none"),
        ("GET", "/openapi.json"),
        ("GET", "/health"),
        ("GET", "/jobs?limit=none"),
        ("PUT", "/jobs"),
        ("POST", "/jobs"),
        ("GET", f"/jobs/{JOB_ID}"),
        ("GET", "/docs/none.js"),
    ],
)
def test_an_answer_ends_its_last_line(client, method, path):
    assert client.open(path, method=method).data.endswith(b"\n")
