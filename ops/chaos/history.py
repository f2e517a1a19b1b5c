"""What the clients did and were told: one line per event, written before it counts."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Event(StrEnum):
    """What happened to a request. `unknown` may have stored the job, `refused` did not.

    And what was done to processes: `stop` has the pids, and from when to when they stood still.
    """

    INVOKE = "invoke"
    OK = "ok"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    STOP = "stop"


@dataclass(slots=True)
class Operation:
    """One job that a client wants, under one idempotency key, whatever number of requests that takes."""

    seq: int
    key: str
    kind: str
    requests: int = 0
    ids: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer; `status` is 0 when there was none."""

    began: float
    seconds: float
    status: int
    retry_after: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """One process that the harness stopped, and when, in seconds since the epoch."""

    pid: int
    began: float
    ended: float


class History:
    """The clients' log of one scenario.

    Args:
        path: where the lines go.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()
        self.operations: dict[int, Operation] = {}
        self.exchanges: list[Exchange] = []
        self.stops: list[Stop] = []

    def begin(self, seq: int, key: str, kind: str) -> Operation:
        """A client decides to have a job."""
        operation = Operation(seq, key, kind)
        with self._lock:
            self.operations[seq] = operation
        return operation

    def invoke(self, operation: Operation) -> None:
        """A request is about to be sent."""
        operation.requests += 1
        self._write(Event.INVOKE, operation)

    def end(self, operation: Operation, event: Event, exchange: Exchange, job_id: str | None = None) -> None:
        """A request was answered, or given up."""
        self._write(event, operation, status=exchange.status, seconds=round(exchange.seconds, 4), id=job_id)
        with self._lock:
            self.exchanges.append(exchange)
            if job_id is not None:
                operation.ids.add(job_id)

    def stopped(self, pids: Iterable[int], began: float, ended: float) -> None:
        """The harness stopped these processes, and let them go on."""
        pids = list(pids)
        line = json.dumps({"at": ended, "event": Event.STOP, "pids": pids, "from": began, "to": ended})
        with self._lock:
            self.stops += [Stop(pid, began, ended) for pid in pids]
            self._file.write(line + "\n")
            self._file.flush()

    def _write(self, event: Event, operation: Operation, **more: object) -> None:
        line = json.dumps(
            {"at": time.time(), "event": event, "seq": operation.seq, "key": operation.key} | more
        )
        with self._lock:
            self._file.write(line + "\n")
            self._file.flush()

    def accepted(self) -> Iterator[tuple[Operation, str]]:
        """Every id that was answered with a 2xx."""
        for operation in self.operations.values():
            for job_id in operation.ids:
                yield operation, job_id

    def close(self) -> None:
        """No more is written."""
        self._file.close()
