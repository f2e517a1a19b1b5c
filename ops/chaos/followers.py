"""Clients that follow their jobs and steer them: some wait, some read events, some cancel; each writes down what it was told."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ops.chaos.clients import PAUSE, Kind, Line
from ops.chaos.history import Event, Exchange, History

#: Threads of each role.
OF_EACH = 4
#: Numbers of their jobs begin here, far from those of the load.
FIRST_NUMBER = 20_000_000
#: Longest wait for an answer, seconds: a wait, a look at the job while PostgreSQL is away, and something to spare.
HANG = 12.0
#: Shortest and longest `?wait=`, seconds.
WAITS = (0.5, 4.0)
#: How long a follower goes on with its last job once the load is over, seconds.
INSIST = 60.0
FINAL = frozenset({"completed", "failed", "cancelled"})
#: Share of events after which a reader hangs up and connects again.
HANG_UP = 0.3


@dataclass(frozen=True, slots=True)
class Told:
    """One answer.

    Args:
        verb: `wait`, `cancel` or `again` (events after the last one).
        asked: when the request was sent, seconds since the epoch.
        at: when the answer was there.
        status: of HTTP; 0 for none.
        says: the job's status in it.
        wait: what was asked for, seconds.
    """

    verb: str
    job_id: str
    asked: float
    at: float
    status: int
    says: str = ""
    wait: float = 0.0
    retry_after: bool = False


@dataclass(frozen=True, slots=True)
class Said:
    """One event of a stream."""

    name: str
    id: int
    status: str
    attempt: int
    done: float | None


@dataclass(slots=True)
class Reading:
    """One stream of events, from connecting to its end.

    Args:
        seen: what the client named as the last it had seen; 0 for nothing.
        end: `final`, `hung up` by the client, `ended` by the server, `broken`, or the status that was answered; empty
            while it is read.
    """

    job_id: str
    seen: int
    began: float
    retry_after: bool = False
    events: list[Said] = field(default_factory=list)
    end: str = ""
    ended: float = 0.0


def _steps(rng: random.Random) -> dict[str, Any]:
    """A job that takes a while and says how far it is; some fail once, so that they wait and run again."""
    ms = rng.randrange(50, 1_800)
    return {"task": "chaos.effect", "ms": ms, "steps": 6} | ({"fails": 1} if rng.random() < 0.2 else {})  # noqa: PLR2004


#: What followers post; how their jobs may end is for the checker to say.
FOLLOWED = Kind("followed", 0.0, _steps)
STEERED = Kind("steered", 0.0, _steps, ("completed", "cancelled"))


class Followers:
    """Threads that each submit a job, follow it to its end, and take the next, until they are told to stop.

    Args:
        port: the API's.
        history: their submissions go there.
        prefix: of every idempotency key.
        seed: of what they do.
        roles: `wait`, `events`, `cancel`: which there are.
    """

    def __init__(
        self, port: int, history: History, prefix: str, *, seed: int, roles: tuple[str, ...]
    ) -> None:
        self._port = port
        self._history = history
        self._prefix = prefix
        self._numbers = itertools.count(FIRST_NUMBER)
        self._over = threading.Event()
        self._gave_up_at = float("inf")
        self.told: list[Told] = []
        self.readings: list[Reading] = []
        acts: dict[str, Callable[[Line, random.Random], None]] = {
            "wait": self._wait,
            "events": self._read,
            "cancel": self._cancel,
        }
        self._threads = [
            threading.Thread(
                target=self._go_on, args=(acts[role], random.Random(f"{seed}/{role}/{number}")), daemon=True
            )
            for role in roles
            for number in range(OF_EACH)
        ]

    def start(self) -> None:
        """Begins."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begins nothing new; returns when everyone knows what became of its last job, or gave up."""
        self._gave_up_at = time.monotonic() + INSIST
        self._over.set()
        end = self._gave_up_at + HANG + 5
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _go_on(self, act: Callable[[Line, random.Random], None], rng: random.Random) -> None:
        line = Line(self._port, timeout=HANG)
        while not self._over.is_set():
            act(line, rng)
        line.close()

    def _insists(self) -> bool:
        return time.monotonic() < self._gave_up_at

    def _submitted(self, line: Line, rng: random.Random, kind: Kind) -> str | None:
        """The id of a new job; None when no one took it in time."""
        seq = next(self._numbers)
        operation = self._history.begin(seq, f"{self._prefix}-{seq}", kind.name)
        payload = kind.payload(rng) | {"seq": seq}
        body = json.dumps({"payload": payload, "idempotency_key": operation.key}).encode()
        while self._insists():
            self._history.invoke(operation)
            began = time.time()
            status, headers, answer = line.ask("POST", "/jobs", body)
            exchange = Exchange(began, time.time() - began, status, "Retry-After" in headers)
            if status in (200, 201):
                job_id = str(json.loads(answer)["id"])
                self._history.end(operation, Event.OK, exchange, job_id)
                return job_id
            self._history.end(operation, Event.UNKNOWN, exchange)
            time.sleep(PAUSE)
        return None

    def _ask(self, line: Line, verb: str, job_id: str, method: str, path: str, *, wait: float = 0.0) -> Told:
        asked = time.time()
        status, headers, answer = line.ask(method, path)
        says = str(json.loads(answer)["status"]) if status in (200, 202) else ""
        told = Told(verb, job_id, asked, time.time(), status, says, wait, "Retry-After" in headers)
        self.told.append(told)
        return told

    def _wait(self, line: Line, rng: random.Random) -> None:
        job_id = self._submitted(line, rng, FOLLOWED)
        if job_id is not None:
            self._until_final(line, rng, job_id)

    def _until_final(self, line: Line, rng: random.Random, job_id: str) -> None:
        while self._insists():
            wait = round(rng.uniform(*WAITS), 2)
            told = self._ask(line, "wait", job_id, "GET", f"/jobs/{job_id}?wait={wait}", wait=wait)
            if told.says in FINAL:
                return
            if told.status != 200:  # noqa: PLR2004
                time.sleep(PAUSE)

    def _cancel(self, line: Line, rng: random.Random) -> None:
        job_id = self._submitted(line, rng, STEERED)
        if job_id is None:
            return
        time.sleep(rng.choice((0.0, rng.uniform(0, 0.1), rng.uniform(0, 1.5))))
        while self._insists():
            told = self._ask(line, "cancel", job_id, "POST", f"/jobs/{job_id}/cancel")
            if told.status in (200, 202, 409):
                break
            time.sleep(PAUSE)
        self._until_final(line, rng, job_id)

    def _read(self, line: Line, rng: random.Random) -> None:
        job_id = self._submitted(line, rng, FOLLOWED)
        seen = 0
        while job_id is not None and self._insists():
            reading = Reading(job_id, seen, time.time())
            # Noted before it is read: a stream that never ends is a finding as well.
            self.readings.append(reading)
            self._read_once(reading, rng)
            reading.ended = time.time()
            seen = max([seen, *(event.id for event in reading.events)])
            if reading.end == "final":
                self._look_again(job_id, seen)
                return
            if reading.end != "hung up":
                time.sleep(PAUSE)

    def _look_again(self, job_id: str, seen: int) -> None:
        """Asks for what came after the last event; on a new connection, as an `EventSource` does."""
        line = Line(self._port, timeout=HANG)
        asked = time.time()
        headers = {"Last-Event-ID": str(seen)}
        status, answered, _ = line.ask("GET", f"/jobs/{job_id}/events", headers=headers)
        retry_after = "Retry-After" in answered
        self.told.append(Told("again", job_id, asked, time.time(), status, retry_after=retry_after))
        line.close()

    def _read_once(self, reading: Reading, rng: random.Random) -> None:
        """Reads a stream until it is final, ends, breaks, or this client has enough of it."""
        line = Line(self._port, timeout=HANG + 15)
        headers = {"Last-Event-ID": str(reading.seen)} if reading.seen else {}
        try:
            answer = line.open("GET", f"/jobs/{reading.job_id}/events", headers=headers)
            if answer is None:
                reading.end = "broken"
            elif answer.status != 200:  # noqa: PLR2004
                reading.end = str(answer.status)
                reading.retry_after = answer.headers["Retry-After"] is not None
            else:
                for event in events_in(iter(answer.readline, b"")):
                    reading.events.append(event)
                    if event.name == "final" or rng.random() < HANG_UP:
                        break
                last = reading.events[-1].name if reading.events else ""
                reading.end = "final" if last == "final" else "ended" if answer.isclosed() else "hung up"
        except Line.BROKEN:
            reading.end = "broken"
        finally:
            line.close()


def events_in(lines: Iterator[bytes]) -> Iterator[Said]:
    """The events of a stream, as they come."""
    fields: dict[str, str] = {}
    for raw in lines:
        text = raw.decode().rstrip("\r\n")
        if text:
            name, _, value = text.partition(": ")
            fields[name] = value
            continue
        if "data" in fields:
            job = json.loads(fields["data"])
            done = (job["progress"] or {}).get("done")
            yield Said(fields["event"], int(fields["id"]), job["status"], job["attempt"], done)
        fields = {}
