"""What the API says of itself: complete, true, and readable without a network."""

from __future__ import annotations

import re

import pytest
import schemathesis
from factories import buried, completed, queued
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from webapp.api.openapi import document, operation_of

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
)

#: Requests to each operation.
EXAMPLES = 25


@pytest.fixture
def described(app):
    return document(app)


def test_every_route_is_described(app, described):
    bare = {
        rule.rule
        for rule in app.url_map.iter_rules()
        if operation_of(app.view_functions[rule.endpoint]) is None
        and not rule.endpoint.startswith("swagger_ui")
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


def test_the_description_is_sent_once(client):
    first = client.get("/openapi.json")
    assert first.json["openapi"] == "3.1.0"
    again = client.get("/openapi.json", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_the_page_loads_nothing_from_elsewhere(client):
    page = client.get("/docs/")
    assert page.status_code == 200
    assert "connect-src 'self'" in page.headers["Content-Security-Policy"]
    elsewhere = set(re.findall(r"https?://[^/\"']+", page.text)) - {"http://localhost"}
    assert elsewhere == set()
    with client.get("/docs/swagger-ui-bundle.js") as script:
        assert script.status_code == 200


@pytest.fixture
def schema(app, engine, clean):
    queued(engine, payload={"task": "noop"})
    completed(engine)
    buried(engine)
    return schemathesis.openapi.from_wsgi("/openapi.json", app)


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_whatever_is_sent_is_answered_as_described(schema, mode):
    """Requests that fit the description, and requests that do not.

    That one that fits is never refused is not asked: no schema says that a text must not hold NUL, or that a queue exists.
    """
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path.endswith(("/events", "/metrics")):
            # The one is a stream, the other has its own tests.
            continue
        if mode is GenerationMode.NEGATIVE and not (
            operation.query or operation.body or operation.path_parameters
        ):
            continue

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def answered(case):
            case.call_and_validate(checks=CHECKS)

        answered()
