from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.infra.broker.pace import LARGEST_CHUNK, WORK_IN_A_MESSAGE, chunk_size, is_similar, updated


@pytest.mark.parametrize(
    ("seconds", "size"),
    [
        (None, 1),
        (0.0, LARGEST_CHUNK),
        (0.0001, LARGEST_CHUNK),
        (0.001, 100),
        (0.01, 10),
        (0.05, 2),
        (0.051, 1),
        (0.1, 1),
        (5.0, 1),
    ],
)
def test_a_message_carries_a_tenth_of_a_second_of_work(seconds, size):
    assert chunk_size(seconds) == size


@pytest.mark.parametrize("seconds", [None, 0.0, 10.0])
def test_what_the_handler_says_is_done(seconds):
    assert chunk_size(seconds, fixed=7) == 7


@given(st.floats(0, 1e6))
def test_a_chunk_is_never_empty_nor_endless_nor_long(seconds):
    size = chunk_size(seconds)
    assert 1 <= size <= LARGEST_CHUNK
    assert size == 1 or size * seconds <= WORK_IN_A_MESSAGE * 1.0001


def test_the_first_measurements_are_averaged():
    known = 0.0
    for count, seconds in enumerate((0.03, 0.01, 0.02)):
        known = updated(known, count, seconds)
    assert known == pytest.approx(0.02)


def test_a_cold_start_is_soon_forgotten():
    known = updated(0.0, 0, 0.02)
    for count in range(1, 64):
        known = updated(known, count, 0.00005)
    assert chunk_size(known) > 200


def test_slowness_is_believed_at_once_and_speed_in_time():
    assert chunk_size(updated(0.001, 1000, 1.0)) == 1
    known = 1.0
    sizes = []
    for count in range(1000, 1500):
        known = updated(known, count, 0.001)
        sizes.append(chunk_size(known))
    assert sizes[50] == 1
    assert sizes[-1] > 50


@pytest.mark.parametrize(
    ("one", "other", "similar"),
    [(0.01, 0.011, True), (0.01, 0.02, False), (1, 9, True), (0, 0.00025, True), (0.1, 0.5, False)],
)
def test_paces_are_similar_when_their_chunks_are(one, other, similar):
    assert is_similar(one, other) == is_similar(other, one) == similar


def test_a_hiccup_of_the_machine_does_not_make_a_quick_task_slow():
    assert chunk_size(updated(0.0001, 1000, 0.01)) > LARGEST_CHUNK / 2
