"""A request as it arrives, in pieces of any size; and what is kept of it meanwhile."""

from __future__ import annotations

import socket
from itertools import pairwise

import pytest
from gunicorn.config import Config
from gunicorn.http import errors
from hypothesis import given
from hypothesis import strategies as st

from webapp.server import limits, refusals
from webapp.server.arrival import Arrival, EndedEarly, TooFine, WholeBody
from webapp.server.chunks import ChunkScan
from webapp.server.connection import Connection
from webapp.server.room import Room

CFG = Config()
CLIENT = ("127.0.0.1", 1)
HEAD = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\n"
NEXT = b"GET /health HTTP/1.1\r\n\r\n"
REQUESTS = {
    HEAD + b"\r\n": b"",
    HEAD + b"Content-Length: 5\r\n\r\nhello": b"hello",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n": b"",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n": b"hello",
    HEAD + b'Transfer-Encoding: chunked\r\n\r\n2;a="b"\r\nhe\r\n0003\r\nllo\r\n0;z\r\nX: y\r\nY: z\r\n\r\n': b"hello",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n": b"\r\n\r\n",
}  # fmt: skip


def fed(arrival, data, cuts):
    """Feeds bytes in pieces; gives the requests that were complete, with their bodies."""
    found = []
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        arrival.add(data[start:end])
        while (arrival.request is not None or arrival.read_head()) and arrival.is_complete():
            request = arrival.give_body()
            found.append((request.path, request.body.read()))
    return found


@given(
    st.lists(st.sampled_from(list(REQUESTS)), min_size=1, max_size=3),
    st.lists(st.integers(0, 999), max_size=9),
)
def test_a_request_is_the_same_in_whichever_pieces_it_comes(requests, cuts):
    found = fed(Arrival(CFG, CLIENT), b"".join(requests) + NEXT, cuts)
    assert found == [("/jobs", REQUESTS[one]) for one in requests] + [("/health", b"")]


def test_a_body_in_chunks_is_one_with_a_length_from_there_on():
    arrival = Arrival(CFG, CLIENT)
    arrival.add(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    assert arrival.read_head()
    assert arrival.is_complete()
    assert dict(arrival.give_body().headers) == {"HOST": "localhost", "CONTENT-LENGTH": "5"}


@given(st.binary(max_size=60))
def test_whatever_is_in_chunks_ends_or_goes_on_and_never_breaks(body):
    scan = ChunkScan(0)
    if scan.look(bytearray(body)):
        assert 0 <= scan.end <= len(body)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"zz\r\n", errors.InvalidChunkSize),
        (b"\r\n", errors.InvalidChunkSize),
        (b"3\r\nabcdef\r\n", errors.ChunkMissingTerminator),
        (b"3;=\r\nabc\r\n0\r\n\r\n", errors.InvalidChunkExtension),
        (b"0\r\nbroken\r\n\r\n", errors.InvalidHeader),
        (b"1" * 9_000, errors.InvalidChunkSize),
        (b"0\r\n" + b"x" * 9_000, errors.ChunkMissingTerminator),
        (b"1\r\nx\r\n" * 20_000, TooFine),
    ],
)
def test_a_broken_chunk_is_known_without_its_end(body, error):
    arrival = Arrival(CFG, CLIENT)
    arrival.add(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    assert arrival.read_head()
    assert arrival.is_complete()
    with pytest.raises(error):
        arrival.give_body()


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (b"GET / HTTP/1.1\nHost: x\n", errors.InvalidRequestLine),
        (b"x" * (limits.MAX_HEAD + 1), errors.LimitRequestLine),
        (b"GET / HTTP/1.1\r\n" + b"x" * limits.MAX_HEAD, errors.LimitRequestHeaders),
        (b"\r\n\r\n", (errors.InvalidRequestLine, EndedEarly)),
    ],
)
def test_a_head_that_will_not_do_is_refused_without_its_end(head, error):
    arrival = Arrival(CFG, CLIENT)
    arrival.add(head)
    with pytest.raises(error):
        arrival.read_head()


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (errors.LimitRequestLine(5_000, 4_094), 414, "at most 4094 bytes"),
        (errors.LimitRequestHeaders("x"), 431, "at most 100 headers"),
        (errors.UnsupportedTransferCoding("sdch"), 501, "given: 'sdch'"),
        (errors.ExpectationFailed("a\r\nb"), 417, "given: 'a\\r\\nb'"),
        (errors.InvalidRequestLine("\xff\r\n"), 400, "Invalid HTTP request line"),
        (errors.InvalidHeaderName("x" * 999), 400, "Invalid HTTP header name"),
        (errors.InvalidResponseHeader("X"), 500, "an error inside DJPS"),
        (EndedEarly("early"), 400, "early"),
        (RuntimeError("secret"), 500, "an error inside DJPS"),
    ],
)
def test_every_error_has_a_status_and_words_that_can_be_shown(error, status, words):
    found, said = refusals.judge(error, CFG)
    assert (found, words in said, said.isascii(), len(said) < 400) == (status, True, True, True)


def test_a_body_that_is_read_at_once_is_not_kept():
    body = WholeBody(b"x" * 100)
    assert (body.read(100), body.read(), body.getbuffer().nbytes) == (b"x" * 100, b"", 0)
    body = WholeBody(b"abc")
    assert (body.read(2), body.read(2), body.read(2)) == (b"ab", b"c", b"")


def test_room_is_given_in_the_order_it_is_asked_for():
    room = Room(10)
    assert [room.take(name, size) for name, size in (("a", 6), ("b", 6), ("c", 1))] == [True, False, False]
    # Who gives up lets those behind it go first.
    assert room.forget("b") == [("c", 1)]
    assert room.take("d", 3)
    assert not room.take("e", 10)
    assert (room.give(6), room.give(1), room.give(3)) == ([], [], [("e", 10)])


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    yield Connection(CFG, ours, CLIENT, None), theirs
    ours.close()
    theirs.close()


def test_what_the_kernel_does_not_take_is_kept_and_sent_later(pair):
    connection, client = pair
    connection.begin_answer()
    body = bytes(range(256)) * 8_192
    connection.sendall(b"head")
    assert connection.unsent == 0
    connection.sendall(body)
    connection.sendall(b"end")
    connection.flush()
    assert 0 < connection.unsent < len(body)
    read = b""
    client.settimeout(5)
    while len(read) < len(body) + 7:
        read += client.recv(65_536)
        connection.send_more()
    assert (read == b"head" + body + b"end", connection.unsent, connection.send_more()) == (True, 0, True)


def test_a_head_that_nothing_follows_is_sent_as_well(pair):
    connection, client = pair
    connection.begin_answer()
    connection.sendall(b"head")
    connection.flush()
    assert client.recv(10) == b"head"


def test_a_stream_that_is_not_read_waits_and_gives_up(pair, monkeypatch):
    connection, _ = pair
    monkeypatch.setattr("webapp.server.connection.MAX_AHEAD", 1_000)
    monkeypatch.setattr("webapp.server.connection.answer_seconds", lambda _size: 0.05)
    connection.begin_answer()
    connection.sendall(b"head")
    with pytest.raises(TimeoutError, match="does not read"):
        any(connection.sendall(b"x" * 10_000) for _ in range(2_000))
