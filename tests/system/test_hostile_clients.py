"""Clients that are slow, broken or greedy, over sockets, against the gunicorn that serves the API."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from pathlib import Path

import psutil
import pytest
import requests
import yaml

from webapp.server import limits

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
PROBLEM = "application/problem+json"
#: Longest that a connection which is late may be kept, seconds: until the next look for such, and to see its answer.
SLACK = 2.0


def connected(server, *, receive=None):
    line = socket.socket()
    if receive is not None:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    line.settimeout(40)
    line.connect(("127.0.0.1", server.api_port))
    return line


def read_all(line):
    """What comes until the server ends the connection."""
    read = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := line.recv(65_536):
            read += piece
    return read


def parsed(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split(" ")[1]), headers, body


def ask(server, request, *, end=False):
    """Sends bytes as they are, and gives the answer."""
    with connected(server) as line:
        line.sendall(request)
        if end:
            line.shutdown(socket.SHUT_WR)
        return parsed(read_all(line))


def assert_problem(answer, status):
    given, headers, body = answer
    assert given == status, (given, body)
    assert (headers["content-type"], headers["connection"]) == (PROBLEM, "close")
    assert body.endswith(b"}\n")
    assert int(headers["content-length"]) == len(body)
    document = json.loads(body)
    assert (document["status"], document["request_id"]) == (status, headers["x-request-id"])
    assert document["title"]
    assert "html" not in document["detail"]
    return document


def get(path="/health", version="HTTP/1.1", headers=""):
    return f"GET {path} {version}\r\nHost: localhost\r\n{headers}\r\n".encode("latin-1")


def post(body=b"", headers="", path="/jobs"):
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}\r\n"
    return head.encode() + body


def chunked(body, path="/jobs"):
    return post(body, "Transfer-Encoding: chunked\r\n", path)


def sized(size, body=b"", path="/jobs"):
    return post(body, f"Content-Length: {size}\r\n", path)


JOB = b'{"payload": {"task": "noop"}}'
REFUSED = {
    "a long request line": (get("/" + "x" * 5_000), 414),
    "a request line without an end": (b"GET /" + b"x" * 100_000, 414),
    "a long header": (get(headers=f"X: {'x' * 9_000}\r\n"), 431),
    "a hundred headers too many": (get(headers="".join(f"X-{n}: 1\r\n" for n in range(200))), 431),
    "a head without an end": (get()[:-2] + b"X: y\r\n" * 20_000, 431),
    "a head of many long headers": (get(headers="".join(f"X-{n}: {'x' * 8_000}\r\n" for n in range(9))), 431),
    "no request": (b"\r\n\r\n", 400),
    "noise": (b"\x16\x03\x01\x02\x00\x01\x00\n\x01\xfc", 400),
    "a bare line feed": (b"GET /health HTTP/1.1\nHost: localhost\n\n", 400),
    "a lower case method": (get().replace(b"GET", b"get"), 400),
    "another protocol": (get(version="HTTP/3.0"), 400),
    "two hosts": (get(headers="Host: evil.example\r\n"), 400),
    "a header without a name": (get(headers=": x\r\n"), 400),
    "a folded header": (get(headers="X: a\r\n b\r\n"), 400),
    "two lengths": (post(JOB, "Content-Length: 29\r\nContent-Length: 30\r\n"), 400),
    "a length that is no number": (post(JOB, "Content-Length: 2x\r\n"), 400),
    "a length and chunks": (post(b"0\r\n\r\n", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400),
    "another coding": (post(b"", "Transfer-Encoding: sdch\r\n"), 501),
    "a coding without chunks": (post(b"", "Transfer-Encoding: gzip\r\n"), 400),
    "an expectation": (get(headers="Expect: cookies\r\n"), 417),
    "a chunk without a size": (chunked(b"zz\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk with an empty size": (chunked(b"\r\n\r\n"), 400),
    "a negative chunk": (chunked(b"-5\r\nhello\r\n0\r\n\r\n"), 400),
    "a chunk longer than its size": (chunked(b"3\r\nabcdef\r\n0\r\n\r\n"), 400),
    "a chunk with a wrong extension": (chunked(b"3;=\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk of 2**80 bytes": (chunked(b"1" + b"0" * 20 + b"\r\n"), 400),
    "a chunk of 2**40 bytes": (chunked(b"10000000000\r\n"), 413),
    "chunks beyond the limit": (chunked((b"10000\r\n" + b"x" * 65_536 + b"\r\n") * 5 + b"0\r\n\r\n"), 413),
    "chunks of a byte": (chunked(b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n", "/jobs/batch"), 400),
    "a trailer without an end": (chunked(b"0\r\n" + b"x" * 9_000), 400),
    "a forbidden trailer": (chunked(b"0\r\nContent-Length: 5\r\n\r\n"), 400),
    "a length beyond the limit": (sized(10_000_000), 413),
    "a batch beyond its limit": (sized(20_000_000, path="/jobs/batch"), 413),
}  # fmt: skip
ENDED = {
    "in the head": (b"GET /health HT", 400),
    "in the body": (sized(100, JOB), 400),
    "in a large body": (sized(100_000, JOB), 400),
    "in a chunk": (chunked(b"20\r\n{}"), 400),
    "before the last chunk": (chunked(b"2\r\n{}\r\n"), 400),
    "in the trailer": (chunked(b"2\r\n{}\r\n0\r\nX: y"), 400),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_server_refuses_itself_is_told_in_a_problem_document(server, name):
    request, status = REFUSED[name]
    assert_problem(ask(server, request), status)
    assert server.ready()


@pytest.mark.parametrize("name", ENDED)
def test_a_request_that_ends_early_is_told_so_at_once(server, name):
    request, status = ENDED[name]
    began = time.monotonic()
    assert "ended" in assert_problem(ask(server, request, end=True), status)["detail"]
    assert time.monotonic() - began < 1


def test_a_refusal_to_a_head_request_has_no_body(server):
    status, headers, body = ask(server, get("/" + "x" * 5_000).replace(b"GET", b"HEAD"))
    # The method is not known of a line that is too long.
    assert (status, body[-1:]) == (414, b"\n")
    status, headers, body = ask(server, sized(10_000_000).replace(b"POST", b"HEAD"))
    assert (status, body, int(headers["content-length"]) > 0) == (413, b"", True)


def test_chunks_are_read_with_extensions_and_trailers_and_the_connection_goes_on(server):
    body = b'5;a=b;c="d"\r\n{"pay\r\n18\r\nload": {"task": "noop"}}\r\n000\r\nX-Check: 1\r\n\r\n'
    with connected(server) as line:
        for _ in range(2):
            line.sendall(chunked(body))
            status, headers, _ = parsed(line.recv(65_536))
            assert (status, headers["connection"]) == (201, "keep-alive")


def test_a_request_may_come_a_byte_at_a_time(server):
    request = chunked(b"1D\r\n" + JOB + b"\r\n0\r\n\r\n")
    with connected(server) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request:
            line.send(bytes([byte]))
        assert parsed(line.recv(65_536))[0] == 201


def test_requests_that_are_sent_ahead_are_answered_in_their_order(server):
    ahead = get("/health") + sized(len(JOB), JOB) + chunked(b"1d\r\n" + JOB + b"\r\n0\r\n\r\n") + get("/none")
    answer = read_all_of(server, ahead + get("/health", headers="Connection: close\r\n"))
    statuses = [int(part.split(b" ")[0]) for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200, 201, 201, 404, 200]


def read_all_of(server, request):
    with connected(server) as line:
        line.sendall(request)
        return read_all(line)


@pytest.mark.parametrize("size", [len(JOB), 100_000])
def test_a_client_that_waits_for_a_word_gets_it(server, size):
    body = JOB[:-1] + b" " * (size - len(JOB)) + b"}"
    with connected(server) as line:
        line.sendall(post(headers=f"Content-Length: {size}\r\nExpect: 100-continue\r\n"))
        assert line.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        line.sendall(body)
        assert parsed(line.recv(65_536))[0] == 201
    # Of a body that must not come it is told at once.
    refused = ask(server, post(headers="Content-Length: 9999999\r\nExpect: 100-continue\r\n"))
    assert_problem(refused, 413)


def test_old_clients_and_those_that_want_no_more_are_let_go(server):
    for request in (get(version="HTTP/1.0"), get(headers="Connection: close\r\n")):
        status, headers, _ = ask(server, request)
        assert (status, headers["connection"]) == (200, "close")


def test_a_client_that_has_shut_its_side_is_answered(server):
    assert ask(server, sized(len(JOB), JOB), end=True)[0] == 201


def test_a_client_that_has_shut_its_side_and_reads_slowly_gets_all_of_its_answer(server):
    for version, count in (("HTTP/1.0", 1), ("HTTP/1.1", 8)):
        with connected(server, receive=4_096) as line:
            line.sendall(get("/openapi.json", version) * count)
            line.shutdown(socket.SHUT_WR)
            time.sleep(1)
            answer = read_all(line)
        _, headers, body = parsed(answer)
        assert answer.count(b" 200 OK\r\n") == count
        assert len(body) >= count * int(headers["content-length"])


def test_an_answer_that_is_never_read_is_dropped_with_all_that_the_kernel_has_of_it(server):
    with connected(server, receive=4_096) as line:
        line.sendall(get("/openapi.json"))
        poller = select.poll()
        poller.register(line, select.POLLRDHUP)
        assert poller.poll(1_000 * (limits.ANSWER_SECONDS + 2 * SLACK))


def test_slow_clients_are_ended_in_time(server):
    """All at once: each has a deadline of its own."""
    lines = {
        "nothing": (b"", limits.HEAD_SECONDS, None),
        "half a head": (b"POST /jobs HTTP/1.1\r\n", limits.HEAD_SECONDS, 408),
        "half a body": (sized(1_000, b'{"payload'), limits.BODY_SECONDS, 408),
        "half a chunk": (chunked(b"ff\r\n{"), limits.STALL_SECONDS, 408),
        "half a large body": (sized(200_000, b'{"payload'), limits.STALL_SECONDS, 408),
        "half a batch": (sized(10_000_000, b'{"jobs', "/jobs/batch"), limits.STALL_SECONDS, 408),
    }
    opened = {}
    began = time.monotonic()
    for name, (request, _, _) in lines.items():
        opened[name] = connected(server)
        opened[name].sendall(request)
    for name, (_, seconds, status) in sorted(lines.items(), key=lambda one: one[1][1]):
        answer = read_all(opened[name])
        took = time.monotonic() - began
        opened[name].close()
        assert seconds - 0.1 <= took <= seconds + SLACK, (name, took)
        if status is None:
            assert answer == b""
        else:
            assert "did not arrive in time" in assert_problem(parsed(answer), status)["detail"]


def test_a_byte_now_and_then_does_not_prolong_a_deadline(server):
    with connected(server) as head, connected(server) as body:
        head.sendall(b"GET /health HTTP/1.1\r\nX: ")
        body.sendall(sized(1_000))
        began = time.monotonic()
        ended = {}
        while len(ended) < 2 and time.monotonic() - began < 20:
            time.sleep(0.5)
            for name, line in (("head", head), ("body", body)):
                with contextlib.suppress(OSError):
                    line.send(b"x")
                if name not in ended and line in _readable(head, body):
                    ended[name] = (time.monotonic() - began, parsed(line.recv(65_536))[0])
    assert {name: status for name, (_, status) in ended.items()} == {"head": 408, "body": 408}
    assert ended["head"][0] <= limits.HEAD_SECONDS + SLACK
    assert ended["body"][0] <= limits.BODY_SECONDS + SLACK


def _readable(*lines):
    return select.select(lines, [], [], 0)[0]


def test_those_that_do_not_read_hold_no_thread_and_are_ended(server):
    for _ in range(20):
        server.post("noop", text="x" * 200_000)
    request = get("/jobs?limit=20")
    lines = [connected(server, receive=4_096) for _ in range(60)]
    for line in lines:
        line.sendall(request)
    began = time.monotonic()
    slowest = 0.0
    while time.monotonic() - began < 5:
        asked = time.monotonic()
        assert server.http.get(f"{server.url}/health", timeout=5).status_code == 200
        # It is answered in time; on a loaded machine that may be a refusal.
        answer = server.http.post(f"{server.url}/jobs", json={"payload": {"task": "noop"}}, timeout=5)
        assert answer.status_code in {201, 503}
        slowest = max(slowest, time.monotonic() - asked)
    # Without a thread it would hang until the first of them are ended.
    assert slowest < limits.ANSWER_SECONDS / 2
    for line in lines:
        # Whatever is left of the answer, its end has come by now, or does once a loaded machine has made it.
        line.settimeout(max(0.1, 60 - (time.monotonic() - began)))
        read_all(line)
        line.close()


def test_a_client_that_hangs_up_gives_its_place_back(server, eventually):
    job = server.post("sleep", seconds=1)
    wait = get(f"/jobs/{job['id']}?wait=60")
    events = get(f"/jobs/{job['id']}/events")
    sent = {connected(server): request for request in (wait, events, wait + get("/health"), events)}
    for line, request in sent.items():
        line.sendall(request)

    def has_place():
        return server.http.get(f"{server.url}/jobs/{job['id']}?wait=0.01", timeout=5).status_code == 200

    def all_wait():
        for line in _readable(*sent):
            if b" 503 " in line.recv(65_536):
                # This test's own question had the place.
                line.sendall(sent[line])
        return not has_place()

    eventually(all_wait)
    for line in sent:
        line.close()
    eventually(has_place, 2)


#: A text that takes most memory beside its bytes: four for each character, and more in JSON's escapes.
HEAVY = "é\U0001f600" * 42_000
BATCHES = 8


def memory_limits():
    """What the shipped files give to the API, bytes."""
    compose = yaml.safe_load((ROOT / "ops/docker/compose.yaml").read_text())
    given = compose["services"]["api"]["deploy"]["resources"]["limits"]["memory"]
    pod = next(yaml.safe_load_all((ROOT / "ops/kubernetes/api.yaml").read_text()))
    container = pod["spec"]["template"]["spec"]["containers"][0]
    return int(given.removesuffix("M")) * 1024**2, int(
        container["resources"]["limits"]["memory"].removesuffix("Mi")
    ) * 1024**2


def test_the_largest_load_that_is_allowed_stays_below_the_memory_that_is_given(another_fleet, database):
    fleet = another_fleet("memory", database)
    fleet.start("redis")
    fleet.migrate()
    fleet.start("api")
    fleet.wait_until(fleet.ready)
    job = {"payload": {"task": "noop", "text": HEAVY}}
    body = json.dumps({"jobs": [job] * 65}, ensure_ascii=False).encode()
    assert 15 * 1024**2 < len(body) <= 16 * 1024**2
    master = psutil.Process(fleet.processes["api"].pid)
    processes = [master, *master.children()]
    peak, answers = 0, []

    def stored():
        return sum(one.status_code == 200 for one in answers)

    def send():
        # As a client should: where a loaded machine had room for one of them only, it comes back.
        until = time.monotonic() + 60
        while True:
            answer = requests.post(
                f"{fleet.url}/jobs/batch", data=body, headers={"Content-Type": "application/json"}, timeout=60
            )
            answers.append(answer)
            if answer.status_code != 503 or stored() >= 2 or time.monotonic() > until:
                break
            time.sleep(int(answer.headers["Retry-After"]))

    senders = [threading.Thread(target=send) for _ in range(BATCHES)]
    for sender in senders:
        sender.start()
    while any(sender.is_alive() for sender in senders):
        peak = max(peak, sum(one.memory_full_info().pss for one in processes))
        time.sleep(0.02)
    # What is left is for the kernel's buffers.
    assert peak < 0.85 * min(memory_limits()), f"{peak / 1024**2:.0f} MiB"
    assert [one.status_code for one in answers if one.status_code not in (200, 503)] == []
    assert len(answers) >= BATCHES
    assert stored() >= 2
    assert all(one.headers["Retry-After"] for one in answers if one.status_code == 503)
    assert [one.pid for one in master.children()] == [one.pid for one in processes[1:]]
