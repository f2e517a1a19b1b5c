from __future__ import annotations

import pytest

from webapp.jobs.states import FINAL, TRANSITIONS, JobStatus, may_move

ALLOWED = {
    ("queued", "processing"),
    ("queued", "cancelled"),
    ("processing", "queued"),
    ("processing", "completed"),
    ("processing", "failed"),
    ("processing", "cancelled"),
    ("failed", "queued"),
    ("cancelled", "queued"),
}


@pytest.mark.parametrize("source", list(JobStatus))
@pytest.mark.parametrize("target", list(JobStatus))
def test_only_the_drawn_moves_are_allowed(source, target):
    assert may_move(source, target) is ((source.value, target.value) in ALLOWED)


def test_every_state_says_where_it_leads():
    assert set(TRANSITIONS) == set(JobStatus)


def test_no_final_state_is_left_but_by_requeue():
    assert {target for state in FINAL for target in TRANSITIONS[state]} == {JobStatus.QUEUED}
    assert not TRANSITIONS[JobStatus.COMPLETED]
