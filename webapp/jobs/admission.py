"""Which submissions are refused since their queue, or their key in it, is full.

A submission that makes no job, as one with its idempotency key or its unique key was stored before, is never refused: it takes no
room. Where no queue has a bound nothing is asked, and where there is room nothing but what is known already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from uuid import UUID

from sqlalchemy import Connection, Engine

from webapp.flow.admission import Standing
from webapp.flow.looks import Looks
from webapp.flow.model import FlowRules
from webapp.infra.postgres.engine import in_one_trip
from webapp.infra.telemetry import metrics
from webapp.jobs import insert, unique_keys
from webapp.jobs.errors import KeyFull, QueueFull, SubmissionRefused
from webapp.jobs.submission import NewJob


class _Room:
    """What room there is for the jobs of one request, as they come.

    Args:
        standings: by queue.
        key_depths: queued jobs, by queue and key that has a bound.
    """

    def __init__(self, standings: Mapping[str, Standing], key_depths: Mapping[tuple[str, str], int]) -> None:
        self._standings = standings
        self._key_depths = key_depths
        self._taken: Counter[str] = Counter()
        self._taken_of_keys: Counter[tuple[str, str]] = Counter()
        #: Idempotency keys and unique keys of those that are let in: of two with one key, one job is made.
        self._let_in: set[tuple[str, str]] = set()

    def full(self, job: NewJob) -> str | None:
        """Takes room for a job; or else says what is full: "queue" or "key"."""
        names = _names_of(job)
        if not names.isdisjoint(self._let_in):
            return None
        room = self._standings[job.queue].room
        if room is not None and self._taken[job.queue] >= room:
            return "queue"
        if (key := _key_of(job)) in self._key_depths:
            bound = self._standings[job.queue].bounds.key_max_depth or 0
            if self._key_depths[key] + self._taken_of_keys[key] >= bound:
                return "key"
            self._taken_of_keys[key] += 1
        self._taken[job.queue] += 1
        self._let_in |= names
        return None

    def taken(self, queue: str) -> int:
        """How many were let in."""
        return self._taken[queue]


class Admission:
    """Judges submissions by the bounds of their queues.

    Args:
        engine: the database.
        slot: held while it is asked for a single job; the request of a batch has one.
    """

    def __init__(self, engine: Engine, slot: Callable[[], AbstractContextManager[None]]) -> None:
        self._engine = engine
        self._slot = slot
        self.looks = Looks(engine)

    def admit(self, job: NewJob, rules: FlowRules) -> None:
        """Lets a job in.

        Raises:
            QueueFull: its queue has reached a bound.
            KeyFull: its key has.
        """
        if job.queue not in rules.bounded_queues:
            return
        with self._slot():
            refused = self.judge([job], rules)
        if refused:
            raise refused[job.id]

    def judge(self, jobs: Sequence[NewJob], rules: FlowRules) -> dict[UUID, SubmissionRefused]:
        """The jobs of a request that are refused, by id: those for which there is no room when their turn comes."""
        bounded = [job for job in jobs if job.queue in rules.bounded_queues]
        if not bounded:
            return {}
        standings = {queue: self.looks.standing(queue) for queue in {job.queue for job in bounded}}
        key_depths = self._key_depths(bounded, standings)
        if not _full(bounded, _Room(standings, key_depths)):
            return {}
        repeats = in_one_trip(self._engine, lambda connection: _repeats(connection, bounded))
        room = _Room(standings, key_depths)
        full = _full([job for job in bounded if job.id not in repeats], room)
        return {job.id: self._refused(job, what, standings[job.queue], room) for job, what in full}

    def note(self, jobs: Iterable[NewJob]) -> None:
        """Notes that these were stored."""
        if self.looks.are_none:
            return
        for queue, created in Counter(job.queue for job in jobs).items():
            self.looks.note(queue, created)

    def _key_depths(
        self, jobs: Sequence[NewJob], standings: Mapping[str, Standing]
    ) -> dict[tuple[str, str], int]:
        bounds = {
            _key_of(job): bound
            for job in jobs
            if _key_of(job)[1] and (bound := standings[job.queue].bounds.key_max_depth) is not None
        }
        return self.looks.key_depths(bounds) if bounds else {}

    def _refused(self, job: NewJob, what: str, standing: Standing, room: _Room) -> SubmissionRefused:
        if what == "key":
            key, bound = _key_of(job)[1], standing.bounds.key_max_depth or 0
            error: SubmissionRefused = KeyFull(
                job.queue, key, bound, self.looks.key_wait(job.queue, key, bound)
            )
        else:
            error = QueueFull(job.queue, *standing.refusal(room.taken(job.queue)))
        metrics.submissions_refused.labels(metrics.queue_label(job.queue), error.bound).inc()
        return error


def _full(jobs: Iterable[NewJob], room: _Room) -> list[tuple[NewJob, str]]:
    """The jobs for which there is no room, each with what is full."""
    return [(job, what) for job in jobs if (what := room.full(job)) is not None]


def _key_of(job: NewJob) -> tuple[str, str]:
    """Its queue and key; of one without a key, which only its queue bounds, an empty one."""
    return job.queue, job.key or ""


def _names_of(job: NewJob) -> set[tuple[str, str]]:
    """Its idempotency key and its unique key."""
    names = {("idempotency", job.idempotency_key or "")}
    if job.unique is not None:
        names.add(("unique", job.unique.key))
    return names - {("idempotency", "")}


def _repeats(connection: Connection, jobs: Sequence[NewJob]) -> set[UUID]:
    """The jobs that another one answers, as it was stored before with their key."""
    used = [job.idempotency_key for job in jobs if job.idempotency_key is not None]
    owned = insert.find_by_keys(connection, used) if used else {}
    held = unique_keys.held(connection, jobs)
    return held | {job.id for job in jobs if job.idempotency_key in owned}
