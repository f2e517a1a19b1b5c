from __future__ import annotations

import pytest

from tasks.presence.watchdog import PATIENCE, Watchdog

QUIET = {"waiting": 5, "received": 3, "busy": 0, "capacity": 2}


def judged(*looks: tuple[float, dict[str, int]]) -> list[bool]:
    dog = Watchdog()
    return [dog.is_deaf(at, **(QUIET | changes)) for at, changes in looks]


def test_messages_that_wait_in_vain_for_long_enough_say_that_the_worker_is_deaf():
    assert judged((0, {}), (1, {}), (PATIENCE, {}), (PATIENCE + 1, {})) == [False, False, False, True]


@pytest.mark.parametrize("sign", [{"waiting": 0}, {"received": 4}, {"busy": 2}, {"busy": 3}])
def test_one_sign_of_life_begins_the_wait_anew(sign):
    looks = judged((0, {}), (1, {}), (PATIENCE, sign), (PATIENCE + 1, {}), (2 * PATIENCE, {}))
    assert looks == [False] * 5


def test_what_could_not_be_seen_says_nothing():
    dog = Watchdog()
    dog.is_deaf(0, **QUIET)
    dog.is_deaf(1, **QUIET)
    dog.forget()
    assert not dog.is_deaf(PATIENCE + 1, **QUIET)
