"""How a request's body is read, by every view that takes one; and who may send a request at all."""

from __future__ import annotations

import gzip
import io
import json
from uuid import uuid4

import pytest
from factories import completed, dead_lettered, queued, row_of, tables
from flask.testing import EnvironBuilder
from werkzeug.test import TestResponse, run_wsgi_app

PROBLEM = "application/problem+json"
JSON = "application/json"
#: Views that take a body, and whether it may be left out.
VIEWS = {
    "/jobs": False,
    "/jobs/batch": False,
    "/jobs/{id}/cancel": True,
    "/jobs/{id}/retry": True,
    "/dlq/requeue": False,
    "/dlq/discard": False,
    "/dlq/{id}/requeue": True,
    "/dlq/{id}/discard": True,
}


def send(client, path, body, *, chunked=False, length=None, **headers):
    """Posts bytes with a length or, as a server shows a body in chunks, without one."""
    builder = EnvironBuilder(
        client.application,
        path=path.format(id=uuid4()),
        method="POST",
        headers={"Content-Type": JSON} | {name.replace("_", "-"): value for name, value in headers.items()},
        input_stream=io.BytesIO(body),
    )
    environ = builder.get_environ()
    environ["wsgi.input_terminated"] = True
    environ.pop("CONTENT_LENGTH", None)
    if chunked:
        environ["HTTP_TRANSFER_ENCODING"] = "chunked"
    else:
        environ["CONTENT_LENGTH"] = str(len(body) if length is None else length)
    # The test client would put a length in.
    return TestResponse(*run_wsgi_app(client.application, environ, buffered=True), builder.get_request())


def refused(answer, status, words):
    assert (answer.status_code, answer.content_type) == (status, PROBLEM), answer.text
    assert words in answer.json["detail"]
    assert answer.json["request_id"] == answer.headers["X-Request-ID"]
    return answer.json


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
@pytest.mark.parametrize("path", VIEWS)
def test_every_view_reads_its_body_in_the_same_way(client, path, chunked):
    refused(send(client, path, b"nonsense", chunked=chunked), 422, "the body must be JSON")
    refused(send(client, path, b"\xef\xbb\xbf{}", chunked=chunked), 422, "byte order mark")
    twice = refused(
        send(client, path, b'{"why": "a", "why": "b"}', chunked=chunked), 422, "why: must be given once"
    )
    assert twice["errors"] == [{"field": "why", "rule": "must be given once", "given": "twice"}]
    refused(send(client, path, b"[1]", chunked=chunked), 422, "must be a JSON object")
    unknown = refused(send(client, path, b'{"surprise": 1}', chunked=chunked), 422, "")
    assert "surprise" in {breach["field"] for breach in unknown["errors"]}
    packed = gzip.compress(b"{}")
    refused(
        send(client, path, packed, chunked=chunked, Content_Encoding="gzip"), 415, "must not be compressed"
    )
    refused(send(client, path, b"{}", chunked=chunked, Content_Type="text/plain"), 415, "application/json")
    utf16 = "application/json; charset=utf-16"
    refused(send(client, path, b"{}", chunked=chunked, Content_Type=utf16), 415, "must be in UTF-8")


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
@pytest.mark.parametrize("path", VIEWS)
def test_every_view_bounds_its_body(another_app, path, chunked):
    client = another_app(max_payload_bytes=1_024).test_client()
    largest = 64 * 1_024 if path == "/jobs/batch" else 1_024
    answer = send(client, path, b'{"why": "' + b"x" * largest + b'"}', chunked=chunked)
    refused(answer, 413, f"at most {largest} bytes")


@pytest.mark.parametrize("path", VIEWS)
def test_a_body_that_ends_early_is_told_from_one_that_is_wrong(client, path):
    refused(send(client, path, b'{"payload": {', length=40), 400, "ended after 13 of the 40 bytes")


@pytest.mark.parametrize("path", [path for path, optional in VIEWS.items() if optional])
@pytest.mark.parametrize("body", [b"", b" \r\n", b"{}"])
def test_a_body_that_may_be_left_out_may_be_empty(client, path, body):
    for chunked in (False, True):
        assert send(client, path, body, chunked=chunked).status_code == 404
    assert send(client, path, b"", Content_Type="application/x-www-form-urlencoded").status_code == 404


def test_a_reason_in_chunks_is_kept(client, engine):
    job = queued(engine)
    body = json.dumps({"reason": "not needed"}).encode()
    answer = send(client, f"/jobs/{job.id}/cancel", body, chunked=True)
    assert (answer.status_code, answer.json["cancel_reason"]) == (200, "not needed")


def test_who_dealt_with_a_letter_and_why_is_kept_when_sent_in_chunks(client, engine):
    job = dead_lettered(engine)
    body = json.dumps({"by": "Ann", "why": "stale"}).encode()
    assert send(client, f"/dlq/{job.id}/discard", body, chunked=True).status_code == 200
    letter = client.get("/dlq/letters?state=discarded").json["items"][0]
    assert (letter["resolved_by"], letter["resolved_why"]) == ("Ann", "stale")


def test_a_search_names_a_key_that_comes_twice(client):
    answer = client.get("/jobs", query_string={"payload": '{"a": 1, "a": 2}'})
    refused(answer, 422, "a: must be given once")


def test_each_item_of_a_batch_may_be_as_large_as_a_body_of_its_own(another_app, engine):
    client = another_app(max_payload_bytes=1_024).test_client()
    frame = len(json.dumps({"payload": {"task": "noop", "text": ""}}, separators=(",", ":")))
    sizes = (10, 1_024 - frame, 1_025 - frame, 20_000)
    answer = client.post(
        "/jobs/batch", json={"jobs": [{"payload": {"task": "noop", "text": "x" * size}} for size in sizes]}
    )
    outcomes = [item["outcome"] for item in answer.json["items"]]
    assert outcomes == ["created", "created", "invalid", "invalid"]
    assert answer.json["items"][2]["errors"] == [
        {"field": "body", "rule": "must be at most 1024 bytes as JSON", "given": "1025 bytes"}
    ]


STRANGE = {"HTTP_HOST": "evil.example"}
FOREIGN = (
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "path", ["/jobs", "/health", "/health/ready", "/metrics", "/docs/", "/openapi.json", "/none"]
)
def test_a_request_for_another_host_is_misdirected(client, method, path):
    refused(client.open(path, method=method, environ_overrides=STRANGE), 421, "TRUSTED_HOSTS")


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_site_changes_nothing(client, engine, headers):
    jobs = {"cancel": queued(engine), "retry": completed(engine)}
    letter = dead_lettered(engine)
    before = tables(engine)
    for path in (
        "/jobs",
        "/jobs/batch",
        *(f"/jobs/{job.id}/{what}" for what, job in jobs.items()),
        f"/dlq/{letter.id}/requeue",
        f"/dlq/{letter.id}/discard",
        "/dlq/requeue",
        "/dlq/discard",
    ):
        refused(client.post(path, headers=headers), 403, "another site")
    assert tables(engine) == before
    for method in ("PUT", "DELETE", "PATCH"):
        refused(client.open("/jobs", method=method, headers=headers), 403, "another site")


@pytest.mark.parametrize(
    "headers",
    [{}, {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, {"Origin": "http://localhost"}],
    ids=str,
)
def test_this_page_and_programs_are_not_concerned(client, engine, headers):
    job = queued(engine)
    assert client.post(f"/jobs/{job.id}/cancel", headers=headers).status_code == 200
    assert row_of(engine, job.id).status == "cancelled"


def test_a_page_of_another_site_may_look(client):
    # The browser shows it nothing of the answer.
    assert client.get("/jobs", headers=FOREIGN[0]).status_code == 200


def test_another_name_is_served_once_it_is_named(another_app):
    client = another_app(trusted_hosts="evil.example").test_client()
    assert client.get("/jobs", environ_overrides=STRANGE).status_code == 200
    assert client.get("/jobs").status_code == 421
    assert client.get("/health", environ_overrides={"HTTP_HOST": "10.0.0.7:8000"}).status_code == 200
