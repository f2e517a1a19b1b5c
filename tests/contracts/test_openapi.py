"""What the API says of itself: complete, true, and readable without a network."""

from __future__ import annotations

import json
import re

import console
import pytest
import schemathesis
from described import answers_as_described, walk_from_jobs
from factories import completed, dead_lettered, queued
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode

from webapp import VERSION
from webapp.access.model import Scope
from webapp.api.contents import NAMES
from webapp.api.examples import JOB_ID
from webapp.api.openapi import document, operation_of
from webapp.api.schemas import Problem

#: Requests to each operation.
EXAMPLES = 25
README = console.ROOT / "README.md"
KUSTOMIZATION = console.ROOT / "ops" / "kubernetes" / "kustomization.yaml"
#: What an operation id may begin with; a new one is a word that every client will have to learn.
VERBS = {
    *("submit", "list", "get", "watch", "explain", "cancel", "retry"),
    *("group", "requeue", "discard", "check", "pause", "resume", "set", "delete"),
    *("create", "rotate", "revoke", "close"),
    *("run", "backfill", "preview"),
}


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


def test_a_list_may_say_how_old_it_is_and_nothing_else_does(described):
    told = {
        path
        for method, path, operation in operations(described)
        for status, answer in operation["responses"].items()
        if "DJPS-Staleness" in answer.get("headers", {}) and (method, status) == ("get", "200")
    }
    assert told == {"/jobs", "/dlq", "/dlq/letters", "/dlq/groups", "/dlq/history"}
    header = described["paths"]["/jobs"]["get"]["responses"]["200"]["headers"]["DJPS-Staleness"]
    assert header["schema"] == {"type": "number", "minimum": 0}


def test_every_operation_says_which_scope_it_needs(described):
    schemes = described["components"]["securitySchemes"]
    assert schemes["key"]["scheme"] == "bearer"
    needed = {operation["operationId"]: operation["security"] for _, _, operation in operations(described)}
    assert {name for name, security in needed.items() if not security} == {
        *("checkHealth", "checkReadiness", "getIndex", "getDescription")
    }
    asked = {scope for security in needed.values() for one in security for scope in one["key"]}
    assert asked == set(Scope)
    for _, path, operation in operations(described):
        assert ("401" in operation["responses"]) == bool(operation["security"]), path
        assert ("403" in operation["responses"]) or not operation["security"], path


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


def test_there_is_one_version(client):
    said = {
        "/": client.get("/").json["version"],
        "/openapi.json": client.get("/openapi.json").json["info"]["version"],
        "djps_build_info": re.search(r'djps_build_info{.*version="([^"]+)"', client.get("/metrics").text)[1],
        "kustomization.yaml": re.search(r'newTag: "(.+)"', KUSTOMIZATION.read_text())[1],
    }
    assert said == dict.fromkeys(said, VERSION)


def operations(described):
    """Every operation, in the order of the document, as (method, path, description)."""
    return [
        (method, path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]


def test_operation_ids_are_names_for_a_client_generator(described):
    ids = [operation["operationId"] for _, _, operation in operations(described)]
    assert len(set(ids)) == len(ids)
    for one in ids:
        verb, *noun = re.findall(r"^[a-z]+|[A-Z][a-z]+", one)
        assert verb in VERBS, one
        assert noun, one
        assert verb + "".join(noun) == one
    assert {operation_id for operation_id, _ in NAMES.values()} == set(ids)


def test_each_operation_has_one_tag_that_is_described(described):
    tags = {tag["name"]: tag["description"] for tag in described["tags"]}
    assert all(words.endswith(".") for words in tags.values())
    used = [operation["tags"] for _, _, operation in operations(described)]
    assert {len(some) for some in used} == {1}
    assert list(dict.fromkeys(tag for (tag,) in used)) == list(tags)


def test_operations_stand_in_the_order_of_the_readme(described):
    method, path, operation = operations(described)[0]
    assert (method, path, operation["operationId"]) == ("post", "/jobs", "submitJob")
    table = README.read_text().partition("\n## HTTP\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ((?:[A-Z]+(?:, )?)+) \| (.+?) \|", table, re.MULTILINE)
    told = [
        (verb.lower(), path.replace("{id}", "{job_id}"))
        for verbs, paths in rows
        for verb in verbs.split(", ")
        for path in re.findall(r"`([^`]+)`", paths)
        if path != "/docs/"
    ]
    assert sorted(told) == sorted((method, path) for method, path, _ in operations(described))
    assert list(dict.fromkeys(path for _, path in told)) == list(described["paths"])


def test_the_introduction_says_what_a_first_caller_needs(described, client):
    words = described["info"]["description"]
    headings = re.findall(r"^## (.+)$", words, re.MULTILINE)
    assert headings == ["First call", "Idempotency", "Errors", "Rate limits", "Keys", "Links"]
    body = json.loads(re.search(r"-d '(.+)'", words)[1])
    first = client.post("/jobs", json=body)
    assert first.status_code == 201
    links = re.findall(r"\]\((/[^)]*)\)", words)
    assert len(links) >= 5
    for link in links:
        with client.get(link) as answer:
            assert answer.status_code == 200, link
    assert set(re.findall(r"`(\w+)`", words)) & set(Problem.model_fields) >= {
        "type",
        "title",
        "status",
        "detail",
    }


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
