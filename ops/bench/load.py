"""The load generator: prebuilt HTTP/1.1 requests over keep-alive sockets, driven by one epoll loop.

It spends some ten microseconds on a request, so that on two cores the server is what is measured. Every
HTTP target of a run is driven by this same code.
"""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from ops.bench.processes import BenchError
from ops.stack.ports import LOOPBACK

#: Longest wait for any answer, seconds.
ANSWER_PATIENCE = 30.0
#: Most bytes read at once.
READ_SIZE = 256 * 1024
#: How often a request is sent again when the server closed the connection under it.
MOST_RECONNECTS = 100

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


def request(method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """A complete request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {LOOPBACK}\r\nAccept: application/json\r\n"
    for name, value in (headers or {}).items():
        head += f"{name}: {value}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


@dataclass(slots=True)
class Load:
    """What a target answered.

    Args:
        seconds: from the first request to the last answer.
        latencies: seconds, in the order of the answers.
    """

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    @property
    def per_s(self) -> float:
        """Answers in a second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def require(self, what: str) -> None:
        """Makes sure that every answer was a success.

        Raises:
            BenchError: one was not, or there were none.
        """
        bad = {status: count for status, count in self.statuses.items() if not 200 <= status < 300}  # noqa: PLR2004
        if bad or not self.latencies:
            raise BenchError(f"{what} answered {bad or 'nothing'}")


class Connection:
    """One keep-alive connection with at most one request on its way."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.began = 0.0
        self.request = b""
        self._buffer = bytearray()
        self._socket = self._open()

    def _open(self) -> socket.socket:
        made = socket.create_connection((LOOPBACK, self.port), timeout=ANSWER_PATIENCE)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    def send(self, payload: bytes, began: float) -> None:
        """Sends a request.

        Args:
            began: when it was due, on `time.perf_counter()`'s clock.
        """
        self.request, self.began = payload, began
        self._buffer.clear()
        self._socket.sendall(payload)

    def receive(self) -> tuple[int, bytes, bool] | None:
        """Reads what is there: status, body and whether the server closes; None when more is to come.

        Raises:
            ConnectionResetError: the server closed the connection before the answer was complete.
        """
        piece = self._socket.recv(READ_SIZE)
        if not piece:
            raise ConnectionResetError("closed by the server")
        self._buffer += piece
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        length = _LENGTH.search(self._buffer, 0, end)
        if length is None:
            raise BenchError(f"an answer has no Content-Length: {bytes(self._buffer[:100])!r}")
        if len(self._buffer) < end + 4 + int(length[1]):
            return None
        closes = _CLOSES.search(self._buffer, 0, end) is not None
        return int(self._buffer[9:12]), bytes(self._buffer[end + 4 :]), closes

    def reopen(self) -> None:
        """Starts over on a new socket."""
        self.close()
        self._socket = self._open()

    def close(self) -> None:
        """Closes it."""
        self._socket.close()

    def ask(self, payload: bytes) -> tuple[int, bytes]:
        """Sends one request and waits for its answer: status and body.

        Raises:
            BenchError: the server closed the connection twice.
        """
        for _ in range(2):
            try:
                self.send(payload, time.perf_counter())
                while (answer := self.receive()) is None:
                    pass
            except ConnectionError:
                self.reopen()
                continue
            if answer[2]:
                self.reopen()
            return answer[0], answer[1]
        raise BenchError(f"port {self.port} closes connections without an answer")


def drive(
    port: int,
    payload: bytes,
    *,
    clients: int,
    seconds: float | None = None,
    count: int | None = None,
    rate: float | None = None,
) -> Load:
    """Sends one request over and over: each client as soon as it has its answer, or all at a fixed rate.

    Args:
        clients: connections.
        seconds: stop sending after this long.
        count: stop sending after this many.
        rate: requests in a second; a latency then counts from when its request was due.

    Raises:
        BenchError: the target does not answer, or closes connections all the time.
    """
    try:
        return _Drive(port, payload, clients=clients, seconds=seconds, count=count, rate=rate).run()
    except (OSError, TimeoutError) as error:
        raise BenchError(f"port {port}: {error}") from error


class _Drive:
    def __init__(
        self,
        port: int,
        payload: bytes,
        *,
        clients: int,
        seconds: float | None,
        count: int | None,
        rate: float | None,
    ) -> None:
        self.payload = payload
        self.seconds = float("inf") if seconds is None else seconds
        self.left = float("inf") if count is None else count
        self.interval = 1 / rate if rate else 0.0
        self.connections = [Connection(port) for _ in range(clients)]
        self.free = deque(self.connections)
        self.selector = selectors.DefaultSelector()
        self.load = Load()
        self.reconnects = 0

    def run(self) -> Load:
        try:
            for connection in self.connections:
                self.selector.register(connection, selectors.EVENT_READ, connection)
            self._loop()
        finally:
            self.selector.close()
            for connection in self.connections:
                connection.close()
        return self.load

    def _loop(self) -> None:
        start = last = due = time.perf_counter()
        end = start + self.seconds
        while True:
            now = time.perf_counter()
            due = self._send_due(now, due, end)
            sending = self.left > 0 and now < end
            if not sending and len(self.free) == len(self.connections):
                break
            pause = max(0.0, min(due, end) - now) if sending and self.interval and self.free else 1.0
            for key, _ in self.selector.select(pause):
                if self._answered(key.data):
                    last = time.perf_counter()
            if time.perf_counter() - max(last, start) > ANSWER_PATIENCE:
                raise BenchError(f"no answer within {ANSWER_PATIENCE:g} s")
        self.load.seconds = last - start

    def _send_due(self, now: float, due: float, end: float) -> float:
        """Sends what may be sent now; returns when the next request is due."""
        while self.free and self.left > 0 and now < end:
            if self.interval and due > now:
                break
            self.free.popleft().send(self.payload, due if self.interval else time.perf_counter())
            self.left -= 1
            due += self.interval
        return due

    def _answered(self, connection: Connection) -> bool:
        try:
            answer = connection.receive()
        except ConnectionError:
            self._again(connection)
            return False
        if answer is None:
            return False
        self.load.latencies.append(time.perf_counter() - connection.began)
        self.load.statuses[answer[0]] += 1
        if answer[2]:
            self._renew(connection)
        self.free.append(connection)
        return True

    def _again(self, connection: Connection) -> None:
        self.reconnects += 1
        if self.reconnects > MOST_RECONNECTS:
            raise BenchError(f"port {connection.port} closes connections without an answer")
        waiting = connection not in self.free
        self._renew(connection)
        if waiting:
            connection.send(connection.request, connection.began)

    def _renew(self, connection: Connection) -> None:
        self.selector.unregister(connection)
        connection.reopen()
        self.selector.register(connection, selectors.EVENT_READ, connection)
