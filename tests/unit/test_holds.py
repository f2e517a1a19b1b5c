from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from webapp.flow.holds import COUNTED_UP_TO, Ahead, Hold, Slots, Standing, Surroundings, hold_of
from webapp.flow.limits import Rate
from webapp.flow.model import Pause

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NOW = AT.timestamp()
FREE, NONE = Slots(None, None), Standing(None, 0.0)
FULL, ROOM = Slots(4, 4), Slots(4, 3)
#: A hundred in sixty seconds, five at once: the sixth in a row waits.
RATE = Rate(100, 60.0, 5)
SPENT, OPEN = Standing(RATE, NOW + 3.0), Standing(RATE, NOW + 2.4)
NEXT = Surroundings(
    "mail", "send", "acme", to_be_filed=False, slots=(FREE, ROOM, FREE), rates=(NONE, OPEN, NONE),
    pause=None, lanes_before=0, jobs_before=0, now=NOW,
)  # fmt: skip
#: What comes first where the key has an order.
RUNS, WAITS, TRIES_AGAIN = (
    Ahead(UUID(int=8), status, at)
    for status, at in (("processing", AT), ("queued", AT), ("queued", AT + timedelta(seconds=4)))
)
HOLDER = ("host:1:b/7", UUID(int=7))


@pytest.mark.parametrize(
    ("around", "state", "words"),
    [
        ({"to_be_filed": True, "slots": (FULL, FREE, FREE)}, "filing", "is filed under the limits"),
        (
            {"pause": Pause(AT, "ada", "loops")},
            "key_paused",
            "key 'acme' of queue 'mail' is paused since 2026-01-02T03:04:05",
        ),
        ({"pause": Pause(AT, "ada", "loops")}, "key_paused", "Z by ada (loops)"),
        ({"slots": (FULL, FULL, FULL)}, "queue_limit", "4 of 4 slots of queue 'mail' are taken"),
        ({"slots": (ROOM, FULL, FULL)}, "task_limit", "4 of 4 slots of task 'send' are taken"),
        (
            {"slots": (FREE, FREE, Slots(1, 1))},
            "key_limit",
            "1 of 1 slots of key 'acme' of queue 'mail' are taken",
        ),
        (
            {"slots": (FREE, FREE, Slots(1, 1)), "key": ""},
            "key_limit",
            "of queue 'mail' without a key are taken",
        ),
        (
            {"rates": (SPENT, NONE, NONE)},
            "queue_rate",
            "of queue 'mail' 100 jobs may start in 60 s; the next one may at 2026-01-02T03:04:05.6",
        ),
        ({"rates": (OPEN, SPENT, NONE)}, "task_rate", "of task 'send' 100 jobs"),
        ({"rates": (OPEN, OPEN, SPENT)}, "key_rate", "of key 'acme' of queue 'mail' 100 jobs"),
        (
            {"ahead": RUNS},
            "in_order_behind",
            f"job {UUID(int=8)} of key 'acme' of queue 'mail' comes first and is processing",
        ),
        (
            {"ahead": WAITS, "rates": (NONE, NONE, SPENT), "lanes_before": 1},
            "in_order_behind",
            "comes first and is queued",
        ),
        ({"ahead": TRIES_AGAIN}, "in_order_behind", "is queued until 2026-01-02T03:04:09"),
        ({"ahead": RUNS, "slots": (FULL, FREE, FREE)}, "queue_limit", "4 of 4 slots"),
        ({"lanes_before": 1}, "turn_of_others", "and 1 other key of queue 'mail' have"),
        (
            {"lanes_before": COUNTED_UP_TO + 1},
            "turn_of_others",
            "more than 10,000 other keys of queue 'mail' have",
        ),
        ({"jobs_before": 3}, "behind_others", "behind 3 jobs of key 'acme' of queue 'mail'"),
    ],
)
def test_the_first_thing_that_holds_a_job_is_said(around, state, words):
    hold = hold_of(replace(NEXT, **around))
    assert (hold.state, words in hold.sentence) == (state, True), hold.sentence


def test_nothing_holds_the_next_job():
    assert hold_of(NEXT) is None


def test_who_holds_the_slots_is_named():
    hold = hold_of(replace(NEXT, slots=(FULL, FREE, FREE), holders=[HOLDER]))
    assert hold == Hold(
        "queue_limit",
        hold.sentence,
        {"limit": 4, "used": 4, "held_by": [{"worker_id": "host:1:b/7", "job_id": str(UUID(int=7))}]},
    )


def test_what_comes_first_is_named():
    facts = {"key": "acme", "job_id": str(UUID(int=8))}
    assert hold_of(replace(NEXT, ahead=RUNS)).facts == facts | {"status": "processing"}
    again = hold_of(replace(NEXT, ahead=TRIES_AGAIN)).facts
    assert again.pop("run_at").startswith("2026-01-02T03:04:09")
    assert again == facts | {"status": "queued"}


@pytest.mark.parametrize(("seconds", "opens_in"), [(0.0, -2.4), (2.4, 0.0), (3.0, 0.6)])
def test_a_burst_lets_that_many_start_before_the_rates_pace(seconds, opens_in):
    assert Standing(RATE, NOW + seconds).opens_at - NOW == pytest.approx(opens_in)
