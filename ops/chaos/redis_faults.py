"""Faults of Redis: down, flushed, full, stopped, paused."""

from __future__ import annotations

import signal
from typing import Any

from ops.chaos.message_faults import worker_held
from ops.chaos.stage import Fault, Stage
from ops.chaos.system import QUEUE
from ops.stack import valkey
from webapp.infra.broker.redis_keys import UNACKED, UNACKED_INDEX, key
from webapp.infra.broker.transport import lists_of


def redis_down(seconds: float) -> Fault:
    """Redis is killed, and back after a while."""

    def inject(stage: Stage) -> None:
        with stage.fault(f"Redis down for {seconds:g} s"):
            stage.system.stop("redis", signal.SIGKILL)
            stage.hold(seconds)
            stage.system.start("redis")
            valkey.wait(stage.system.redis_port)

    return inject


def redis_command(stage: Stage, *command: object) -> Any:
    """One command, past every proxy."""
    with stage.system.redis() as client:
        return client.execute_command(*command)


def flush(stage: Stage) -> None:
    """FLUSHALL while messages wait."""
    for _ in range(3):
        with worker_held(stage), stage.fault("FLUSHALL"):
            redis_command(stage, "FLUSHALL")
        stage.hold(2)


def delete_queue(stage: Stage) -> None:
    """DEL of the queue while messages wait in it."""
    for _ in range(2):
        with worker_held(stage), stage.fault("DEL of the queue"):
            redis_command(stage, "DEL", *lists_of(QUEUE))
        stage.hold(2)


def delete_unacked(stage: Stage) -> None:
    """DEL of what kombu keeps about messages that are being worked on."""
    for _ in range(4):
        with stage.fault("DEL unacked"):
            redis_command(stage, "DEL", key(UNACKED), key(UNACKED_INDEX))
        stage.hold(1)


def redis_full(stage: Stage) -> None:
    """Redis refuses every write that needs memory; what it pops on behalf of a worker it still forgets."""
    with stage.fault("maxmemory reached for 6 s"):
        redis_command(stage, "CONFIG", "SET", "maxmemory", "1")
        stage.hold(6)
        redis_command(stage, "CONFIG", "SET", "maxmemory", "0")


def redis_stopped(seconds: float) -> Fault:
    """Redis is stopped: connections stay open, and nothing is answered."""

    def inject(stage: Stage) -> None:
        pid = stage.system.pid("redis")
        with stage.fault(f"Redis stopped for {seconds:g} s"), stage.stopped(pid):
            stage.hold(seconds)

    return inject


def redis_paused(seconds: float) -> Fault:
    """Redis takes commands and answers them later."""

    def inject(stage: Stage) -> None:
        with stage.fault(f"CLIENT PAUSE for {seconds:g} s"):
            redis_command(stage, "CLIENT", "PAUSE", int(seconds * 1000), "ALL")
            stage.hold(seconds)

    return inject
