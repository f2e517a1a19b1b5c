"""Scenarios of flow control, schedules, batches and workflows: pauses, limits, rates, the turns of keys and their order, firings, counts, steps."""

from __future__ import annotations

from ops.chaos.batch_faults import batches_count_once
from ops.chaos.limit_faults import limits_hold
from ops.chaos.order_faults import keys_in_order
from ops.chaos.pause_faults import QUEUE_PATH, TASK_PATH, pause_under_load
from ops.chaos.process_faults import among_two_workers
from ops.chaos.rate_faults import rate_holds
from ops.chaos.scenario import RACED, WITH_HELD, WITH_ORDERED, Scenario
from ops.chaos.schedule_faults import schedules_fire_once
from ops.chaos.turn_faults import keys_take_turns
from ops.chaos.workflow_faults import workflows_go_on

FLOW = (
    Scenario(
        "pause",
        "queue and task paused under load, while all is killed and Redis flushed",
        pause_under_load,
        rate=20,
        jobs=200,
        answers=(0, *RACED),
    ),
    *(
        Scenario(
            name,
            f"the limit of a {what} changes, tickets forged, children killed, FLUSHALL, PostgreSQL restarted",
            among_two_workers(limits_hold(path)),
            rate=4,
            jobs=100,
            kinds=WITH_HELD,
            answers=RACED,
        )
        for name, what, path in (("limits", "queue", QUEUE_PATH), ("task-limits", "task", TASK_PATH))
    ),
    Scenario(
        "rates",
        "a rate, tickets forged, children killed, FLUSHALL, attempts that fail",
        among_two_workers(rate_holds),
        rate=4,
        jobs=60,
        kinds=WITH_HELD,
    ),
    Scenario(
        "keys",
        "keys of unequal backlogs that take turns, tickets forged, children killed, FLUSHALL",
        among_two_workers(keys_take_turns),
        rate=4,
        jobs=60,
        kinds=WITH_HELD,
    ),
    Scenario(
        "order",
        "keys in order, attempts that fail, jobs for later, cancels, tickets forged, children killed, FLUSHALL",
        among_two_workers(keys_in_order),
        rate=4,
        jobs=60,
        kinds=WITH_ORDERED,
    ),
    Scenario(
        "schedules",
        "schedules of each second, two beats, what fires them killed, FLUSHALL, PostgreSQL restarted",
        schedules_fire_once,
        rate=4,
        jobs=60,
        answers=RACED,
    ),
    Scenario(
        "batches",
        "batches in parts that are sent twice, what adds, runs and counts killed, FLUSHALL, PostgreSQL restarted",
        batches_count_once,
        rate=4,
        jobs=60,
        answers=(0, *RACED),
    ),
    Scenario(
        "workflows",
        "workflows posted twice, what runs them and what moves them on killed, FLUSHALL, PostgreSQL restarted",
        workflows_go_on,
        rate=4,
        jobs=60,
        answers=RACED,
    ),
)
