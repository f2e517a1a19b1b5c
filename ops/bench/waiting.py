"""A hundred clients that wait for one job: what they cost everyone else, and how soon they are told."""

from __future__ import annotations

import json
import selectors
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ops.bench import load
from ops.bench.figures import Round, milliseconds
from ops.bench.plan import Plan
from ops.bench.processes import BenchError
from ops.bench.servers import Servers
from ops.bench.system import PAYLOAD, SUBMIT, System

#: Clients that wait.
WAITERS = 100
#: How long they are ready to, seconds: the longest that there is, and all is measured within it.
WAIT = 60
#: Requests of each kind, with and without waiters.
REQUESTS, REQUESTS_QUICK = 1_000, 300
#: Requests that warm every thread and connection up.
WARM_UP = 50
#: The job is due in an hour; it is over when it is cancelled.
LATER = load.request("POST", "/jobs", json.dumps({"payload": PAYLOAD, "delay": 3_600}).encode())

Say = Callable[[str], None]


def measure(plan: Plan, servers: Servers, say: Say, figures: Round) -> None:
    """Measures requests of three kinds without waiters, with a hundred, and without them again. Only the API runs.

    Raises:
        BenchError: the API does not answer, or lets someone wait no longer than it should.
    """
    count = REQUESTS if plan.rounds > 1 else REQUESTS_QUICK
    with tempfile.TemporaryDirectory(prefix="djps-bench-") as folder, System(servers, Path(folder)) as system:
        system.start_api()
        job = _submitted(system.port)
        asked = {
            "health": load.request("GET", "/health"),
            "post": SUBMIT,
            "status": load.request("GET", f"/jobs/{job}"),
        }
        _latencies(system.port, asked, WARM_UP)
        before = _latencies(system.port, asked, count)
        crowd = _Crowd(system.port, job)
        try:
            _latencies(system.port, asked, WARM_UP)
            during = _latencies(system.port, asked, count)
            told = crowd.told_after(lambda: _cancel(system.port, job))
        finally:
            crowd.close()
        after = _latencies(system.port, asked, count)
    for name, latencies in during.items():
        figures |= milliseconds(before[name] + after[name], f"waiting_none_{name}")
        figures |= milliseconds(latencies, f"waiting_{WAITERS}_{name}")
        say(
            f"{name}: p99 {figures[f'waiting_none_{name}_ms_p99']:.1f} ms with no one waiting, "
            f"{figures[f'waiting_{WAITERS}_{name}_ms_p99']:.1f} ms with {WAITERS}"
        )
    figures |= milliseconds(told, "waiting_told")
    figures["waiting_told_last_ms"] = 1000 * max(told)
    say(f"the {WAITERS} were told {1000 * min(told):.0f} to {1000 * max(told):.0f} ms after the job was over")


def _submitted(port: int) -> str:
    return str(json.loads(_ask(port, LATER))["id"])


def _cancel(port: int, job: str) -> None:
    _ask(port, load.request("POST", f"/jobs/{job}/cancel"))


def _ask(port: int, payload: bytes) -> bytes:
    connection = load.Connection(port)
    try:
        status, body = connection.ask(payload)
    finally:
        connection.close()
    if not 200 <= status < 300:  # noqa: PLR2004
        raise BenchError(f"{payload[:40]!r} answered {status}: {body[:200]!r}")
    return body


def _latencies(port: int, asked: dict[str, bytes], count: int) -> dict[str, list[float]]:
    """Seconds of each of `count` requests of every kind, one after the other by one client."""
    found = {}
    for name, payload in asked.items():
        done = load.drive(port, payload, clients=1, count=count)
        done.require(name)
        found[name] = done.latencies
    return found


class _Crowd:
    """Clients that have asked for one job and wait for it."""

    def __init__(self, port: int, job: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._connections = [load.Connection(port) for _ in range(WAITERS)]
        payload = load.request("GET", f"/jobs/{job}?wait={WAIT}")
        for connection in self._connections:
            self._selector.register(connection, selectors.EVENT_READ, connection)
            connection.send(payload, time.perf_counter())

    def told_after(self, end: Callable[[], None]) -> list[float]:
        """Ends the job, and returns the seconds from then until each client had its answer.

        Raises:
            BenchError: one was answered before, or was not told of the end.
        """
        if early := self._selector.select(0):
            raise BenchError(f"{len(early)} of {WAITERS} did not wait: {early[0][0].data.receive()}")
        began = time.perf_counter()
        end()
        told: list[float] = []
        while len(told) < WAITERS:
            ready = self._selector.select(load.ANSWER_PATIENCE)
            if not ready:
                raise BenchError(f"only {len(told)} of {WAITERS} were told")
            for key, _ in ready:
                answer = key.data.receive()
                if answer is None:
                    continue
                status, body, _ = answer
                if status != 200 or json.loads(body)["status"] != "cancelled":  # noqa: PLR2004
                    raise BenchError(f"a waiter was answered {status}: {body[:200]!r}")
                told.append(time.perf_counter() - began)
                self._selector.unregister(key.data)
        return told

    def close(self) -> None:
        """Waits no more."""
        self._selector.close()
        for connection in self._connections:
            connection.close()
