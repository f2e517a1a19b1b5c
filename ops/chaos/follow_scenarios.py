"""Scenarios of those who follow and steer jobs: they wait, read events, and cancel, while something is broken."""

from __future__ import annotations

from typing import Any

from ops.chaos.database_faults import database_down
from ops.chaos.process_faults import among_two_workers, kill_three_times
from ops.chaos.redis_faults import flush
from ops.chaos.scenario import PROMISED_REDIS, Scenario
from ops.chaos.stage import Fault


def _followed(verb: str, what: str, roles: tuple[str, ...]) -> list[Scenario]:
    """What happens to those who follow and steer, among two workers; the load beside them is light."""

    def scenario(name: str, fault: str, inject: Fault, **more: Any) -> Scenario:
        return Scenario(
            f"{verb}-{name}",
            f"{what}, two workers, {fault}",
            among_two_workers(inject),
            rate=10,
            jobs=120,
            follow=roles,
            **more,
        )

    return [
        scenario("flush", "FLUSHALL three times", flush, within=PROMISED_REDIS),
        scenario("worker-kill", "kill -9 of one worker, three times", kill_three_times("worker")),
        scenario(
            "pg-restart",
            "PostgreSQL stopped at once (SIGQUIT), back after 2 s",
            database_down(2, immediate=True),
            database_away=True,
        ),
    ]


FOLLOWED = (
    *_followed("follow", "clients wait and read events", ("wait", "events")),
    *_followed("cancel", "clients cancel and wait", ("cancel",)),
)
