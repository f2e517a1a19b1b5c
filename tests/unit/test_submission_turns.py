"""Who is stored with whom, and that no one waits for a group that does not come."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from factories import new_job

from webapp.infra.postgres import deadlines
from webapp.jobs import groups
from webapp.jobs.groups import Candidate, Groups, may_join, next_group

PATIENCE = 20.0


@pytest.mark.parametrize(
    ("keys", "most", "chosen"),
    [
        ([None], 16, [0]),
        ([None, None, None], 2, [0, 1]),
        ([None, "a", None], 16, [0, 2]),
        (["a", None, "b"], 16, [0, 2]),
        (["a", "a", "b", "a"], 16, [0, 2]),
        (["a", "a", "b", "c"], 2, [0, 2]),
        ([None, "a"], 16, [0]),
    ],
)
def test_the_first_is_always_among_those_that_are_next(keys, most, chosen):
    assert next_group(keys, most) == chosen


def test_only_small_jobs_join_others():
    small = {"text": "x" * (groups.LONGEST_PAYLOAD - 20)}
    assert may_join(new_job(payload=small))
    assert not may_join(new_job(payload=small | {"more": "x" * 20}))


class Store:
    """Stores what it is given once its gate is open; says the number of jobs that were stored with each."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.groups: list[int] = []
        self.error: BaseException | None = None

    def __call__(self, group):
        self.groups.append(len(group))
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        if self.error is not None and len(group) > 1:
            raise self.error
        return [len(group)] * len(group)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def crowd(store, eventually):
    """Groups with one who is being stored, and others who wait."""
    made = Groups(store, most=3)

    def begin(pool, waiting):
        first = pool.submit(made.add, Candidate(new_job(), dispatched=False))
        assert store.entered.wait(PATIENCE)
        others = [pool.submit(made.add, Candidate(new_job(), dispatched=False)) for _ in range(waiting)]
        eventually(lambda: len(made._waiting) == waiting)
        return first, others

    made.begin = begin
    return made


def test_a_crowd_is_stored_in_groups_no_larger_than_they_may_be(crowd, store, monkeypatch):
    monkeypatch.setattr(groups, "LONGEST_TURN", PATIENCE)
    with ThreadPoolExecutor(6) as pool:
        first, others = crowd.begin(pool, 5)
        store.gate.set()
        assert first.result(PATIENCE) == 1
        assert sorted(one.result(PATIENCE) for one in others) == [2, 2, 3, 3, 3]
    assert store.groups == [1, 3, 2]
    assert crowd._is_free


def test_a_leader_that_fails_tells_the_others_that_nothing_is_known(crowd, store, monkeypatch):
    monkeypatch.setattr(groups, "LONGEST_TURN", PATIENCE)
    store.error = SystemExit()
    with ThreadPoolExecutor(4) as pool:
        _, others = crowd.begin(pool, 3)
        store.gate.set()
        ends = [one.exception(PATIENCE) or one.result() for one in others]
    assert sorted(map(type, ends), key=str) == [type(None), type(None), SystemExit]
    assert crowd._is_free
    assert crowd.add(Candidate(new_job(), dispatched=False)) == 1


def test_a_statement_that_hangs_holds_up_no_other(crowd, store, monkeypatch):
    monkeypatch.setattr(groups, "LONGEST_TURN", 0.01)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(crowd.add, Candidate(new_job(), dispatched=False))
        assert store.entered.wait(PATIENCE)
        others = [pool.submit(crowd.add, Candidate(new_job(), dispatched=False)) for _ in range(2)]
        hanging, store.gate = store.gate, threading.Event()
        store.gate.set()
        assert [one.result(PATIENCE) for one in others] == [1, 1]
        assert not first.done()
        hanging.set()
        assert first.result(PATIENCE) == 1
    assert crowd._is_free
    assert crowd._waiting == []


def test_a_member_gives_up_when_its_time_is_over_and_the_group_goes_on(crowd, store, monkeypatch, eventually):
    monkeypatch.setattr(groups, "LONGEST_TURN", PATIENCE)

    def add(seconds):
        with deadlines.within(seconds):
            return crowd.add(Candidate(new_job(), dispatched=False))

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(add, PATIENCE)
        assert store.entered.wait(PATIENCE)
        leader = pool.submit(add, PATIENCE)
        eventually(lambda: len(crowd._waiting) == 1)
        hurried = pool.submit(add, 0.0)
        eventually(lambda: len(crowd._waiting) == 2)
        opened, store.gate = store.gate, threading.Event()
        opened.set()
        assert first.result(PATIENCE) == 1
        store.gate.set()
        assert leader.result(PATIENCE) == 2
        assert hurried.result(PATIENCE) in {None, 2}
    assert crowd._is_free
