"""The soak: faults at random, one after the other, sometimes two at once."""

from __future__ import annotations

import threading

import psycopg2
from redis.exceptions import RedisError

from ops.chaos.database_faults import database_deadlocks, database_down, database_slow, terminate_backends
from ops.chaos.message_faults import drop_messages, duplicate_messages, garbage, shuffle_messages
from ops.chaos.process_faults import (
    die_at,
    kill_api_workers,
    kill_children,
    kill_once,
    rolling_restart,
    stop_worker,
    two_beats,
)
from ops.chaos.redis_faults import delete_queue, delete_unacked, flush, redis_down, redis_full, redis_paused
from ops.chaos.stage import Fault, Stage

#: What a soak chooses from; each leaves the system whole.
SOAK: tuple[Fault, ...] = (
    kill_once("worker"),
    kill_once("maintenance"),
    kill_once("beat"),
    kill_once("api"),
    kill_api_workers,
    kill_children,
    die_at("after-claim", "before-settle", "after-settle"),
    die_at("before-commit", "after-commit"),
    redis_down(2),
    redis_down(0),
    flush,
    delete_queue,
    delete_unacked,
    redis_full,
    redis_paused(3),
    database_down(2, immediate=True),
    database_down(5),
    terminate_backends,
    database_slow,
    database_deadlocks,
    duplicate_messages,
    shuffle_messages,
    drop_messages,
    garbage,
    two_beats,
    rolling_restart,
    stop_worker,
)

#: Share of faults that another accompanies.
IN_COMPANY = 0.25


def soak(stage: Stage) -> None:
    """Faults in a seeded order, one after the other, a few at once, each at least once."""
    chosen = list(SOAK)
    stage.rng.shuffle(chosen)
    for one in chosen:
        if stage.rng.random() < IN_COMPANY:
            other = stage.rng.choice((kill_children, delete_unacked, drop_messages))
            second = threading.Thread(target=_quietly, args=(other, stage), daemon=True)
            second.start()
            _quietly(one, stage)
            second.join(60)
        else:
            _quietly(one, stage)
        stage.hold(stage.rng.uniform(0.5, 1.5))


def _quietly(one: Fault, stage: Stage) -> None:
    """In a soak a fault may find its target gone: that is a fault, too."""
    try:
        one(stage)
    except (TimeoutError, RedisError, psycopg2.Error, RuntimeError) as error:
        stage.say(f"a fault did not come through: {type(error).__name__}")
