"""Connections are spread over processes: who is ahead lets the others go first."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from ops.stack import evenly
from ops.stack.evenly import AHEAD, Shares, spread


def test_places_are_given_out_once_and_again_when_they_are_free():
    shares = Shares(2)
    assert [shares.take(), shares.take(), shares.take()] == [0, 1, None]
    shares.give_back(0)
    assert shares.take() == 0


@pytest.mark.parametrize(
    ("mine", "others", "ahead"),
    [
        (100, [], False),
        (AHEAD, [0], False),
        (AHEAD + 1, [0], True),
        (50, [50 - AHEAD, 60], False),
        (50, [80, 49 - AHEAD], True),
        (0, [90, 80], False),
    ],
)
def test_who_is_ahead(mine, others, ahead):
    shares = Shares(4)
    place = shares.take()
    shares.write(place, mine)
    for count in others:
        shares.write(shares.take(), count)
    assert shares.is_ahead(place) == ahead


def test_a_process_sees_what_another_wrote():
    shares = Shares(2)
    mine, its = shares.take(), shares.take()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - the child ends without its coverage
        shares.write(its, 7)
        os._exit(0)
    os.waitpid(pid, 0)
    assert (shares.read(mine), shares.read(its)) == (0, 7)


def test_the_one_ahead_waits_and_then_takes_what_no_other_took(monkeypatch):
    slept, taken = [], []
    monkeypatch.setattr(evenly.time, "sleep", slept.append)
    shares = Shares(2)
    mine, other = shares.take(), shares.take()
    worker = SimpleNamespace(accept=taken.append, notify=lambda: taken.append("notified"))
    spread(worker, shares, mine, lambda: 10 + len(taken))
    worker.accept("first")
    assert (len(slept), taken, shares.read(mine)) == (1, ["first"], 11)
    shares.write(other, 20)
    worker.accept("second")
    worker.notify()
    assert (len(slept), taken, shares.read(mine)) == (1, ["first", "second", "notified"], 12)
