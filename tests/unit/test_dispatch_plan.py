"""What a look at a queue leads to: cases, and what holds whatever waits."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.infra.broker.hints import Ticket
from webapp.queues.plan import (
    FIRST_MESSAGES,
    LOOKED_AT,
    MOST_TICKETS,
    Plan,
    TaskPace,
    Waiting,
    plan_dispatch,
    tickets_for,
    unclaimed_after,
)

QUICK = TaskPace(is_known=True, is_quick=True, chunk=5)
SLOW = TaskPace(is_known=True, is_quick=False, chunk=1)
UNKNOWN = TaskPace(is_known=False, is_quick=False, chunk=1)
PACES = {
    "quick": QUICK,
    "other": TaskPace(is_known=True, is_quick=True, chunk=500),
    "slow": SLOW,
    "new": UNKNOWN,
}


def plan(head, *, length=0, named=0, buffer=100):
    waiting = {task: Waiting(jobs, 30.0, 5) for task, jobs in head.items()}
    return plan_dispatch("default", waiting, PACES, length=length, named=named, buffer=buffer)


def counted(made: Plan):
    return dict(Counter(one.task for one in made.tickets))


@pytest.mark.parametrize(
    ("head", "more", "expected"),
    [
        pytest.param({}, {}, (0, (), 100, {}),
            id="nothing is due: what was sent and not claimed has all the room"),
        pytest.param({"slow": 5}, {"buffer": 3}, (3, (), 3, {}), id="no more messages than the buffer"),
        pytest.param({"slow": 5}, {"buffer": 3, "length": 3}, (0, (), 0, {}), id="a full queue"),
        pytest.param({"slow": 5}, {"buffer": 3, "length": 5}, (0, (), 0, {}),
            id="a buffer that was made smaller"),
        pytest.param({"quick": 5}, {"buffer": 3, "length": 3}, (0, (), 0, {}),
            id="no ticket for a full queue"),
        pytest.param({"quick": 12}, {}, (0, ("quick",), 100, {"quick": 3}), id="quick jobs get tickets only"),
        pytest.param({"new": 48}, {}, (FIRST_MESSAGES, (), FIRST_MESSAGES, {}),
            id="few of a task that is not known"),
        pytest.param(
            {"new": 48}, {"length": FIRST_MESSAGES}, (0, (), 0, {}),
            id="no more of it until they are measured"
        ),
        pytest.param(
            {"new": 48, "slow": 1}, {"length": 4}, (FIRST_MESSAGES - 4, (), FIRST_MESSAGES - 4, {}),
            id="what is known waits beside what is not",
        ),
        pytest.param(
            {"quick": LOOKED_AT // 2, "other": LOOKED_AT // 2}, {}, (0, ("quick", "other"), 100, {"quick": MOST_TICKETS // 2, "other": MOST_TICKETS // 2}),
            id="tasks that share a backlog share the tickets",
        ),
        pytest.param(
            {"quick": 100}, {"buffer": 1_000}, (0, ("quick",), 1_000, {"quick": MOST_TICKETS}),
            id="no more tickets than may wait",
        ),
        pytest.param(
            {"quick": 100}, {"length": MOST_TICKETS}, (0, (), 100 - MOST_TICKETS, {}),
            id="all tickets still wait"
        ),
        pytest.param(
            {"quick": 5, "slow": 2, "new": 1}, {}, (16, ("quick",), 16, {"quick": 1}),
            id="slow and unknown tasks get messages, quick ones a ticket",
        ),
        pytest.param(
            {"quick": 80, "slow": 1}, {"length": MOST_TICKETS}, (84, (), 84, {}),
            id="where no ticket fits in, quick jobs take their turn with the slow ones",
        ),
        pytest.param(
            {"quick": 12}, {"length": 20, "named": 20}, (0, ("quick",), 80, {"quick": 3}),
            id="messages that name jobs take no place from tickets",
        ),
        pytest.param(
            {"quick": 12}, {"length": 20, "named": 40}, (0, ("quick",), 80, {"quick": 3}),
            id="a chunk's message names several jobs",
        ),
    ],
)  # fmt: skip
def test_a_plan(head, more, expected):
    made = plan(head, **more)
    assert (made.due, made.besides, made.room, counted(made)) == expected


def test_tickets_go_in_turn_and_are_as_urgent_as_the_most_urgent_of_their_jobs():
    head = {"quick": Waiting(10, 30.0, 9), "slow": Waiting(1, 5.0, 1), "other": Waiting(1, 60.0, 3)}
    made = plan_dispatch("mail", head, PACES, length=0, named=0, buffer=100)
    first, last = Ticket("mail", "quick", 30.0, 9), Ticket("mail", "other", 60.0, 3)
    assert made.tickets == (first, last, first)


@pytest.mark.parametrize(
    ("jobs", "chunk", "goes_on", "expected"),
    [
        (1, 500, False, 1),
        (500, 500, False, 1),
        (11, 5, False, 3),
        (LOOKED_AT, 500, True, MOST_TICKETS),
        (LOOKED_AT // 4, 500, True, MOST_TICKETS // 4),
        (1, 500, True, 1),
    ],
)
def test_a_head_that_goes_on_has_work_for_every_child(jobs, chunk, goes_on, expected):
    assert tickets_for(jobs, chunk, goes_on=goes_on) == expected


@pytest.mark.parametrize(("length", "setting", "expected"), [(0, 60.0, 5.0), (0, 2.0, 2.0), (1, 60.0, 60.0)])
def test_with_an_empty_queue_what_was_not_claimed_is_sent_again_soon(length, setting, expected):
    assert unclaimed_after(length, setting) == expected


heads = st.dictionaries(st.sampled_from(sorted(PACES)), st.integers(1, LOOKED_AT), max_size=4)
lengths, buffers = st.integers(0, 300), st.integers(1, 300)


@given(heads, lengths, st.integers(0, 300), buffers)
def test_there_is_never_more_than_the_room_and_never_more_tickets_than_may_wait(head, length, named, buffer):
    made = plan(head, length=length, named=named, buffer=buffer)
    assert 0 <= made.due <= made.room <= max(0, buffer - length)
    assert len(made.tickets) <= max(0, MOST_TICKETS - max(0, length - named))
    assert {PACES[one.task].is_quick for one in made.tickets} <= {True}


@given(heads, lengths, st.integers(0, 300), buffers)
def test_whatever_waits_has_a_way_to_the_workers_while_there_is_room(head, length, named, buffer):
    made = plan(head, length=length, named=named, buffer=buffer)
    is_limited = "new" in head and length >= FIRST_MESSAGES
    if length >= buffer or is_limited:
        return
    for task in head:
        if PACES[task].is_quick:
            # By a ticket of its own or of a task beside it, by a message, or by the tickets that wait.
            assert made.tickets or made.due or length - named >= MOST_TICKETS
        else:
            assert made.due > 0
            assert task not in made.besides


@given(st.integers(0, 150), st.integers(1, 5), st.integers(20, 100))
def test_a_slow_job_is_sent_however_many_quick_ones_wait_and_come(ahead, arriving, buffer):
    """A model of a queue: children work off tickets and messages, and quick jobs come in all the time."""
    line = ["quick"] * ahead + ["slow"]
    messages: list[str] = []
    for _ in range(200):
        jobs = {task: line[:LOOKED_AT].count(task) for task in ("quick", "slow") if task in line[:LOOKED_AT]}
        named = sum(one != "ticket" for one in messages) if len(messages) >= MOST_TICKETS else 0
        made = plan(jobs, length=len(messages), named=named, buffer=buffer)
        taken = [n for n, task in enumerate(islice(line, made.due)) if task not in made.besides]
        messages += [line[n] for n in taken] + ["ticket"] * len(made.tickets)
        line = [task for n, task in enumerate(line) if n not in set(taken)]
        if "slow" not in line:
            return
        # One child takes one message: a ticket is good for the first quick jobs of the line.
        if messages.pop(0) == "ticket" and line:
            head = line[: QUICK.chunk]
            line = [task for task in head if task == "slow"] + line[QUICK.chunk :]
        line += ["quick"] * arriving
    raise AssertionError("the slow job was never sent")
