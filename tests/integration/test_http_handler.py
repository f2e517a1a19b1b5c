"""The `http` handler against a real server on loopback."""

from __future__ import annotations

import json
import logging
import time
from base64 import b64encode
from http.server import BaseHTTPRequestHandler
from uuid import UUID

import pytest
from listener import listening
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from tasks.handlers import http as handling
from tasks.handlers.http import HttpPayload, UnwantedAnswer, read_payload, result_of
from webapp.jobs import Discard, JobContext, Retry
from webapp.jobs.handlers import registry
from webapp.outbound import urls
from webapp.outbound.call import Answer, CallFailed
from webapp.outbound.signature import Purpose, secrets_of
from webapp.outbound.urls import Rules

SECRET, CALLBACK_SECRET = (f"whsec_{b64encode(letter * 32).decode()}" for letter in (b"s", b"c"))
PUBLIC = "https://example.org/x"


class Reply(BaseHTTPRequestHandler):
    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, dict(self.headers), body))
        status, headers, content = self.server.reply
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def do_PUT(self):
        self.answer()

    def log_message(self, *_):
        """Says nothing."""


@pytest.fixture
def service():
    """A server that remembers who called and answers `reply`."""
    with listening(Reply) as server:
        server.asked, server.reply = [], (200, {}, b"")
        yield server


@pytest.fixture
def guests_may_call(monkeypatch):
    """Internal targets are for all tenants: the only server that there is here is on this host."""
    of = Rules.of.__func__
    monkeypatch.setattr(Rules, "of", classmethod(lambda cls, settings, **_: of(cls, settings)))


@pytest.fixture
def run(service, settings, monkeypatch):
    """Runs the handler; the server's address is allowed unless a test says otherwise."""

    def once(payload, *, left=60.0, callback_of=None, tenant="default", **changes):
        changed = {"http_allowed_targets": f"127.0.0.1:{service.server_port}"} | changes
        for module in (handling, urls):
            monkeypatch.setattr(module, "current", lambda: settings.model_copy(update=changed))
        context = JobContext(
            UUID(int=7),
            3,
            2,
            time.monotonic() + left,
            logging.getLogger("test"),
            callback_of=callback_of,
            tenant_of=lambda: tenant,
        )
        return handling.http({"task": "http", "url": service.url, **payload}, context)

    return once


def test_the_handler_is_built_in_and_its_jobs_come_alone():
    assert registry.get("http").chunk == 1


def test_a_call_carries_the_jobs_names_and_a_signature_of_its_body(run, service):
    run({"json": {"name": "Łódź"}, "headers": {"X-Mine": "1"}}, webhook_secrets=SecretStr(SECRET))
    ((method, headers, body),) = service.asked
    assert method == "POST"
    assert headers["Content-Type"] == "application/json"
    assert (headers["X-Job-Id"], headers["X-Job-Attempt"]) == (str(UUID(int=7)), "3")
    assert headers["webhook-id"] == str(UUID(int=7))
    assert headers["X-Mine"] == "1"
    assert Webhook(SECRET).verify(body, headers) == {"name": "Łódź"}


@pytest.mark.parametrize(
    ("callback_of", "signed_with", "other"),
    [(None, SECRET, CALLBACK_SECRET), (UUID(int=8), CALLBACK_SECRET, SECRET)],
    ids=["what-was-submitted", "a-callback"],
)
def test_only_a_callback_is_signed_as_one(run, service, callback_of, signed_with, other):
    body = {"json": {"type": "job.completed", "data": {"id": str(UUID(int=8))}}}
    secrets = {"webhook_secrets": SecretStr(SECRET), "callback_secrets": SecretStr(CALLBACK_SECRET)}
    run(body, callback_of=callback_of, **secrets)
    ((_, headers, sent),) = service.asked
    Webhook(signed_with).verify(sent, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(sent, headers)


@pytest.mark.parametrize("callback_of", [None, UUID(int=8)], ids=["what-was-submitted", "a-callback"])
def test_a_tenants_calls_are_signed_by_its_own_secret_and_by_no_other(
    run, service, callback_of, guests_may_call
):
    secrets = {"webhook_secrets": SecretStr(SECRET), "callback_secrets": SecretStr(CALLBACK_SECRET)}
    run({"json": {"n": 1}}, callback_of=callback_of, tenant="acme", **secrets)
    ((_, headers, sent),) = service.asked
    of_purpose = (Purpose.HTTP_JOBS, SECRET) if callback_of is None else (Purpose.CALLBACKS, CALLBACK_SECRET)
    made = {
        (purpose, guest): secrets_of([given], purpose, guest)[0]
        for purpose, given in ((Purpose.HTTP_JOBS, SECRET), (Purpose.CALLBACKS, CALLBACK_SECRET))
        for guest in (None, "acme", "other")
    }
    Webhook(made.pop((of_purpose[0], "acme"))).verify(sent, headers)
    for secret in made.values():
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(sent, headers)


def test_internal_targets_are_the_default_tenants_alone(run, service):
    with pytest.raises(Discard, match="the call was refused"):
        run({"json": {}}, tenant="acme")
    assert service.asked == []


def test_a_callback_is_not_signed_with_the_secrets_of_others(run, service):
    run({"json": {}}, callback_of=UUID(int=8), webhook_secrets=SecretStr(SECRET))
    assert "webhook-signature" not in service.asked[0][1]


def test_without_secrets_a_call_is_not_signed(run, service):
    run({})
    assert "webhook-signature" not in service.asked[0][1]
    assert service.asked[0][1]["Content-Length"] == "0"


@pytest.mark.parametrize(
    ("payload", "body", "kind"),
    [
        ({"json": None}, b"null", "application/json"),
        ({"json": [1, 2]}, b"[1,2]", "application/json"),
        ({"body": "é"}, "é".encode(), "text/plain; charset=utf-8"),
        ({"body": "a=1", "headers": {"content-type": "a/b"}}, b"a=1", "a/b"),
        ({"method": "GET"}, b"", None),
    ],
)
def test_a_body_is_json_or_text(run, service, payload, body, kind):
    run(payload)
    _, headers, sent = service.asked[0]
    assert sent == body
    assert {name.lower(): value for name, value in headers.items()}.get("content-type") == kind


def test_the_answer_is_the_result(run, service):
    service.reply = (201, {"Content-Type": "a/b", "X-Request-Id": "r", "Set-Cookie": "secret"}, b'{"a": 1}')
    assert run({}) == {
        "status": 201,
        "headers": {"content-type": "a/b", "x-request-id": "r"},
        "body": '{"a": 1}',
        "body_encoding": "text",
        "truncated": False,
    }


def test_a_long_answer_is_cut(run, service):
    service.reply = (200, {}, b"x" * 5_000)
    result = run({}, http_max_bytes=1_000)
    assert (len(result["body"]), result["truncated"]) == (1_000, True)


@pytest.mark.parametrize(
    ("body", "encoding"), [(b"\xff\x00", "base64"), (b"a\x00b", "base64"), ("é".encode(), "text")]
)
def test_a_body_that_is_no_text_is_kept_as_base64(body, encoding):
    result = result_of(Answer(200, {}, body, truncated=False), 10_000)
    assert result["body_encoding"] == encoding
    assert result["body"] == (body.decode() if encoding == "text" else b64encode(body).decode())


def test_a_character_that_was_cut_in_two_does_not_make_a_text_binary():
    assert result_of(Answer(200, {}, "aé".encode()[:2], truncated=True), 1_000)["body"] == "a"
    assert result_of(Answer(200, {}, "aé".encode()[:2], truncated=False), 1_000)["body_encoding"] == "base64"


@pytest.mark.parametrize("body", [b"x" * 5_000, b'"' * 5_000, b"\xff" * 5_000, "é".encode() * 2_000])
def test_a_result_always_fits_what_may_be_kept(body):
    result = result_of(Answer(200, {}, body, truncated=False), 1_000)
    assert len(json.dumps(result, ensure_ascii=False).encode()) <= 1_000
    assert result["truncated"]
    assert result["body"]


@pytest.mark.parametrize("status", [400, 401, 404, 409, 410, 422, 304])
def test_an_answer_that_will_not_change_discards_the_job(run, service, status):
    service.reply = (status, {}, b"")
    with pytest.raises(Discard, match=f"answered {status}"):
        run({})


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_an_answer_that_may_change_is_tried_again(run, service, status):
    service.reply = (status, {}, b"")
    with pytest.raises(UnwantedAnswer, match=f"answered {status}"):
        run({})


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(run, service, status):
    service.reply = (status, {"Retry-After": "17"}, b"")
    with pytest.raises(Retry) as asked:
        run({})
    assert asked.value.after == 17.0


def test_the_payload_says_what_is_expected_and_what_is_tried_again(run, service):
    service.reply = (404, {}, b"")
    assert run({"expect": [200, 404]})["status"] == 404
    with pytest.raises(UnwantedAnswer):
        run({"retry_on": ["4xx"]})
    service.reply = (200, {}, b"")
    with pytest.raises(Discard, match="answered 200"):
        run({"expect": 201})


def test_a_target_that_is_not_allowed_is_never_called(run, service):
    with pytest.raises(Discard, match="loopback"):
        run({}, http_allowed_targets="", http_allowed_ports=f"80,{service.server_port}")
    assert service.asked == []


def test_a_redirect_inside_discards_the_job(run, service):
    service.reply = (307, {"Location": f"http://127.0.0.2:{service.server_port}/"}, b"")
    with pytest.raises(Discard, match=r"the call was refused: .*127\.0\.0\.2"):
        run({}, http_allowed_ports=f"80,{service.server_port}")
    assert len(service.asked) == 1


def test_a_call_takes_no_longer_than_it_may(run, silent_port):
    payload = {"url": f"http://127.0.0.1:{silent_port}/"}
    allowed = f"127.0.0.1:{silent_port}"
    for limits in ({"payload": payload | {"timeout": 0.2}}, {"payload": payload, "left": 0.5}):
        began = time.monotonic()
        with pytest.raises(CallFailed, match="in time"):
            run(limits["payload"], left=limits.get("left", 60.0), http_allowed_targets=allowed)
        assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"url": "http://127.0.0.1/"}, "payload.url: .*loopback"),
        ({"url": "ftp://example.org/"}, "payload.url: must begin with http"),
        ({"url": 1}, "payload.url: .*string"),
        ({}, "payload.url: Field required"),
        ({"url": PUBLIC, "header": {}}, "payload.header: Extra"),
        ({"url": PUBLIC, "method": "post"}, "payload.method"),
        ({"url": PUBLIC, "method": "CONNECT"}, "payload.method"),
        ({"url": PUBLIC, "json": 1, "body": "x"}, "give one of them"),
        ({"url": PUBLIC, "method": "GET", "json": 1}, "a GET has no body"),
        ({"url": PUBLIC, "timeout": 0}, "payload.timeout"),
        ({"url": PUBLIC, "timeout": 3_601}, "payload.timeout"),
        ({"url": PUBLIC, "expect": ["6xx"]}, "payload.expect"),
        ({"url": PUBLIC, "expect": [99]}, "100 to 599"),
        ({"url": PUBLIC, "retry_on": [True]}, "payload.retry_on"),
        ({"url": PUBLIC, "headers": {"Host": "secret"}}, "host is set by DJPS"),
        ({"url": PUBLIC, "headers": {"Transfer-Encoding": "secret"}}, "transfer-encoding is set"),
        ({"url": PUBLIC, "headers": {"webhook-signature": "secret"}}, "webhook-signature is set"),
        ({"url": PUBLIC, "headers": {"X-Job-Id": "secret"}}, "x-job-id is set"),
        ({"url": PUBLIC, "headers": {"A": "secret", "a": "secret"}}, "a is given twice"),
        ({"url": PUBLIC, "headers": {"A": "secret\r\nB: 1"}}, "value of a must be printable"),
        ({"url": PUBLIC, "headers": {"A:": "secret"}}, "no header name"),
        ({"url": PUBLIC, "headers": {str(n): "secret" for n in range(51)}}, "at most 50 headers"),
        ({"url": PUBLIC, "headers": {"A": "secret" * 5_000}}, "16384 characters"),
    ],
)
def test_a_payload_that_breaks_a_rule_is_discarded_by_name_and_without_its_values(payload, says):
    with pytest.raises(Discard, match=says) as discarded:
        read_payload(payload)
    assert "secret" not in str(discarded.value)


def test_the_defaults_of_a_payload():
    payload = HttpPayload.model_validate({"url": PUBLIC})
    assert (payload.method, payload.expect, payload.retry_on, payload.timeout) == ("POST", ["2xx"], [], None)
    assert payload.content() is None
