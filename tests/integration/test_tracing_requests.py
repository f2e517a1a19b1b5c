"""Spans of requests, as a real OTLP receiver gets them, and what a job keeps of its request's trace."""

from __future__ import annotations

from uuid import UUID

import pytest
from collector import CLIENT, TRACE, TRACEPARENT, collecting, told
from factories import tables

from tasks.execution import execute_job
from webapp.infra.telemetry import traceparent, traces
from webapp.infra.telemetry.logs import bound_field
from webapp.infra.telemetry.traceparent import read


def submit(client, header=None, key=None, **payload):
    body = {"payload": {"task": "noop", **payload}} | ({"idempotency_key": key} if key else {})
    return client.post("/jobs", json=body, headers={"traceparent": header} if header else {})


def stored(engine):
    return [row["traceparent"] for row in tables(engine) if "payload" in row]


def fail_in(monkeypatch, *names):
    for name in names:
        monkeypatch.setattr(f"opentelemetry.sdk.trace.{name}", lambda *_, **__: 1 / 0)


def test_with_traces_off_what_the_client_sent_is_kept(client, engine):
    assert submit(client, TRACEPARENT).status_code == 201
    assert stored(engine) == [TRACEPARENT]
    assert traceparent.here() is None


def test_with_traces_off_jobs_of_a_batch_keep_it_each(client, engine):
    body = {"jobs": [{"payload": {"task": "noop", "n": n}} for n in range(3)]}
    client.post("/jobs/batch", json=body, headers={"traceparent": TRACEPARENT, "X-Request-ID": "r-1"})
    assert stored(engine) == [TRACEPARENT] * 3
    assert [row["request_id"] for row in tables(engine)] == ["r-1"] * 3


@pytest.mark.parametrize("header", [None, "", "nonsense", f"00-{'0' * 32}-{CLIENT}-01", f"{TRACEPARENT}-x"])
def test_what_is_no_traceparent_is_not_kept(client, engine, header):
    assert submit(client, header).status_code == 201
    assert stored(engine) == [None]


def test_one_request_after_another_in_a_thread_has_a_place_of_its_own(client, engine):
    submit(client, TRACEPARENT)
    submit(client)
    assert stored(engine) == [TRACEPARENT, None]


def test_the_same_request_from_another_trace_is_the_same_request(client, engine):
    first = submit(client, TRACEPARENT, key="k")
    again = submit(client, TRACEPARENT.replace("4bf", "5bf"), key="k")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json["id"] == first.json["id"]
    assert stored(engine) == [TRACEPARENT]


def test_a_request_has_a_span_under_the_clients_and_its_job_belongs_under_it(client, engine, collector):
    answer = client.post(
        "/jobs?secret=1",
        json={"payload": {"task": "noop"}},
        headers={"traceparent": TRACEPARENT, "X-Request-ID": "r-1", "User-Agent": "curl"},
    )
    assert answer.status_code == 201
    (span,) = told(collector)
    assert collector.exports[0][0] == "/v1/traces"
    assert (span.service, span.name, span.kind, span.error) == ("djps-test", "POST /jobs", "SERVER", None)
    assert (span.trace_id, span.parent_id) == (TRACE, CLIENT)
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": "/jobs",
        "url.path": "/jobs",
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "network.protocol.version": "1.1",
        "user_agent.original": "curl",
        "djps.request.id": "r-1",
        "http.response.status_code": 201,
    }
    assert stored(engine) == [f"00-{TRACE}-{span.span_id}-01"]


def test_a_client_that_does_not_trace_begins_a_trace(client, engine, collector):
    submit(client)
    submit(client)
    first, second = told(collector)
    assert first.parent_id == second.parent_id == ""
    assert first.trace_id != second.trace_id
    assert stored(engine) == [f"00-{one.trace_id}-{one.span_id}-01" for one in (first, second)]


def test_a_client_that_does_not_keep_its_trace_has_no_spans_but_the_job_its_place(client, engine, collector):
    submit(client, f"00-{TRACE}-{CLIENT}-00")
    place = read(stored(engine)[0])
    assert (place.fields["trace_id"], place.sampled) == (TRACE, False)
    execute_job.run(str(tables(engine)[0]["id"]))
    assert told(collector) == []


def test_every_line_of_a_request_names_its_span(app, client, collector):
    seen = {}

    def look():
        seen.update({name: bound_field(name) for name in ("trace_id", "span_id")})

    app.after_request_funcs.setdefault(None, []).append(lambda response: look() or response)
    try:
        client.get("/dlq")
    finally:
        app.after_request_funcs[None].pop()
    (span,) = told(collector)
    assert seen == {"trace_id": span.trace_id, "span_id": span.span_id}
    assert bound_field("trace_id") is None


@pytest.mark.parametrize(
    ("asked", "name", "known"),
    [
        (("GET", f"/jobs/{UUID(int=7)}"), "GET /jobs/<job_id>", "GET"),
        (("GET", "/nothing/here"), "GET", "GET"),
        (("BREW", "/jobs"), "HTTP", "_OTHER"),
    ],
)
def test_names_of_spans_are_few(client, collector, asked, name, known):
    method, path = asked
    client.open(path, method=method)
    (span,) = told(collector)
    assert (span.name, span.attributes["http.request.method"]) == (name, known)
    assert span.attributes.get("http.request.method_original") == (None if known == method else method)
    assert span.attributes["url.path"] == path
    # What the client did wrong is no error of the server's.
    assert span.error is None


def test_an_answer_5xx_is_an_error(app, client, collector, monkeypatch):
    monkeypatch.setattr(app.extensions["jobs"], "submit", lambda *_: 1 / 0)
    assert submit(client).status_code == 500
    (span,) = told(collector)
    assert (span.error, span.attributes["error.type"]) == ("", "500")


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/metrics"])
def test_what_machines_ask_all_the_time_has_no_span(client, collector, path):
    assert client.get(path).status_code == 200
    assert told(collector) == []


@pytest.mark.usefixtures("collector")
def test_a_span_that_cannot_be_told_or_begun_fails_no_request(client, engine, monkeypatch):
    fail_in(monkeypatch, "Span.set_attribute", "Span.end")
    assert submit(client).status_code == 201
    fail_in(monkeypatch, "Tracer.start_span")
    assert submit(client, TRACEPARENT).status_code == 201
    assert stored(engine)[-1] == TRACEPARENT


@pytest.mark.parametrize(
    ("variables", "service"),
    [
        ({}, "djps-test"),
        ({"OTEL_SERVICE_NAME": "orders"}, "orders"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=billing"}, "billing"),
    ],
)
def test_the_standard_variables_hold(client, collector, monkeypatch, variables, service):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    client.get("/dlq")
    assert [one.service for one in told(collector)] == [service]


def test_the_sdk_can_be_switched_off_by_its_own_variable(settings, monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    traces.install(
        settings.model_copy(update={"otel_exporter_otlp_endpoint": "http://127.0.0.1:1"}), "test", "9"
    )
    assert not traces.are_on()


def test_what_the_env_file_says_of_the_sdk_reaches_it(settings, tmp_path, monkeypatch):
    file = tmp_path / "env"
    monkeypatch.setenv("DJPS_ENV_FILE", str(file))
    # Set and taken back, so that what is written there below is taken back as well.
    monkeypatch.setenv("OTEL_SERVICE_NAME", "")
    monkeypatch.delenv("OTEL_SERVICE_NAME")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "key=of-the-environment")
    with collecting() as made:
        file.write_text(
            f"OTEL_SERVICE_NAME=from-file\nOTEL_EXPORTER_OTLP_HEADERS=key=of-the-file\nOTEL_EXPORTER_OTLP_ENDPOINT={made.url}\n"
        )
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
        monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
        traces.install(type(settings).load(), "test", "9")
        with traces.request("one", None, {}):
            pass
        assert [one.service for one in told(made)] == ["from-file"]
        assert made.exports[0][1]["key"] == "of-the-environment"
    traces.install(settings, "test", "9")
