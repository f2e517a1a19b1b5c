"""What a scenario of the fault suite is made of: one fault and its surroundings, and the kinds of jobs that are posted meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ops.chaos.clients import ORDINARY, Kind
from ops.chaos.handlers import WAYS
from ops.chaos.stage import Stage
from ops.chaos.system import LEASE, SWEEP

#: Longest recovery that is promised, seconds: a lease, a sweep, and ten more.
PROMISED = LEASE + SWEEP + 10.0
#: Longest recovery after FLUSHALL or a restart of Redis, seconds.
PROMISED_REDIS = 10.0
#: What POST answers when all is well, and when it is not and says so.
SERVED = (200, 201, 503)
#: The same where PostgreSQL is stopped under load: a POST that got 503 is sent again while its first commit may still be on its way,
#: and is told of the race for its key.
RACED = (*SERVED, 409)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One fault and its surroundings.

    Args:
        name: what one types.
        what: what happens, in a few words.
        inject: does it, heals it, and returns; the load goes on meanwhile.
        jobs: how many are posted, at `rate` a second.
        system: arguments of the `System` it needs, when the ordinary one will not do.
        within: longest recovery at p99, seconds.
        unharmed: POSTs must be 201 within 250 ms, and no process may end.
        redis_away: POSTs must be 201 within 250 ms, and `/health/ready` must say `degraded`.
        database_away: POSTs must be 503 within a second, and taken again within 5 s of its return.
        database_says: what `/health/ready` must say at that time: `unavailable`, or nothing but `ok`.
        answers: what POST may answer, where not every answer is right; 0 stands for none.
        slower_at_most: how many times as long as without the fault POSTs may take at p99.
        kinds: what is posted.
        tail: seconds the load goes on after the fault.
        follow: who follows and steers jobs of their own meanwhile: `wait`, `events`, `cancel`.
    """

    name: str
    what: str
    inject: Callable[[Stage], None]
    jobs: int = 400
    rate: float = 80.0
    system: Mapping[str, Any] = field(default_factory=dict)
    within: float = PROMISED
    unharmed: bool = False
    redis_away: bool = False
    database_away: bool = False
    database_says: str = "unavailable"
    answers: tuple[int, ...] = ()
    slower_at_most: float | None = None
    kinds: tuple[Kind, ...] = ORDINARY
    tail: float = 1.0
    follow: tuple[str, ...] = ()


def _poison(rng: random.Random) -> dict[str, Any]:
    return {"task": "chaos.poison", "how": rng.choice(WAYS)}


def _plain_payload(_rng: random.Random) -> dict[str, Any]:
    return {"task": "noop"}


def _long(rng: random.Random) -> dict[str, Any]:
    return {"task": "chaos.effect", "ms": rng.randrange(8_000, 11_000)}


#: Only the scenarios themselves post these.
WITH_KILLER = (*ORDINARY, Kind("killer", 0.0, _plain_payload, ("failed",)))
WITH_FATED = (*ORDINARY, Kind("fated", 0.0, _plain_payload, ("failed",)))
WITH_ASLEEP = (*ORDINARY, Kind("asleep", 0.0, _plain_payload))
#: A light load of quick jobs before a backlog of a fault's own.
WITH_HELD = (
    Kind("brief", 1.0, lambda rng: {"task": "chaos.effect", "ms": rng.randrange(50, 100)}),
    Kind("held", 0.0, _plain_payload),
)
#: Those in order, and what is cancelled of them.
WITH_ORDERED = (*WITH_HELD, Kind("dropped", 0.0, _plain_payload, ("cancelled",)))
WITH_POISON = (*ORDINARY, Kind("poison", 0.06, _poison, ("failed",)))
WITH_LONG = (*ORDINARY, Kind("long", 0.03, _long))
WITH_MEDIUM = (
    *ORDINARY,
    Kind("medium", 0.15, lambda rng: {"task": "chaos.effect", "ms": rng.randrange(500, 1_500)}),
)
#: Half of the longer ones have a process beside them; one that is left behind is found by the checker.
WITH_HELPERS = (
    *ORDINARY,
    Kind("medium", 0.08, lambda rng: {"task": "chaos.effect", "ms": rng.randrange(500, 1_500)}),
    Kind(
        "helped", 0.07, lambda rng: {"task": "chaos.effect", "ms": rng.randrange(500, 1_500), "helper": True}
    ),
)
