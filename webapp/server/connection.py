"""One connection: what has arrived on it, what is still to be sent, and until when its next step may take."""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import sys
import termios
from collections import deque
from enum import Enum, auto
from itertools import islice
from typing import Any

from webapp.server.arrival import Arrival
from webapp.server.limits import MAX_AHEAD, SEND_BUFFER, answer_seconds

#: Most pieces that are sent at once.
_PIECES = 16
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class State(Enum):
    """What a connection is about."""

    #: Nothing of a request is here.
    IDLE = auto()
    HEAD = auto()
    #: Its body is to be read when there is room for it.
    QUEUED = auto()
    BODY = auto()
    #: A thread has it.
    WORKING = auto()
    #: The client has not read all of its answer.
    ANSWERING = auto()
    #: All is said; the client may still be sending.
    LINGERING = auto()
    CLOSED = auto()


class Connection:
    """A client's connection, and the socket that gunicorn's `Response` writes to.

    A thread that answers sends what the kernel takes at once; the rest is left to the loop, which has time. So an answer that
    is not read holds no thread.

    Args:
        cfg: gunicorn's configuration.
        own: the client's socket.
        client: its address.
        server: this server's.
    """

    def __init__(self, cfg: Any, own: socket.socket, client: Any, server: Any) -> None:
        own.settimeout(0)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.socket = own
        self.client = client
        self.server = server
        self.arrival = Arrival(cfg, client)
        self.request: Any = None
        self.state = State.IDLE
        #: When the step at hand must be done, and since when the connection is at it, by the monotonic clock.
        self.deadline = 0.0
        self.since = 0.0
        #: Until when something must arrive, whatever the deadline.
        self.stalls_at = float("inf")
        #: Bytes of room that it holds, and of whose.
        self.room: Any = None
        self.held = 0
        self.stays = False
        self.lingered = 0
        self._head: bytes | None = None
        self._unsent: deque[memoryview] = deque()
        #: Bytes that the kernel has not taken yet.
        self.unsent = 0

    @property
    def sock(self) -> Connection:
        """What gunicorn takes for the socket."""
        return self

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.socket.fileno()

    def begin_answer(self) -> None:
        """What is sent next is an answer's head; one that has not been sent yet is dropped."""
        self._head = b""

    def sendall(self, data: bytes) -> None:
        """Sends or keeps bytes of an answer; its head waits for what follows it, as one packet is cheaper than two.

        Raises:
            OSError: the client has gone.
            TimeoutError: a stream is far ahead of its client, who reads nothing.
        """
        if self._head is None:
            self._send(data)
        elif self._head:
            head, self._head = self._head, None
            self._send(head, data)
        else:
            self._head = data

    def flush(self) -> None:
        """Sends a head that nothing followed."""
        if self._head:
            self._send(self._head)
        self._head = None

    @property
    def has_begun_to_answer(self) -> bool:
        """True when some of an answer is on its way."""
        return self._head is None

    def _send(self, *pieces: bytes) -> None:
        if self.unsent > MAX_AHEAD:
            self._wait_for_client()
        self._unsent.extend(memoryview(piece) for piece in pieces if piece)
        self.unsent += sum(map(len, pieces))
        self.send_more()

    def _wait_for_client(self) -> None:
        poller = select.poll()
        poller.register(self.socket, select.POLLOUT)
        if not poller.poll(answer_seconds(self.unsent) * 1000):
            raise TimeoutError("the client does not read its answer")
        self.send_more()

    def send_more(self) -> bool:
        """Sends what the kernel takes; True when nothing is left.

        Raises:
            OSError: the client has gone.
        """
        while self._unsent:
            try:
                sent = self.socket.sendmsg(list(islice(self._unsent, _PIECES)))
            except (BlockingIOError, InterruptedError):
                return False
            self.unsent -= sent
            while self._unsent and sent >= len(self._unsent[0]):
                sent -= len(self._unsent.popleft())
            if sent:
                self._unsent[0] = self._unsent[0][sent:]
        return True

    def undelivered(self) -> int:
        """Bytes that the client's side has not acknowledged: it is slow, or reads nothing."""
        try:
            return int.from_bytes(fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except OSError:
            return 0

    def shutdown(self, _how: int) -> None:
        """Refused: the loop closes connections, gunicorn's helpers would block a thread over it.

        Raises:
            OSError: always.
        """
        raise OSError("the loop ends this connection")

    def end_sending(self) -> None:
        """Tells the client that nothing more comes.

        Raises:
            OSError: it has gone.
        """
        self.socket.shutdown(socket.SHUT_WR)

    def close(self, *, reset: bool = False) -> None:
        """Closes the connection.

        Args:
            reset: drop what the kernel has not delivered, and with it the memory that it takes.
        """
        try:
            if reset:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.socket.close()
        except OSError:
            pass
        self._unsent.clear()
        self.state = State.CLOSED
