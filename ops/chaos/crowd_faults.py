"""Crowds: many clients post at the same moment, one key or a key each, while what stores their jobs dies or fails."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence

from ops.chaos import schema
from ops.chaos.clients import Line
from ops.chaos.database_faults import change_table
from ops.chaos.history import Event, Exchange, Operation
from ops.chaos.stage import Stage
from ops.chaos.system import await_that

#: Sequence numbers of the harness's own requests begin here, far from those of the load.
EXTRA = 10_000_000
#: Clients that post one key at once, and clients that post a key each.
RACERS, CROWD = 100, 32
#: How long one of them goes on, seconds.
PATIENCE = 15.0
#: Where a gunicorn worker dies that stores a group.
PLACES = ("before-group", "after-group")
#: Crowds while statements fail.
CROWDS = 40


def key_race(stage: Stage) -> None:
    """100 clients post the same key at the same moment."""
    for seq in range(EXTRA, EXTRA + 5):
        with stage.fault("100 clients, one key"):
            _post_at_once(stage, [_begin(stage, seq)] * RACERS)


def groups_broken(stage: Stage) -> None:
    """Crowds come while gunicorn workers die in the midst of storing a group, and while statements fail."""
    numbers = itertools.count(EXTRA)
    for place in PLACES * 2:
        marker = stage.system.folder / f"die-{place}"
        with stage.fault(f"a crowd, and die {place}"):
            marker.touch()
            end = time.monotonic() + PATIENCE
            while marker.exists() and time.monotonic() < end:
                _post_at_once(stage, _crowd(stage, numbers))
            await_that(lambda path=marker: not path.exists(), 1, f"a process to die {place}", 0.01)
        stage.hold(1)
    with stage.fault("crowds, and statements that fail"):
        change_table(stage, schema.DEADLOCKS_ON)
        for _ in range(CROWDS):
            _post_at_once(stage, _crowd(stage, numbers))
        change_table(stage, schema.DEADLOCKS_OFF)


def _crowd(stage: Stage, numbers: Iterator[int]) -> list[Operation]:
    return [_begin(stage, next(numbers)) for _ in range(CROWD)]


def _begin(stage: Stage, seq: int) -> Operation:
    return stage.history.begin(seq, f"{stage.prefix}-{seq}", "plain")


def _post_at_once(stage: Stage, operations: Sequence[Operation]) -> None:
    """A client for each of these posts it, all at the same moment, and goes on until it is accepted."""
    barrier = threading.Barrier(len(operations))

    def post(operation: Operation) -> None:
        payload = {"task": "chaos.effect", "ms": 1, "seq": operation.seq}
        body = json.dumps({"payload": payload, "idempotency_key": operation.key}).encode()
        line = Line(stage.system.api_port)
        barrier.wait(20)
        end = time.monotonic() + PATIENCE
        while not _is_accepted(stage, line, operation, body) and time.monotonic() < end:
            pass
        line.close()

    threads = [threading.Thread(target=post, args=(one,), daemon=True) for one in operations]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def _is_accepted(stage: Stage, line: Line, operation: Operation, body: bytes) -> bool:
    stage.history.invoke(operation)
    began = time.time()
    status, headers, answer = line.ask("POST", "/jobs", body)
    exchange = Exchange(began, time.time() - began, status, "Retry-After" in headers)
    if status in (200, 201):
        stage.history.end(operation, Event.OK, exchange, str(json.loads(answer)["id"]))
        return True
    stage.history.end(operation, Event.UNKNOWN, exchange)
    return False
