"""What a process does with its connections when they are too many, too slow, or broken."""

from __future__ import annotations

import selectors
import socket
from contextlib import suppress
from types import SimpleNamespace

import pytest
from clock import SettableClock
from gunicorn.config import Config

from webapp.server import connection as connections
from webapp.server import limits, loop
from webapp.server.connection import Connection, State
from webapp.server.loop import Loop

HEAD = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def pair():
    """Makes connections, each with its client's socket; all are closed in the end."""
    made = []

    def make() -> tuple[Connection, socket.socket]:
        own, client = socket.socketpair()
        made.extend((own, client))
        client.settimeout(5)
        return Connection(Config(), own, ("127.0.0.1", 1), ("127.0.0.1", 2)), client

    yield make
    for one in made:
        with suppress(OSError):
            one.close()


@pytest.fixture
def clock(monkeypatch):
    """The clock of the loop."""
    settable = SettableClock()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=settable))
    return settable


@pytest.fixture
def of():
    """Makes a loop that takes so many connections; what is complete is put into `worked`."""
    pollers = []

    def make(most: int = 10, worked: list[Connection] | None = None) -> Loop:
        pollers.append(selectors.DefaultSelector())
        work = ([] if worked is None else worked).append
        return Loop(Config(), pollers[-1], work, lambda _path: 1024**2, most)

    yield make
    for poller in pollers:
        poller.close()


def turn(rooms: Loop) -> None:
    """Handles what is ready."""
    for key, _ in rooms._poller.select(0):
        key.data(key.fileobj)


def test_too_many_connections_close_the_one_that_is_missed_least(of, pair, clock):
    """An idle one goes before one whose request is on its way, and the oldest idle one first."""
    rooms = of(most=3)
    made = [pair() for _ in range(4)]
    for connection, client in made[:3]:
        rooms.take(connection)
        clock.advance(0.1)
        if connection is made[0][0]:
            client.send(HEAD)
            turn(rooms)
    rooms.take(made[3][0])
    assert [one.state for one, _ in made] == [State.HEAD, State.CLOSED, State.IDLE, State.IDLE]
    assert made[1][1].recv(1) == b""


def test_where_none_can_be_closed_the_new_one_is_refused(of, pair):
    worked = []
    rooms = of(most=1, worked=worked)
    (busy, its_client), (late, client) = pair(), pair()
    rooms.take(busy)
    its_client.send(HEAD + b"\r\n")
    turn(rooms)
    assert worked == [busy]
    rooms.take(late)
    assert client.recv(65_536).startswith(b"HTTP/1.1 503 ")
    rooms.close_all()
    assert {busy.state, late.state} == {State.CLOSED}
    assert rooms.connections == set()


def test_what_goes_wrong_with_one_connection_ends_that_one(of, pair, monkeypatch, caplog):
    rooms = of()
    (broken, its_client), (other, client) = pair(), pair()
    rooms.take(broken)
    rooms.take(other)

    def fail(*_):
        raise RuntimeError("of our own")

    monkeypatch.setattr(broken.arrival, "add", fail)
    its_client.send(HEAD)
    client.send(HEAD)
    turn(rooms)
    assert (broken.state, other.state) == (State.CLOSED, State.HEAD)
    assert "connection failed unexpectedly" in caplog.messages
    # A step for one that is closed is none.
    rooms.go_on(broken, stays=True)
    assert broken.state is State.CLOSED


def test_a_wake_up_without_a_byte_changes_nothing(of, pair):
    rooms = of()
    connection, _ = pair()
    rooms.take(connection)
    rooms._on_readable(connection)
    assert connection.state is State.IDLE


def test_a_refused_client_that_goes_on_sending_is_ended(of, pair, monkeypatch):
    monkeypatch.setattr(limits, "LINGER_BYTES", 10)
    rooms = of()
    connection, client = pair()
    rooms.take(connection)
    client.send(b"\x00 no request\r\n\r\n")
    turn(rooms)
    assert connection.state is State.LINGERING
    assert client.recv(65_536).startswith(b"HTTP/1.1 400 ")
    client.send(b"x" * 11)
    turn(rooms)
    assert connection.state is State.CLOSED


def test_a_body_that_waits_for_room_is_refused_when_its_time_is_over(of, pair, clock, monkeypatch):
    monkeypatch.setattr(limits, "ROOM", limits.FREE_BODY * 2)
    rooms = of()
    (first, its_client), (second, client) = pair(), pair()
    for connection, from_client in ((first, its_client), (second, client)):
        rooms.take(connection)
        from_client.send(HEAD + f"Content-Length: {limits.FREE_BODY + 1}\r\n\r\n".encode())
    turn(rooms)
    assert {first.state, second.state} == {State.BODY, State.QUEUED}
    queued, waiting = (first, its_client) if first.state is State.QUEUED else (second, client)
    queued.deadline = 0.0
    rooms.end_late()
    assert waiting.recv(65_536).startswith(b"HTTP/1.1 503 ")
    assert queued.state is State.LINGERING


def test_a_refusal_that_is_not_read_ends_the_connection(of, pair, monkeypatch):
    rooms = of()
    connection, client = pair()
    rooms.take(connection)
    monkeypatch.setattr(Connection, "send_more", lambda _self: False)
    client.send(b"\x00 no request\r\n\r\n")
    turn(rooms)
    assert connection.state is State.CLOSED


def test_a_stream_waits_for_a_client_that_reads_nothing_and_gives_up(pair, monkeypatch):
    connection, client = pair()
    monkeypatch.setattr(connections, "answer_seconds", lambda _size: 0.01)
    while connection.unsent <= limits.MAX_AHEAD:
        connection.sendall(b"x" * 65_536)
    with pytest.raises(TimeoutError, match="does not read"):
        connection.sendall(b"x")
    assert client.recv(1) == b"x"


def test_what_the_kernel_does_not_say_is_nothing(pair, monkeypatch):
    connection, _ = pair()

    def refuse(*_):
        raise OSError("not of this socket")

    monkeypatch.setattr(connections.fcntl, "ioctl", refuse)
    assert connection.undelivered() == 0


def test_gunicorn_cannot_shut_a_connection_down_and_the_loop_can_close_it_twice(pair):
    connection, client = pair()
    with pytest.raises(OSError, match="the loop ends"):
        connection.shutdown(socket.SHUT_RDWR)
    connection.socket.close()
    connection.close(reset=True)
    assert connection.state is State.CLOSED
    assert client.recv(1) == b""
