"""Clients that are slow on purpose: they hold connections, and cost the server as little as it lets them."""

from __future__ import annotations

import select
import socket
import threading
import time
from dataclasses import dataclass

from ops.chaos.clients import Line
from ops.chaos.report import percentile
from ops.chaos.stage import Stage
from ops.stack.ports import LOOPBACK

#: Connections that send a byte a second, that stop in the middle of a body, and that read nothing of their answer.
TRICKLING, HALF_SENT, NOT_READING = 200, 16, 300
SLOW_CLIENTS = f"{TRICKLING} clients send a byte a second, {HALF_SENT} half a body, {NOT_READING} do not read"
#: Each of them is ended within this, seconds.
ENDED_WITHIN = 30.0
#: `/health` meanwhile, at p99, seconds.
HEALTH_P99 = 0.1
#: Seconds in which it is looked at without them, and between two looks.
BEFORE = 5.0
PROBE_EVERY = 0.05
#: Receive buffer of those that do not read, bytes.
SMALL_BUFFER = 4_096

_OPENINGS = (
    b"POST /jobs HTTP/1.1\r\nX-Slow: ",
    b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n",
)
_HALF = (
    b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b'Content-Length: 200000\r\n\r\n{"payload": {"text": "' + b"x" * 50_000
)
#: The largest answer that costs next to nothing to make, and more of it than a socket's buffers hold.
_UNREAD = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 10
#: What the kernel says of a connection that the other side has ended; what it sent before may still be unread.
_ENDED = select.POLLRDHUP | select.POLLHUP | select.POLLERR


@dataclass(slots=True)
class Slow:
    """One connection: when it was opened, when the server ended it, and whether it sends a byte now and then."""

    line: socket.socket
    opened: float
    trickles: bool
    ended: float | None = None


def slow_clients(stage: Stage) -> None:
    """All of them at once, until each is ended or the time for that is over."""
    port = stage.system.api_port
    latencies: list[float] = []
    over = threading.Event()
    prober = threading.Thread(target=_probe, args=(port, latencies, over), daemon=True)
    prober.start()
    stage.hold(BEFORE)
    with stage.fault(SLOW_CLIENTS):
        looks_before = len(latencies)
        slow = [
            *(_open(port, _OPENINGS[number % 2], trickles=True) for number in range(TRICKLING)),
            *(_open(port, _HALF) for _ in range(HALF_SENT)),
            *(_open(port, _UNREAD, receive=SMALL_BUFFER) for _ in range(NOT_READING)),
        ]
        _hold(slow)
        over.set()
        prober.join()
    for one in slow:
        one.line.close()
    _judge(stage, slow, latencies[:looks_before], latencies[looks_before:])


def _open(port: int, opening: bytes, *, trickles: bool = False, receive: int | None = None) -> Slow:
    line = socket.socket()
    if receive is not None:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    line.settimeout(ENDED_WITHIN)
    line.connect((LOOPBACK, port))
    line.sendall(opening)
    return Slow(line, time.monotonic(), trickles)


def _hold(slow: list[Slow]) -> None:
    """Sends a byte a second on those that trickle, and notes when the server ends each."""
    while (held := [one for one in slow if one.ended is None]) and time.monotonic() - slow[
        -1
    ].opened < ENDED_WITHIN:
        poller = select.poll()
        by_descriptor = {one.line.fileno(): one for one in held}
        for descriptor in by_descriptor:
            poller.register(descriptor, _ENDED)
        time.sleep(1)
        for descriptor, _ in poller.poll(0):
            by_descriptor[descriptor].ended = time.monotonic()
        for one in held:
            if one.trickles and one.ended is None:
                try:
                    one.line.send(b"x")
                except OSError:
                    one.ended = time.monotonic()


def _probe(port: int, latencies: list[float], over: threading.Event) -> None:
    line = Line(port, timeout=ENDED_WITHIN)
    while not over.wait(PROBE_EVERY):
        began = time.monotonic()
        status, _, _ = line.ask("GET", "/health")
        latencies.append(time.monotonic() - began if status else ENDED_WITHIN)
    line.close()


def _judge(stage: Stage, slow: list[Slow], before: list[float], meanwhile: list[float]) -> None:
    kept = [one for one in slow if one.ended is None or one.ended - one.opened > ENDED_WITHIN]
    longest = max((one.ended - one.opened for one in slow if one.ended is not None), default=0.0)
    usual, p99 = percentile(before, 0.99) or 0.0, percentile(meanwhile, 0.99) or 0.0
    stage.say(
        f"the last was ended after {longest:.1f} s; /health p99 {p99 * 1000:.0f} ms, {usual * 1000:.0f} before"
    )
    if kept:
        stage.broken["S1 slow clients kept"] = (
            f"{len(kept)} of {len(slow)} were not ended in {ENDED_WITHIN:g} s"
        )
    if p99 > HEALTH_P99 * stage.slack:
        stage.broken["S2 health late"] = f"/health took {p99 * 1000:.0f} ms at p99"
