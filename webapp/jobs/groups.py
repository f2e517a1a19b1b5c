"""Submissions that come while another one is being stored: they wait for it, and then are stored by one statement and one commit.

A commit takes a millisecond, and what PostgreSQL does for a statement is more than what it does for a row. So under load
several jobs share both. A submission that comes alone is stored at once: nothing here waits for company.

Whatever goes wrong with a group costs a member nothing but time: each one that was not told that its job is stored stores it
again by itself, as after a try whose answer was lost.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from webapp.infra.postgres import deadlines
from webapp.jobs.model import JobRow
from webapp.jobs.submission import NewJob

#: Most jobs that one statement stores; each number of them is a statement of its own.
MOST: Final = 8
#: Longest payload of a job that joins others, characters: a larger one would make them wait for it.
LONGEST_PAYLOAD: Final = 16_384
#: Longest wait for the others where a thread has no time of its own, seconds.
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
    """True if a job can be stored with others: it waits for no one else's key, and is small. Pure."""
    return job.idempotency_key is None and len(job.payload) <= LONGEST_PAYLOAD


class _Member:
    """One who waits: first for its turn, then, unless it leads, for what became of the group."""

    __slots__ = ("candidate", "group", "row", "word")

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        #: The group that it leads, once it is its turn.
        self.group: Sequence[_Member] = ()
        #: Its job as it is stored, once it is.
        self.row: JobRow | None = None
        #: Held until there is something to be told.
        self.word = threading.Lock()
        self.word.acquire()


class Groups:
    """The submissions of one process.

    Args:
        store: stores jobs by one statement, commits, and returns their rows in their order; None for one of which that is
            not known.
        most: jobs of one statement.
        at_once: statements at the same time.
    """

    def __init__(
        self,
        store: Callable[[Sequence[Candidate]], Sequence[JobRow | None]],
        *,
        most: int = MOST,
        at_once: int = 1,
    ) -> None:
        self._store = store
        self._most = most
        self._free = at_once
        self._lock = threading.Lock()
        self._waiting: deque[_Member] = deque()

    def add(self, candidate: Candidate) -> JobRow | None:
        """Stores a job, with others if it has to wait for one; None where it is not known whether it is stored.

        Raises:
            DBAPIError: it came alone, and was not stored.
        """
        with self._lock:
            if self._free:
                self._free -= 1
                member = None
            else:
                member = _Member(candidate)
                self._waiting.append(member)
        if member is None:
            try:
                return self._store([candidate])[0]
            finally:
                self._pass_on()
        left = deadlines.left()
        if not member.word.acquire(timeout=LONGEST_WAIT if left is None else max(0.0, left)):
            self._withdraw(member)
        if member.group:
            self._lead(member.group)
        return member.row

    def _lead(self, group: Sequence[_Member]) -> None:
        """Stores a group and tells its members; the first one is this thread's own."""
        try:
            stored = self._store([one.candidate for one in group])
            for one, row in zip(group, stored, strict=True):
                one.row = row
        finally:
            self._pass_on()
            for one in group[1:]:
                one.word.release()

    def _pass_on(self) -> None:
        """Lets the next group begin, if one waits."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            group = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            group[0].group = group
        group[0].word.release()

    def _withdraw(self, member: _Member) -> None:
        """Takes back one whose time is over, unless it is in a group already; one that leads must go on."""
        with self._lock:
            if member in self._waiting:
                self._waiting.remove(member)
