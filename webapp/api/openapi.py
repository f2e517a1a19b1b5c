"""`/openapi.json`: the API described in OpenAPI 3.1, from the very models that the views use.

A view says with `documented` what it takes and answers; its docstring is its description. What it is called, and where it
stands, is in `webapp.api.contents`. The document is built once, from the routes of the application, so a request costs nothing
more than without it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar, cast

from flask import Blueprint, Flask, Response, current_app, request
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from werkzeug.routing import Rule

from webapp import VERSION
from webapp.access.model import Need, Openness
from webapp.api.batch_examples import BATCH_ID
from webapp.api.contents import INTRODUCTION, NAMES, SUMMARY, TAGS
from webapp.api.examples import JOB_ID, PROBLEMS, WORKFLOW_ID, Examples
from webapp.api.needs import layers_of, needs
from webapp.api.schemas import Problem
from webapp.api.system_examples import OPENAPI
from webapp.jobs.handlers import NAME

bp = Blueprint("openapi", __name__)

#: The schemas of what has no model; that of a stream is the one of its events.
_PLAIN: dict[str, dict[str, Any]] = {
    "application/json": {"type": "object"},
    "text/event-stream": {
        "type": ["string", "object"],
        "properties": {
            "event": {"enum": ["state", "progress", "final"]},
            "id": {"type": "string"},
            "data": {"type": "string", "contentMediaType": "application/json"},
        },
        "required": ["event", "id", "data"],
    },
}
#: What the id of a job is called in a route.
JOB_PARAMETER = "job_id"
_NAME = {"type": "string", "pattern": f"^{NAME.pattern}$"}
#: What a path may name, with an example.
_IN_PATH: dict[str, dict[str, Any]] = {
    JOB_PARAMETER: {"schema": {"type": "string", "format": "uuid"}, "example": JOB_ID},
    "batch_id": {"schema": {"type": "string", "format": "uuid"}, "example": BATCH_ID},
    "queue": {"schema": _NAME, "example": "default"},
    "key": {"schema": {"type": "string", "minLength": 1, "maxLength": 200}, "example": "acme"},
    "task": {"schema": _NAME, "example": "noop"},
    "schedule": {"schema": {"type": "string", "minLength": 1, "maxLength": 200}, "example": "nightly-report"},
    "worker": {
        "schema": {"type": "string", "minLength": 1, "maxLength": 200},
        "example": "vm:19701:c5d87f52",
    },
    "workflow_id": {"schema": {"type": "string", "format": "uuid"}, "example": WORKFLOW_ID},
    "step": {"schema": {"type": "string", "minLength": 1, "maxLength": 120}, "example": "load"},
    "number": {"schema": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}, "example": 7},
}
#: What any request may be answered before a view sees it: by the server, and by the guard.
ANYWHERE = (400, 408, 413, 414, 417, 421, 431, 501, 503)
#: What is only said to requests that change something.
TO_CHANGES = (403,)
#: What is said to those who have shown no key that is good, lack a scope, or tried too many keys.
TO_STRANGERS = (401, 403, 429)
#: The way to show who one is, as the description names it, and what OpenAPI says of it.
KEY_SCHEME = "key"
_SECURITY_SCHEMES = {
    KEY_SCHEME: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "djps_k_ and 46 letters and digits",
        "description": "A key of `flask --app wsgi access key create`. Where API_AUTH is open, or auto on loopback, none is needed.",
    }
}
_UNCHANGING = frozenset({"GET"})

View = TypeVar("View", bound=Callable[..., Any])

_ID_HEADER = {
    "X-Request-ID": {"schema": {"type": "string"}, "description": "The id of this request in the logs."}
}
_REF = "#/components/schemas/{model}"
_PATH_PARAMETER = re.compile(r"<(?:[a-z]+:)?([a-z_]+)>")


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route takes, needs and answers.

    Args:
        need: the scope that its callers need.
        answers: the model of each status, or the media type of one that is no JSON, or None for one without a body.
        problems: the statuses that carry a problem document.
        body: the model of the JSON body.
        body_optional: whether it may be left out.
        query: the model of the query.
        headers: request headers beside the body's: name and description.
        answer_headers: headers that its answers may have: name, and what OpenAPI says of one.
        examples: what it may be sent, and what it says.
        names_job: where in its answer the id of a job is, as a JSON pointer; None: nowhere.
    """

    need: Need
    answers: Mapping[int, type[BaseModel] | str | None]
    problems: tuple[int, ...] = ()
    body: type[BaseModel] | None = None
    body_optional: bool = False
    query: type[BaseModel] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    answer_headers: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    examples: Examples = field(default_factory=Examples)
    names_job: str | None = None


_operations: dict[Callable[..., Any], Operation] = {}


def documented(
    answers: Mapping[int, type[BaseModel] | str | None],
    *problems: int,
    need: Need,
    body: type[BaseModel] | None = None,
    body_optional: bool = False,
    query: type[BaseModel] | None = None,
    headers: Mapping[str, str] | None = None,
    answer_headers: Mapping[str, dict[str, Any]] | None = None,
    examples: Examples | None = None,
    names_job: str | None = None,
) -> Callable[[View], View]:
    """Says what a view takes, needs and answers; the arguments are those of `Operation`.

    Example:
        >>> @documented({200: str}, 404, need=Scope.JOBS_READ)  # doctest: +SKIP
        ... def show(): ...
    """

    def note(view: View) -> View:
        _operations[view] = Operation(
            need,
            answers,
            problems,
            body,
            body_optional,
            query,
            headers or {},
            answer_headers or {},
            examples or Examples(),
            names_job,
        )
        return needs(need)(view)

    return note


def operation_of(view: Callable[..., Any]) -> Operation | None:
    """What was said of a view, under whatever it is wrapped in."""
    return next((_operations[layer] for layer in layers_of(view) if layer in _operations), None)


def document(app: Flask) -> dict[str, Any]:
    """The description of an application's documented routes."""
    found = _found(app)
    schemas, definitions = _schemas(operation for _, _, operation in found)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "DJPS",
            "version": VERSION,
            "summary": SUMMARY,
            "description": INTRODUCTION,
        },
        "tags": [{"name": tag, "description": words} for tag, words in TAGS.items()],
        "paths": _paths(found, schemas),
        "components": {
            "schemas": definitions,
            "responses": {
                f"Problem{status}": _problem(status, PROBLEMS.get(status), schemas)
                for status in sorted({*ANYWHERE, *TO_CHANGES, *TO_STRANGERS})
            },
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


Found = list[tuple[Rule, Callable[..., Any], Operation]]
Schemas = dict[tuple[type[BaseModel], JsonSchemaMode], dict[str, Any]]


def _found(app: Flask) -> Found:
    """The documented routes with their views, in the order of `NAMES`."""
    order = list(NAMES)
    found = [
        (rule, view, operation)
        for rule in app.url_map.iter_rules()
        if (operation := operation_of(view := app.view_functions[rule.endpoint])) is not None
    ]
    return sorted(found, key=lambda one: order.index(one[0].endpoint))


def _paths(found: Found, schemas: Schemas) -> dict[str, Any]:
    of_a_job = [
        NAMES[rule.endpoint].operation_id for rule, _, _ in found if rule.arguments == {JOB_PARAMETER}
    ]
    paths: dict[str, Any] = {}
    for rule, view, operation in found:
        path = paths.setdefault(_PATH_PARAMETER.sub(r"{\1}", rule.rule), {})
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            described = _described(rule.rule, rule.endpoint, view, operation, schemas)
            described["responses"] = _linked(operation, described["responses"], of_a_job)
            path[method.lower()] = described
            for status in _said_before(method, operation.need):
                described["responses"].setdefault(
                    str(status), {"$ref": f"#/components/responses/Problem{status}"}
                )
    return paths


def _said_before(method: str, need: Need) -> list[int]:
    """The statuses of what may be said before a view is called."""
    to_changes = () if method in _UNCHANGING else TO_CHANGES
    to_strangers = () if need is Openness.PUBLIC else TO_STRANGERS
    return sorted({*ANYWHERE, *to_changes, *to_strangers})


def security_of(need: Need) -> list[dict[str, list[str]]]:
    """What OpenAPI says of what a call needs.

    Example:
        >>> security_of(Scope.JOBS_READ), security_of(Openness.PUBLIC)
        ([{'key': ['jobs:read']}], [])
    """
    if need is Openness.PUBLIC:
        return []
    return [{KEY_SCHEME: [] if need is Openness.ANY_KEY else [need.value]}]


def _linked(operation: Operation, responses: dict[str, Any], of_a_job: Sequence[str]) -> dict[str, Any]:
    """The responses of an operation; what names a job is linked to all that can be asked of one."""
    if operation.names_job is None:
        return responses
    parameters = {JOB_PARAMETER: f"$response.body#{operation.names_job}"}
    links = {name: {"operationId": name, "parameters": parameters} for name in of_a_job}
    return {
        status: answer | {"links": links} if int(status) in operation.answers else answer
        for status, answer in responses.items()
    }


def _schemas(operations: Iterable[Operation]) -> tuple[Schemas, dict[str, Any]]:
    wanted: set[tuple[type[BaseModel], JsonSchemaMode]] = {(Problem, "serialization")}
    for operation in operations:
        wanted |= {
            (answer, "serialization") for answer in operation.answers.values() if isinstance(answer, type)
        }
        wanted |= {(model, "validation") for model in (operation.body, operation.query) if model is not None}
    schemas, top = models_json_schema(sorted(wanted, key=str), ref_template=_REF)
    return cast("Schemas", schemas), top.get("$defs", {})


def _described(
    rule: str, endpoint: str, view: Callable[..., Any], operation: Operation, schemas: Schemas
) -> dict[str, Any]:
    summary, _, more = (view.__doc__ or "").strip().partition("\n")
    described: dict[str, Any] = {
        "operationId": NAMES[endpoint].operation_id,
        "tags": [NAMES[endpoint].tag],
        # Unlike a description, it is shown as it stands.
        "summary": summary.replace("`", ""),
        "security": security_of(operation.need),
        "parameters": [*_path_parameters(rule), *_headers(operation), *_query_parameters(operation)],
        "responses": _responses(operation, schemas),
    }
    if more.strip():
        described["description"] = " ".join(more.split())
    if operation.body is not None:
        described["requestBody"] = {
            "required": not operation.body_optional,
            "content": {
                "application/json": {
                    "schema": schemas[operation.body, "validation"],
                    "examples": {name: {"value": body} for name, body in operation.examples.bodies.items()},
                }
            },
        }
    return described


def _path_parameters(rule: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, **_IN_PATH[name]}
        for name in _PATH_PARAMETER.findall(rule)
    ]


def _headers(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "header", "required": False, "description": words, "schema": {"type": "string"}}
        for name, words in operation.headers.items()
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    schema = operation.query.model_json_schema(ref_template=_REF)
    shown = operation.examples.query
    return [
        {"name": name, "in": "query", "required": name in schema.get("required", ())}
        | _parameter(about, {"example": shown[name]} if name in shown else {})
        for name, about in schema["properties"].items()
    ]


def _parameter(about: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    """A parameter is left out instead of being null; one that is an object is given as JSON."""
    kinds = [kind for kind in about.get("anyOf", ()) if kind.get("type") != "null"]
    schema = {name: value for name, value in about.items() if name not in {"anyOf", "default", "title"}}
    if kinds:
        schema |= kinds[0]
    if schema.get("type") == "object":
        return {"content": {"application/json": {"schema": schema} | example}}
    return {"schema": schema} | example


def _responses(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, answer in sorted(operation.answers.items()):
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "headers": _ID_HEADER | dict(operation.answer_headers),
        }
        if answer is not None:
            media, schema = _media_of(answer, schemas)
            example = operation.examples.answers.get(status)
            responses[str(status)]["content"] = {media: {"schema": schema, "example": example}}
    for status in sorted(operation.problems):
        example = operation.examples.answers.get(status, PROBLEMS.get(status))
        described = _problem(status, example, schemas)
        known = responses.setdefault(str(status), described)
        known["content"] = known.get("content", {}) | described["content"]
    return responses


def _problem(status: int, example: object, schemas: Schemas) -> dict[str, Any]:
    retry = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return {
        "description": HTTPStatus(status).phrase,
        "headers": _ID_HEADER | (retry if status in {409, 429, 503} else {}),
        "content": {
            "application/problem+json": {"schema": schemas[Problem, "serialization"], "example": example}
        },
    }


def _media_of(answer: type[BaseModel] | str, schemas: Schemas) -> tuple[str, dict[str, Any]]:
    """An answer's media type and schema."""
    if isinstance(answer, str):
        return answer, _PLAIN.get(answer, {"type": "string"})
    return "application/json", schemas[answer, "serialization"]


@bp.get("/openapi.json")
@documented({200: "application/json", 304: None}, need=Openness.PUBLIC, examples=OPENAPI)
def openapi() -> Response:
    """This description."""
    body, tag = current_app.extensions["openapi"] or _keep(current_app)
    answer = Response(body, mimetype="application/json")
    answer.set_etag(tag)
    answer.make_conditional(request)
    return answer


def _keep(app: Flask) -> tuple[bytes, str]:
    body = json.dumps(document(app)).encode() + b"\n"
    kept = (body, hashlib.sha256(body).hexdigest()[:16])
    app.extensions["openapi"] = kept
    return kept


def init_app(app: Flask) -> None:
    """Adds the description."""
    app.extensions["openapi"] = None
    app.register_blueprint(bp)
