"""The clients: threads that post jobs over HTTP and remember every answer, and one that asks if we are ready."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ops.chaos.history import Event, Exchange, History, Operation
from ops.stack.ports import LOOPBACK

#: Client threads.
CLIENTS = 4
#: After this long without an answer a client calls it a hang, seconds.
HANG = 5.0
#: Pause before a request is sent again under the same key, seconds.
PAUSE = 0.2
#: How long a client goes on with a job it has begun to ask for once the load is over, seconds.
INSIST = 30.0
#: Seconds between two looks at `/health/ready`.
PROBE_EVERY = 0.2
#: Answers that say that nothing was stored.
REFUSALS = range(400, 500)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of job in the load: how often, what is posted, and how it must end."""

    name: str
    share: float
    payload: Callable[[random.Random], dict[str, Any]]
    ends: tuple[str, ...] = ("completed",)


def _plain(rng: random.Random) -> dict[str, Any]:
    return {"task": "chaos.effect", "ms": rng.randrange(15)}


def _failing(rng: random.Random) -> dict[str, Any]:
    return {"task": "chaos.effect", "ms": 5, "fails": rng.randrange(1, 3)}


def _slow(rng: random.Random) -> dict[str, Any]:
    return {"task": "chaos.effect", "ms": rng.randrange(200, 500)}


#: What clients post when a scenario does not say otherwise.
ORDINARY = (Kind("plain", 0.93, _plain), Kind("failing", 0.04, _failing), Kind("slow", 0.03, _slow))


@dataclass(frozen=True, slots=True)
class Look:
    """One look at `/health/ready`; the status is 0 when there was no answer."""

    at: float
    seconds: float
    status: int
    says: str


class Load:
    """Clients that post at a steady rate until they are told to stop.

    Args:
        port: the API's.
        history: what they do goes there.
        prefix: of every idempotency key.
        rate: jobs a second, all clients together.
        seed: of what is posted.
        kinds: what is posted.
    """

    def __init__(
        self,
        port: int,
        history: History,
        prefix: str,
        *,
        rate: float,
        seed: int,
        kinds: tuple[Kind, ...] = ORDINARY,
    ) -> None:
        self._port = port
        self._history = history
        self._prefix = prefix
        self._interval = 1 / rate
        self._seed = seed
        self._kinds = kinds
        self._numbers = itertools.count()
        self._began = time.monotonic()
        self._over = threading.Event()
        self._gave_up_at = float("inf")
        self.looks: list[Look] = []
        self._threads = [
            threading.Thread(target=self._post_on, args=(number,), daemon=True) for number in range(CLIENTS)
        ]
        self._threads.append(threading.Thread(target=self._probe, daemon=True))

    def start(self) -> None:
        """Begins to post."""
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begins no new job; returns when every client knows what became of its last one, or gave up."""
        self._gave_up_at = time.monotonic() + INSIST
        self._over.set()
        for thread in self._threads:
            thread.join(INSIST + HANG + 5)

    def _post_on(self, number: int) -> None:
        rng = random.Random(f"{self._seed}/{number}")
        line = Line(self._port)
        while not self._over.is_set():
            seq = next(self._numbers)
            wait = self._began + seq * self._interval - time.monotonic()
            if wait > 0 and self._over.wait(wait):
                break
            kind = rng.choices(self._kinds, [one.share for one in self._kinds])[0]
            payload = kind.payload(rng) | {"seq": seq}
            operation = self._history.begin(seq, f"{self._prefix}-{seq}", kind.name)
            body = json.dumps({"payload": payload, "idempotency_key": operation.key}).encode()
            while not self._posted(line, operation, body) and time.monotonic() < self._gave_up_at:
                time.sleep(PAUSE)
        line.close()

    def _posted(self, line: Line, operation: Operation, body: bytes) -> bool:
        """Sends one request; True when the job is accepted."""
        self._history.invoke(operation)
        began = time.time()
        status, headers, answer = line.ask("POST", "/jobs", body)
        exchange = Exchange(began, time.time() - began, status, "Retry-After" in headers)
        if status in (200, 201):
            self._history.end(operation, Event.OK, exchange, str(json.loads(answer)["id"]))
            return True
        event = Event.REFUSED if status in REFUSALS else Event.UNKNOWN
        self._history.end(operation, event, exchange)
        return False

    def _probe(self) -> None:
        line = Line(self._port)
        while not self._over.wait(PROBE_EVERY):
            began = time.time()
            status, _, answer = line.ask("GET", "/health/ready")
            try:
                says = str(json.loads(answer)["status"])
            except (ValueError, KeyError, TypeError):
                says = ""
            self.looks.append(Look(began, time.time() - began, status, says))
        line.close()


class Line:
    """One keep-alive connection to the API, made again when it breaks.

    Args:
        port: the API's.
        timeout: longest wait for an answer, seconds.
    """

    #: What a connection that breaks raises.
    BROKEN = (OSError, http.client.HTTPException)

    def __init__(self, port: int, timeout: float = HANG) -> None:
        self._port = port
        self._timeout = timeout
        self._connection: http.client.HTTPConnection | None = None

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request; status 0 when no answer came."""
        answer = self.open(method, path, body, headers)
        if answer is None:
            return 0, {}, b""
        try:
            return answer.status, dict(answer.getheaders()), answer.read()
        except self.BROKEN:
            self.close()
            return 0, {}, b""

    def open(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> http.client.HTTPResponse | None:
        """One request, whose answer is still to be read; None when none came."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=self._timeout)
        try:
            if self._connection.sock is None:
                self._connection.connect()
                # http.client sends head and body apart; without this the body waits for an acknowledgement.
                self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sent = {"Content-Type": "application/json", **(headers or {})}
            self._connection.request(method, path, body, sent)
            return self._connection.getresponse()
        except self.BROKEN:
            self.close()
            return None

    def close(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
