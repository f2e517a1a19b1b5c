"""What happens to the connections of a process, step by step, each with a deadline.

All of it runs in one thread, and nothing here waits.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from gunicorn.http.errors import ParseException
from uuid_utils.compat import uuid7

from webapp.server import limits, refusals
from webapp.server.connection import Connection, State
from webapp.server.room import Room

logger = logging.getLogger(__name__)

#: Most that is read of a connection before it is another's turn, bytes.
READ = 256 * 1024
#: States in which a connection may be closed to make room for another, those that are missed least first.
_EXPENDABLE = ({State.LINGERING}, {State.IDLE}, {State.HEAD, State.BODY, State.QUEUED})
_TOO_LATE, _NO_ROOM = HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.SERVICE_UNAVAILABLE


class Loop:
    """The connections of a process.

    Args:
        cfg: gunicorn's configuration.
        poller: where sockets are watched.
        work: is given each connection whose request is complete.
        largest_body: the size of the largest body that a path takes, bytes.
        most: connections at once.
    """

    def __init__(
        self,
        cfg: Any,
        poller: selectors.BaseSelector,
        work: Callable[[Connection], None],
        largest_body: Callable[[str], int],
        most: int,
    ) -> None:
        self._cfg = cfg
        self._poller = poller
        self._work = work
        self._largest_body = largest_body
        self._most = most
        self._room = Room[Connection](limits.ROOM)
        self._room_for_batches = Room[Connection](limits.ROOM)
        self._unread = 0
        self._scratch = memoryview(bytearray(READ))
        #: Longest a connection is kept for its next request, seconds.
        self.keepalive = float(cfg.keepalive)
        self.connections: set[Connection] = set()

    def take(self, connection: Connection) -> None:
        """Takes a new connection; where there are too many, one that is missed least is closed for it."""
        self.connections.add(connection)
        self._begin(connection, State.IDLE, limits.HEAD_SECONDS)
        self._listen(connection)
        if len(self.connections) > self._most and not self.close_one(but=connection):
            self._refuse(connection, _NO_ROOM, "too many connections")

    def close_one(self, but: Connection | None = None) -> bool:
        """Closes the connection that is missed least, and longest about what it is about; True when there was one."""
        for states in _EXPENDABLE:
            among = [one for one in self.connections if one.state in states and one is not but]
            if among:
                self._close(min(among, key=lambda one: one.since))
                return True
        return False

    def end_late(self) -> None:
        """Ends the connections that are late with their step."""
        now = time.monotonic()
        for connection in [one for one in self.connections if min(one.deadline, one.stalls_at) <= now]:
            self._guard(self._end_late, connection)

    def keep_idle_until(self, deadline: float) -> None:
        """From now on no connection is kept for another request past a moment of the monotonic clock."""
        self.keepalive = min(self.keepalive, max(0.0, deadline - time.monotonic()))
        for connection in self.connections:
            if connection.state is State.IDLE:
                connection.deadline = min(connection.deadline, deadline)

    def close_all(self) -> None:
        """Closes every connection, whatever it is about."""
        for connection in list(self.connections):
            self._close(connection)

    def go_on(self, connection: Connection, *, stays: bool) -> None:
        """Goes on with a connection whose request was worked on.

        Args:
            connection: which.
            stays: whether it may have another request.
        """
        connection.stays = stays
        self._guard(self._after_work, connection)

    def _guard(self, step: Callable[[Connection], None], connection: Connection) -> None:
        """Does a step; whatever goes wrong is the end of this connection, and of nothing else."""
        if connection.state is State.CLOSED:
            # An event of the same moment closed it.
            return
        try:
            step(connection)
        except ParseException as error:
            self._refuse(connection, *refusals.judge(error, self._cfg))
        except OSError:
            self._close(connection)
        except Exception:
            logger.exception("connection failed unexpectedly")
            self._close(connection)

    @staticmethod
    def _begin(connection: Connection, state: State, seconds: float) -> None:
        connection.state = state
        connection.since = time.monotonic()
        connection.deadline = connection.since + seconds
        connection.stalls_at = float("inf")

    def _listen(self, connection: Connection, events: int = selectors.EVENT_READ) -> None:
        step = self._on_readable if events == selectors.EVENT_READ else self._on_writable
        self._poller.register(connection.socket, events, lambda _socket: self._guard(step, connection))

    def _deafen(self, connection: Connection) -> None:
        # It is not watched while a thread has it, or while it waits for room.
        with contextlib.suppress(KeyError, ValueError):
            self._poller.unregister(connection.socket)

    def _on_readable(self, connection: Connection) -> None:
        try:
            count = connection.socket.recv_into(self._scratch)
        except (BlockingIOError, InterruptedError):
            return
        if connection.state is State.LINGERING:
            connection.lingered += count
            if not count:
                self._end_when_read(connection)
            elif connection.lingered > limits.LINGER_BYTES:
                self._close(connection)
        elif not count:
            self._end_early(connection)
        else:
            if connection.held:
                connection.stalls_at = time.monotonic() + limits.STALL_SECONDS
            connection.arrival.add(self._scratch[:count])
            self._advance(connection)

    def _end_early(self, connection: Connection) -> None:
        """The client sends no more, and its request is not complete."""
        if connection.state is State.IDLE:
            self._end_when_read(connection)
        elif connection.state is State.HEAD:
            self._refuse(connection, HTTPStatus.BAD_REQUEST, "the request ended within its head")
        else:
            self._refuse(connection, HTTPStatus.BAD_REQUEST, f"the body ended {connection.arrival.progress}")

    def _end_when_read(self, connection: Connection) -> None:
        """Closes a connection whose client sends no more, once the client has read what it asked for before."""
        self._deafen(connection)
        connection.state = State.LINGERING
        if not self._may_still_read(connection):
            self._close(connection)

    def _advance(self, connection: Connection) -> None:
        """Does with what has arrived what can be done."""
        arrival = connection.arrival
        if connection.state is State.IDLE:
            self._begin(connection, State.HEAD, limits.HEAD_SECONDS)
        if connection.state is State.HEAD and not (arrival.read_head() and self._admit(connection)):
            return
        is_complete = arrival.is_complete()
        if arrival.length is None and arrival.size > (largest := self._largest(connection)):
            self._refuse_size(connection, largest)
        elif is_complete:
            self._deafen(connection)
            self._begin(connection, State.WORKING, float("inf"))
            self._work(connection)

    def _largest(self, connection: Connection) -> int:
        return self._largest_body(connection.arrival.request.path)

    def _admit(self, connection: Connection) -> bool:
        """Lets a body come, once there is room for it; False when it must not come, or not yet."""
        arrival = connection.arrival
        largest = self._largest(connection)
        size = largest if arrival.length is None else arrival.length
        if size > largest:
            self._refuse_size(connection, largest)
            return False
        if size > limits.FREE_BODY:
            connection.room = self._room if size <= self._largest_body("") else self._room_for_batches
            if not connection.room.take(connection, size):
                self._deafen(connection)
                self._begin(connection, State.QUEUED, limits.ROOM_SECONDS)
                return False
            connection.held = size
        self._let_come(connection, size, since=connection.since)
        return True

    @staticmethod
    def _let_come(connection: Connection, size: int, *, since: float) -> None:
        expects_word = connection.arrival.take_expectation()
        if not size:
            return
        connection.state = State.BODY
        connection.deadline = since + limits.body_seconds(size)
        if connection.held:
            connection.stalls_at = time.monotonic() + limits.STALL_SECONDS
        if expects_word:
            # gunicorn would say so once a thread has the request, which it has when the body is here.
            connection.socket.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _come_now(self, connection: Connection) -> None:
        """There is room now for a body that waited for it."""
        self._let_come(connection, connection.held, since=time.monotonic())
        self._listen(connection)
        self._advance(connection)

    def _after_work(self, connection: Connection) -> None:
        self._give_room_back(connection)
        if not connection.unsent:
            self._after_answer(connection)
            return
        self._begin(connection, State.ANSWERING, limits.answer_seconds(connection.unsent))
        self._unread += connection.unsent
        self._listen(connection, selectors.EVENT_WRITE)
        while self._unread > limits.MAX_UNREAD:
            answering = [one for one in self.connections if one.state is State.ANSWERING]
            self._close(min(answering, key=lambda one: one.since))

    def _on_writable(self, connection: Connection) -> None:
        before = connection.unsent
        try:
            is_sent = connection.send_more()
        finally:
            self._unread -= before - connection.unsent
        if is_sent:
            self._deafen(connection)
            self._after_answer(connection)

    def _after_answer(self, connection: Connection) -> None:
        if not connection.stays:
            self._linger(connection)
            return
        self._begin(connection, State.IDLE, self.keepalive)
        self._listen(connection)
        if len(connection.arrival):
            # The next request was sent ahead.
            self._advance(connection)

    def _linger(self, connection: Connection) -> None:
        connection.end_sending()
        self._begin(connection, State.LINGERING, limits.LINGER_SECONDS)
        self._listen(connection)

    def _end_late(self, connection: Connection) -> None:
        if connection.state is State.HEAD:
            self._refuse(connection, _TOO_LATE, "the head of the request did not arrive in time")
        elif connection.state is State.BODY:
            progress = connection.arrival.progress
            self._refuse(connection, _TOO_LATE, f"the body did not arrive in time: it stopped {progress}")
        elif connection.state is State.QUEUED:
            self._refuse(connection, _NO_ROOM, "there is no room for a body of this size now")
        elif not self._may_still_read(connection):
            self._close(connection)

    def _may_still_read(self, connection: Connection) -> bool:
        """Gives a connection that is over more time where its client has not read all of the answer, and may yet do so.

        The kernel has the rest and would keep it for minutes: the end of a connection comes after all that was sent.
        """
        undelivered = 0 if connection.state is State.ANSWERING else connection.undelivered()
        now, until = time.monotonic(), connection.since + limits.answer_seconds(undelivered)
        if not undelivered or now >= until:
            return False
        connection.deadline = min(now + 1.0, until)
        return True

    def _refuse_size(self, connection: Connection, largest: int) -> None:
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        self._refuse(connection, status, f"the body must be at most {largest} bytes")

    def _refuse(self, connection: Connection, status: int, words: str) -> None:
        """Answers a request that no view will see, and ends the connection."""
        self._deafen(connection)
        self._give_room_back(connection)
        try:
            connection.sendall(refusal(connection, connection.arrival.request, status, words))
            if connection.unsent:
                raise TimeoutError("the client reads nothing")
            self._linger(connection)
        except OSError:
            self._close(connection)

    def _give_room_back(self, connection: Connection) -> None:
        room, held = connection.room, connection.held
        connection.room, connection.held = None, 0
        if room is None:
            return
        for one, size in room.give(held) if held else room.forget(connection):
            one.held = size
            self._guard(self._come_now, one)

    def _close(self, connection: Connection) -> None:
        if connection.state is State.CLOSED:
            return
        self._deafen(connection)
        if connection.state is State.ANSWERING:
            self._unread -= connection.unsent
        connection.close(reset=connection.undelivered() > 0)
        self.connections.discard(connection)
        self._give_room_back(connection)


def refusal(connection: Connection, request: Any, status: int, words: str) -> bytes:
    """An answer to a request that no view answers, which is logged here.

    Args:
        connection: whose it is.
        request: what is known of it, if anything.
        status: of the answer.
        words: what is wrong.
    """
    request_id = str(uuid7())
    method: str | None = getattr(request, "method", None)
    logger.info(
        "request refused",
        extra={
            "status": int(status),
            "detail": words,
            "client": connection.client[0] if isinstance(connection.client, tuple) else "",
            "method": method,
            "path": (getattr(request, "path", None) or "")[:500],
            "request_id": request_id,
        },
    )
    retry_after = limits.RETRY_AFTER if status == _NO_ROOM else None
    return refusals.document(status, words, request_id, retry_after=retry_after, with_body=method != "HEAD")
