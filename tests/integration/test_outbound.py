"""The guarded call against real servers on loopback: what must be reached is, what must not be never is."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from unittest.mock import Mock

import pytest
import trustme
from listener import listening

from webapp.outbound import guard as guarding
from webapp.outbound.call import MAX_REDIRECTS, Caller, CallFailed, Request, authorities, redirected
from webapp.outbound.guard import MOST_ADDRESSES, Guard, NotResolved, resolve
from webapp.outbound.urls import Endpoint, Rules, TargetRefused, read_url
from webapp.settings.targets import read_targets

#: Addresses that a resolver may give and that lead to this machine or its neighbours.
INTERNAL = [
    "127.0.0.1",
    "0.0.0.0",  # noqa: S104 - nothing binds to it
    "10.0.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::127.0.0.1",
    "64:ff9b::127.0.0.1",
    "2002:7f00:1::",
    "2001::1",
    "fec0::1",
    "fe80::1%lo",
    "fd00:ec2::254",
]


class Answer(BaseHTTPRequestHandler):
    """Remembers who called, and answers as the path says."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        length = int(self.headers.get("Content-Length", 0))
        self.server.asked.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))
        word, _, rest = self.path.partition("?")[0].lstrip("/").partition("/")
        getattr(self, f"say_{word}", self.say_status)(rest or word)

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def do_HEAD(self):
        self.answer()

    def say_status(self, status):
        self.send_response(int(status) if status.isdigit() else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"ok")

    def say_to(self, rest):
        status, _, location = rest.partition("/")
        self.send_response(int(status))
        self.send_header("Location", self.server.location or location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def say_drip(self, part):
        """Sends a byte now and then: in the headers, or in a body with or without a length."""
        self.close_connection = True
        if part == "headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        else:
            length = b"Content-Length: 1000000\r\n" if part == "length" else b"Connection: close\r\n"
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n")
        self.keep_on(b"x", 0.02)

    def say_endless(self, _):
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        self.keep_on(b"x" * 10_000, 0)

    def say_chunked(self, _):
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
        )

    def say_short(self, _):
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")

    def say_nonsense(self, _):
        self.close_connection = True
        self.wfile.write(b"SSH-2.0-nothing\r\n")

    def keep_on(self, part, pause):
        with suppress(OSError):
            while not self.server.over.wait(pause):
                self.wfile.write(part)

    def log_message(self, *_):
        """Says nothing."""


@pytest.fixture
def service():
    """A server on loopback."""
    with listening(Answer) as server:
        server.asked, server.over, server.location = [], threading.Event(), ""
        yield server
        server.over.set()


def caller_to(service, *more, resolver=resolve, max_bytes=1_000, tls=None):
    """Calls that may reach this server by its address, and what else is named."""
    rules = Rules(
        frozenset({80, 443, service.server_port}),
        read_targets(",".join((f"127.0.0.1:{service.server_port}", *more))),
    )
    return Caller(Guard(rules, resolver), max_bytes=max_bytes, tls=tls)


@pytest.fixture
def caller(service):
    return caller_to(service)


@pytest.fixture
def stranger(service):
    """Makes a caller that allows the server's port and no internal address, over a resolver of one's own."""

    def make(*answers):
        given = iter(answers)
        last = list(answers)[-1:]
        resolver = lambda host: next(given, last[0])  # noqa: E731
        return Caller(Guard(Rules(frozenset({80, 443, service.server_port})), resolver), max_bytes=1_000)

    return make


def test_a_call_sends_what_it_was_given_and_returns_the_answer(caller, service):
    request = Request(
        "POST",
        f"{service.url}/200?q=1",
        {"X-Mine": "1", "content-type": "text/plain", "webhook-id": "forged"},
        b"body",
        own={"User-Agent": "DJPS"},
        sign=lambda body: {"webhook-id": f"signed-{len(body)}"},
    )
    answer = caller.call(request, 5)
    assert (answer.status, answer.body, answer.truncated) == (200, b"ok", False)
    assert answer.headers["content-length"] == "2"
    ((method, path, headers, body),) = service.asked
    assert (method, path, body) == ("POST", "/200?q=1", b"body")
    assert headers["X-Mine"] == "1"
    assert headers["Host"] == f"127.0.0.1:{service.server_port}"
    assert (headers["User-Agent"], headers["webhook-id"]) == ("DJPS", "signed-4")
    assert headers["Accept-Encoding"] == "identity"


def test_a_payload_may_name_its_own_user_agent(caller, service):
    caller.call(Request("GET", service.url, {"user-agent": "mine"}, own={"User-Agent": "DJPS"}), 5)
    assert [value for name, value in service.asked[0][2].items() if name.lower() == "user-agent"] == ["mine"]


def test_nothing_is_taken_from_the_environment(caller, service, monkeypatch, closed_port):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    assert caller.call(Request("GET", service.url), 5).status == 200


def test_chunks_are_put_together_and_a_head_has_no_body(caller, service):
    assert caller.call(Request("GET", f"{service.url}/chunked"), 5).body == b"abc"
    assert caller.call(Request("HEAD", f"{service.url}/200"), 5).body == b""


@pytest.mark.parametrize("address", INTERNAL)
def test_a_name_that_leads_inside_is_never_called(stranger, service, address):
    with pytest.raises(TargetRefused, match=r"innocent\.example must not be called"):
        stranger([address]).call(Request("POST", f"http://innocent.example:{service.server_port}/"), 5)
    assert service.asked == []


def test_one_internal_address_among_many_is_enough_to_refuse(stranger, service):
    with pytest.raises(TargetRefused, match="loopback"):
        stranger(["8.8.8.8", "127.0.0.1"]).call(
            Request("GET", f"http://two.example:{service.server_port}/"), 5
        )
    assert service.asked == []


def test_a_name_is_resolved_once_and_what_it_says_later_leads_nowhere(service, monkeypatch):
    # The first answer is the server's address under a name that is allowed there; the second would be another's.
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])
    asked = []

    def resolver(host):
        asked.append(host)
        return next(answers)

    url = f"http://rebinding.example:{service.server_port}/"
    caller = caller_to(service, resolver=resolver)
    assert caller.call(Request("GET", url), 5).status == 200
    assert asked == ["rebinding.example"]
    with pytest.raises(TargetRefused, match=r"127\.0\.0\.2 is loopback"):
        caller.call(Request("GET", url), 5)
    assert len(service.asked) == 1


def test_a_rebinding_name_is_connected_to_at_the_address_that_was_judged(stranger, service, monkeypatch):
    connected = []

    def connect(self):
        connected.append(self.host)
        raise ConnectionRefusedError("a stand-in for the public internet")

    monkeypatch.setattr("webapp.outbound.call.HTTPConnection.connect", connect)
    with pytest.raises(CallFailed, match="ConnectionRefusedError"):
        stranger(["8.8.8.8"], ["127.0.0.1"]).call(
            Request("GET", f"http://rebinding.example:{service.server_port}/"), 5
        )
    assert connected == ["8.8.8.8"]
    assert service.asked == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/",
        "http://127.0.0.2:{port}/secret",
        "http://[::1]:{port}/secret",
        "http://2130706433:{port}/secret",
        "http://0x7f.1:{port}/secret",
        "http://0177.0.0.1:{port}/secret",
        "http://[::ffff:7f00:1]:{port}/secret",
        "http://localhost:{port}/secret",
        "http://user@127.0.0.1:{port}/secret",
        "//127.0.0.2:{port}/secret",
        "file:///etc/passwd",
        "gopher://127.0.0.1:{port}/",
        "http://127.0.0.1:{port}\\@x/secret",
        "http://[oops/",
    ],
)
def test_a_redirect_inside_is_not_followed(service, status, location):
    # The server stands for a public one: only the name it is called by is allowed.
    rules = Rules(frozenset({80}), read_targets(f"public.example:{service.server_port}"))
    caller = Caller(Guard(rules, lambda host: ["127.0.0.1"]), max_bytes=1_000)
    service.location = location.format(port=service.server_port)
    with pytest.raises(TargetRefused):
        caller.call(Request("POST", f"http://public.example:{service.server_port}/to/{status}"), 5)
    assert len(service.asked) == 1


def test_redirects_are_followed_so_far_and_no_further(caller, service):
    def chain(length):
        return service.url + f"/to/307/{service.url}" * length + "/200"

    assert caller.call(Request("POST", chain(MAX_REDIRECTS), body=b"x"), 5).status == 200
    assert {(method, body) for method, _, _, body in service.asked} == {("POST", b"x")}
    with pytest.raises(TargetRefused, match=f"more than {MAX_REDIRECTS} redirects"):
        caller.call(Request("POST", chain(MAX_REDIRECTS + 1)), 5)


def test_a_redirect_without_a_place_is_an_answer(caller, service):
    assert caller.call(Request("GET", f"{service.url}/304"), 5).status == 304
    assert caller.call(Request("GET", f"{service.url}/302"), 5).status == 302


def test_another_origin_sees_neither_credentials_nor_signature(service):
    caller = caller_to(service, f"other:{service.server_port}", resolver=lambda host: ["127.0.0.1"])
    secret = {"Authorization": "Bearer x", "Cookie": "a=b", "X-Api-Key": "k", "Accept": "a/b"}
    request = Request(
        "POST",
        f"{service.url}/to/307/http://other:{service.server_port}/200",
        secret,
        b"x",
        own={"X-Job-Id": "1"},
        sign=lambda body: {"webhook-signature": "v1,x"},
    )
    assert caller.call(request, 5).status == 200
    first, second = (headers for _, _, headers, _ in service.asked)
    assert {*secret, "webhook-signature", "X-Job-Id"} <= set(first)
    assert not {"Authorization", "Cookie", "X-Api-Key", "webhook-signature"} & set(second)
    assert {"Accept", "X-Job-Id"} <= set(second)
    assert second["Host"] == f"other:{service.server_port}"


HERE = Endpoint("https", "a.example", 443, "/dir/x?q=1")


@pytest.mark.parametrize(
    ("method", "status", "after"),
    [
        ("POST", 301, "GET"),
        ("POST", 302, "GET"),
        ("PUT", 302, "PUT"),
        ("PUT", 303, "GET"),
        ("HEAD", 303, "HEAD"),
        ("POST", 307, "POST"),
        ("DELETE", 308, "DELETE"),
    ],
)
def test_a_redirect_keeps_or_turns_the_method_as_browsers_do(method, status, after):
    request = Request(method, "https://a.example/dir/x?q=1", {"Content-Type": "a/b", "A": "1"}, b"x")
    followed = redirected(request, HERE, status, "y")
    assert (followed.method, followed.url) == (after, "https://a.example/dir/y")
    kept = method == after
    assert followed.body == (b"x" if kept else None)
    assert set(followed.headers) == ({"Content-Type", "A"} if kept else {"A"})


@pytest.mark.parametrize("location", ["http://a.example/", "ftp://a.example/", "javascript:1"])
def test_a_redirect_never_leaves_https(location):
    with pytest.raises(TargetRefused, match="leaves https"):
        redirected(Request("GET", "https://a.example/"), HERE, 302, location)


@pytest.mark.parametrize("part", ["headers", "length", "body"])
def test_a_server_that_drips_is_cut_off_in_time(caller, service, part):
    began = time.monotonic()
    with pytest.raises(CallFailed, match="in time"):
        caller.call(Request("GET", f"{service.url}/drip/{part}"), 0.5)
    assert time.monotonic() - began < 2


def test_an_endless_body_is_read_as_far_as_is_kept(caller, service):
    answer = caller.call(Request("GET", f"{service.url}/endless"), 5)
    assert (len(answer.body), answer.truncated) == (1_000, True)


@pytest.mark.parametrize("path", ["short", "nonsense"])
def test_half_an_answer_is_none(caller, service, path):
    with pytest.raises(CallFailed, match=rf"^http://127\.0\.0\.1:{service.server_port}: \w+"):
        caller.call(Request("GET", f"{service.url}/{path}?hidden=1"), 5)


def test_a_failure_tells_the_origin_and_no_secret(caller, service):
    with pytest.raises(CallFailed) as failed:
        caller.call(Request("GET", f"{service.url}/nonsense?hidden=1"), 5)
    assert "hidden" not in str(failed.value)


def test_no_one_there_is_a_failure(closed_port):
    rules = Rules(frozenset({80}), read_targets(f"127.0.0.1:{closed_port}"))
    with pytest.raises(CallFailed, match="NewConnectionError"):
        Caller(Guard(rules), max_bytes=1).call(Request("GET", f"http://127.0.0.1:{closed_port}/"), 5)


def test_a_server_that_says_nothing_is_waited_for_so_long(silent_port):
    rules = Rules(frozenset({80}), read_targets(f"127.0.0.1:{silent_port}"))
    began = time.monotonic()
    with pytest.raises(CallFailed, match="no answer in time"):
        Caller(Guard(rules), max_bytes=1).call(Request("GET", f"http://127.0.0.1:{silent_port}/"), 0.3)
    assert time.monotonic() - began < 2


def test_no_time_is_no_call(caller, service):
    with pytest.raises(CallFailed, match="in time"):
        caller.call(Request("GET", service.url), 0)
    assert service.asked == []


def test_the_next_address_is_tried_when_one_does_not_answer(service):
    caller = caller_to(
        service, f"dual:{service.server_port}", resolver=lambda host: ["127.0.0.3", "127.0.0.1"]
    )
    assert caller.call(Request("GET", f"http://dual:{service.server_port}/200"), 5).status == 200


class TestNames:
    """How the guard resolves."""

    endpoint = Endpoint("http", "a.example", 80, "/")

    def test_the_systems_resolver_finds_every_address(self):
        assert "127.0.0.1" in resolve("localhost")

    def test_a_resolver_that_hangs_is_given_up(self):
        free = threading.Event()
        began = time.monotonic()
        with pytest.raises(NotResolved, match="was not resolved within"):
            Guard(Rules(frozenset({80})), lambda host: free.wait(10) and []).addresses(self.endpoint, 0.05)
        assert time.monotonic() - began < 2
        free.set()

    def test_only_so_many_look_ups_hang_at_a_time(self, monkeypatch):
        monkeypatch.setattr(guarding, "_lookups", threading.BoundedSemaphore(1))
        free = threading.Event()
        guard = Guard(Rules(frozenset({80})), lambda host: free.wait(10) and [])
        with pytest.raises(NotResolved, match="within"):
            guard.addresses(self.endpoint, 0.01)
        with pytest.raises(NotResolved, match="too many look-ups"):
            guard.addresses(self.endpoint, 0.01)
        free.set()

    def test_where_the_system_gives_no_thread_no_place_is_lost(self, monkeypatch):
        monkeypatch.setattr(guarding, "_lookups", threading.BoundedSemaphore(1))
        guard = Guard(Rules(frozenset({80})), lambda host: ["192.0.2.1"])
        with monkeypatch.context() as patched:
            patched.setattr(
                threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread"))
            )
            for _ in range(2):
                with pytest.raises(NotResolved, match="no thread"):
                    guard.addresses(self.endpoint, 1.0)
        with pytest.raises(TargetRefused):
            guard.addresses(self.endpoint, 1.0)

    def test_a_name_no_one_knows_is_a_failure_that_may_pass(self, service):
        def unknown(host):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        caller = Caller(Guard(Rules(frozenset({80})), unknown), max_bytes=1)
        with pytest.raises(CallFailed, match="could not be resolved"):
            caller.call(Request("GET", "http://nowhere.example/"), 1)

    def test_a_name_without_addresses_is_a_failure(self):
        with pytest.raises(NotResolved, match="has no address"):
            Guard(Rules(frozenset({80})), lambda host: []).addresses(self.endpoint, 1)

    def test_not_all_of_many_addresses_are_tried(self):
        guard = Guard(Rules(frozenset({80})), lambda host: ["8.8.8.8"] * 50)
        assert guard.addresses(self.endpoint, 1) == [ip_address("8.8.8.8")] * MOST_ADDRESSES

    def test_a_port_that_a_network_has_is_no_port_of_others(self):
        rules = Rules(frozenset({80}), read_targets("10.0.0.0/8:9000"))
        endpoint = read_url("http://a.example:9000/", rules)
        assert Guard(rules, lambda host: ["10.0.0.1"]).addresses(endpoint, 1) == [ip_address("10.0.0.1")]
        with pytest.raises(TargetRefused, match=r"port 9000 of 8\.8\.8\.8"):
            Guard(rules, lambda host: ["8.8.8.8"]).addresses(endpoint, 1)


class TestTls:
    """The connection goes to an address, the certificate is the name's."""

    @pytest.fixture
    def authority(self):
        return trustme.CA()

    @pytest.fixture
    def secured(self, service, authority):
        """The server with a certificate for one name, and the names it was asked for."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("right.example").configure_cert(context)
        service.names = []
        context.sni_callback = lambda _socket, name, _context: service.names.append(name)
        service.socket = context.wrap_socket(service.socket, server_side=True)
        return service

    def call(self, server, authority, name, path="200", timeout=5.0):
        context = ssl.create_default_context()
        authority.configure_trust(context)
        caller = caller_to(
            server,
            f"{name}:{server.server_port}",
            resolver=lambda host: ["127.0.0.1"],
            tls=context,
        )
        return caller.call(Request("GET", f"https://{name}:{server.server_port}/{path}"), timeout)

    def test_the_name_is_asked_for_and_verified(self, secured, authority):
        assert self.call(secured, authority, "right.example").status == 200
        assert secured.names == ["right.example"]
        assert secured.asked[0][2]["Host"] == f"right.example:{secured.server_port}"

    def test_a_certificate_of_another_name_is_refused(self, secured, authority):
        with pytest.raises(CallFailed, match="CERTIFICATE_VERIFY_FAILED"):
            self.call(secured, authority, "wrong.example")
        assert secured.asked == []

    def test_an_authority_no_one_knows_is_refused(self, secured):
        with pytest.raises(CallFailed, match="CERTIFICATE_VERIFY_FAILED"):
            self.call(secured, trustme.CA(), "right.example")
        assert secured.asked == []

    def test_a_server_that_drips_over_tls_is_cut_off_too(self, secured, authority):
        began = time.monotonic()
        with pytest.raises(CallFailed, match="in time"):
            self.call(secured, authority, "right.example", "drip/length", timeout=0.5)
        assert time.monotonic() - began < 2

    def test_the_known_authorities_verify(self):
        assert authorities().verify_mode is ssl.CERT_REQUIRED
        assert authorities().check_hostname
