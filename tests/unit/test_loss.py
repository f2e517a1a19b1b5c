from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import pytest

from webapp.jobs.loss import MOST_SPARED, Fate, LastSeen, fates

A, B, C = (UUID(int=number) for number in (1, 2, 3))
LOST, SPARED, ALONE = Fate.LOST, Fate.SPARED, Fate.SPARED_ALONE


@dataclass(frozen=True)
class Job:
    id: UUID
    attempt: int = 1
    spared: int = 0


@pytest.mark.parametrize(
    ("held", "seen", "expected"),
    [
        pytest.param(
            [Job(A), Job(B), Job(C)], LastSeen(B, 1), [SPARED, LOST, SPARED], id="the-cause-is-known"
        ),
        pytest.param([Job(A)], LastSeen(A, 1), [LOST], id="it-ran-the-only-one"),
        pytest.param([Job(A), Job(B)], LastSeen(), [SPARED, SPARED], id="it-ran-none"),
        pytest.param([Job(A)], LastSeen(), [SPARED], id="it-held-one-and-ran-none"),
        pytest.param([Job(A, attempt=2)], LastSeen(A, 1), [SPARED], id="it-ran-an-earlier-attempt"),
        pytest.param([Job(A)], LastSeen(C, 1), [SPARED], id="what-it-ran-is-settled"),
        pytest.param([Job(A, spared=MOST_SPARED)], LastSeen(), [LOST], id="spared-often-enough"),
        pytest.param(
            [Job(A), Job(B, spared=99)],
            LastSeen(A, 1),
            [LOST, SPARED],
            id="beside-a-cause-any-number-of-times",
        ),
        pytest.param([Job(A)], None, [LOST], id="unknown-and-alone"),
        pytest.param([Job(A), Job(B, spared=99)], None, [ALONE, ALONE], id="unknown-among-several"),
        pytest.param([], None, [], id="nothing"),
    ],
)
def test_only_what_may_have_killed_its_process_is_lost(held, seen, expected):
    assert fates(held, seen) == expected
