"""Submissions that come while another one is being stored: they wait for it, and then are stored by one statement and one commit.

A commit takes a millisecond, and what PostgreSQL does for a statement is more than what it does for a row. So under load
several jobs share both. A submission that comes alone is stored at once: nothing here waits for company.

Whatever goes wrong with a group costs a member nothing but time: each one that was not told that its job is stored stores it
again by itself, as after a try whose answer was lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from webapp.infra.postgres import deadlines
from webapp.jobs.submission import NewJob

T = TypeVar("T")

#: Most jobs that one statement stores; each number of them is a statement of its own.
MOST: Final = 16
#: Longest payload of a job that joins others, characters: a larger one would make them wait for it.
LONGEST_PAYLOAD: Final = 16_384
#: Longest wait for a turn, seconds: one statement that hangs must not hold up what other connections can do.
LONGEST_TURN: Final = 0.1
#: Longest wait for a group where a thread has no time of its own, seconds.
LONGEST_WAIT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job to be stored.

    Args:
        job: which.
        dispatched: a message about it follows.
    """

    job: NewJob
    dispatched: bool


def may_join(job: NewJob) -> bool:
    """True if a job can be stored with others: one that is large, or waits for a unique key, would make them wait. Pure."""
    return job.unique is None and len(job.payload) <= LONGEST_PAYLOAD


def next_group(keys: Sequence[str | None], most: int) -> list[int]:
    """Which of those that wait are stored next: the first one, and those that can join it. Pure.

    Those with a key are not mixed with those without, who need not wait for a key; and the same key is not in a group twice.

    Args:
        keys: theirs, in the order in which they came.
        most: jobs of one group.

    Returns:
        Their places.

    Example:
        >>> next_group([None, "a", None], 16), next_group(["a", None, "a", "b"], 16)
        ([0, 2], [0, 3])
    """
    taken: set[str] = set()
    chosen: list[int] = []
    for place, key in enumerate(keys):
        if len(chosen) < most and (key is None) == (keys[0] is None) and key not in taken:
            chosen.append(place)
            if key is not None:
                taken.add(key)
    return chosen


class _Member(Generic[T]):
    """One who waits: first for its turn, then, unless it leads, for what became of the group."""

    __slots__ = ("answer", "candidate", "group", "word")

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        #: The group that it leads, once it is its turn.
        self.group: Sequence[_Member[T]] = ()
        #: What became of its job, once that is known.
        self.answer: T | None = None
        #: Held until there is something to be told.
        self.word = threading.Lock()
        self.word.acquire()


class Groups(Generic[T]):
    """The submissions of one process.

    Args:
        store: stores jobs by one statement, commits, and says what became of each, in their order; None where that is not
            known.
        most: jobs of one statement.
    """

    def __init__(
        self,
        store: Callable[[Sequence[Candidate]], Sequence[T | None]],
        *,
        most: int = MOST,
    ) -> None:
        self._store = store
        self._most = most
        self._is_free = True
        self._lock = threading.Lock()
        self._waiting: list[_Member[T]] = []

    def add(self, candidate: Candidate) -> T | None:
        """Stores a job, with others if it has to wait for one; None where it is not known whether it is stored.

        Raises:
            DBAPIError: it was not stored with others, and could not be.
        """
        with self._lock:
            if self._is_free:
                self._is_free = False
                member = None
            else:
                member = _Member[T](candidate)
                self._waiting.append(member)
        if member is None:
            try:
                return self._store([candidate])[0]
            finally:
                self._pass_on()
        told = member.word.acquire(timeout=LONGEST_TURN)
        if not told and self._withdraw(member):
            return self._store([candidate])[0]
        if member.group:
            self._lead(member.group)
        elif not told:
            left = deadlines.left()
            member.word.acquire(timeout=LONGEST_WAIT if left is None else max(0.0, left))
        return member.answer

    def _lead(self, group: Sequence[_Member[T]]) -> None:
        """Stores a group and tells its members; the first one is this thread's own."""
        try:
            stored = self._store([one.candidate for one in group])
            for one, answer in zip(group, stored, strict=True):
                one.answer = answer
        finally:
            self._pass_on()
            for one in group[1:]:
                one.word.release()

    def _pass_on(self) -> None:
        """Lets the next group begin, if one waits."""
        with self._lock:
            if not self._waiting:
                self._is_free = True
                return
            places = next_group([one.candidate.job.idempotency_key for one in self._waiting], self._most)
            group = [self._waiting[place] for place in places]
            for one in group:
                self._waiting.remove(one)
            group[0].group = group
        group[0].word.release()

    def _withdraw(self, member: _Member[T]) -> bool:
        """Takes back one that has waited too long for its turn; False when it is in a group already."""
        with self._lock:
            if member not in self._waiting:
                return False
            self._waiting.remove(member)
            return True
