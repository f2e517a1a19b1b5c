"""What those who follow and steer were told, against what became of the jobs: F1 to F5."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from http import HTTPStatus
from itertools import pairwise

from ops.chaos.followers import FINAL, Followers, Reading, Told
from ops.chaos.system import System

#: An answer may come this much before its wait is over, seconds: clocks of two processes.
EARLY = 0.05
#: Who waits is told within this, seconds: the looks that make up for a lost notification come once a second.
TOLD_WITHIN = 2.5
#: After PostgreSQL's return a listener connects again, and its next look is the one that tells, seconds.
LISTENS_AGAIN = 3.0

_ENDS = """
SELECT id::text, status, extract(epoch FROM finished_at)::float8 FROM jobs WHERE idempotency_key LIKE %s"""

# A cancelled job's effect is committed before it was cancelled, or not at all; nothing begins afterwards.
_EFFECTS_OF_CANCELLED = """
SELECT e.job_id::text, e.attempt FROM effects e JOIN jobs j ON j.id = e.job_id
 WHERE j.idempotency_key LIKE %s AND j.status = 'cancelled'
   AND (e.started_at > j.finished_at OR (e.committed AND e.ended_at > j.finished_at))"""

# Each cancel is on record once: that of a job that waited, in the transaction that has cancelled it.
_NOT_ON_RECORD = """
SELECT j.id::text, j.status FROM jobs j
 WHERE j.idempotency_key LIKE %s AND (j.status = 'cancelled' OR j.cancel_requested_at IS NOT NULL)
   AND (SELECT count(*) FROM audit_events e WHERE e.event = 'job.cancel' AND e.target_id = j.id::text) <> 1"""

_NOT_DONE = """
SELECT e.target_id, j.status FROM audit_events e JOIN jobs j ON j.id = e.target_id::uuid
 WHERE e.event = 'job.cancel' AND j.idempotency_key LIKE %s AND j.status NOT IN ('cancelled', 'completed')"""

_ON_RECORD_APART = """
SELECT e.target_id FROM audit_events e
  JOIN jobs j ON j.id = e.target_id::uuid
  JOIN transitions t ON t.job_id = j.id AND t.old = 'queued' AND t.new = 'cancelled'
 WHERE e.event = 'job.cancel' AND j.idempotency_key LIKE %s AND e.xid <> t.tx"""


@dataclass(frozen=True, slots=True)
class End:
    """How a job ended, and when; `at` is None when it has not."""

    status: str
    at: float | None


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found.

    Args:
        found: examples of each kind; none of any kind is what is promised.
        late: seconds from a job's end, or the fault's, until each waiter was told.
        answers: how many of each there were: `wait 200`, `cancel 202`, `events final`.
    """

    found: dict[str, list[str]]
    late: list[float]
    answers: dict[str, int]


def check(
    system: System,
    prefix: str,
    followers: Followers,
    faults: list[tuple[float, float]],
    *,
    database_away: bool,
    slack: float = 1.0,
) -> Findings:
    """Checks what the followers of one scenario were told.

    Args:
        prefix: what the scenario's idempotency keys begin with.
        faults: begin and end of each, seconds since the epoch.
        database_away: a 503 is a right answer while PostgreSQL is away, and for a moment after.
        slack: factor on how soon everyone must be told.
    """
    like = prefix + "-%"
    ends = {row[0]: End(row[1], row[2]) for row in system.rows(_ENDS, like)}
    away = [(began, ended + LISTENS_AGAIN) for began, ended in faults] if database_away else []
    judge = _Judge(ends, away, TOLD_WITHIN * slack)
    for told in followers.told:
        judge.answer(told)
    streams: dict[str, list[Reading]] = defaultdict(list)
    for reading in followers.readings:
        streams[reading.job_id].append(reading)
    for readings in streams.values():
        judge.stream(readings)
    for name, sql in (
        ("F4 effects of cancelled jobs", _EFFECTS_OF_CANCELLED),
        ("F5 cancels that are not on record once", _NOT_ON_RECORD),
        ("F5 cancels on record that were not done", _NOT_DONE),
        ("F5 cancels and their lines of two transactions", _ON_RECORD_APART),
    ):
        judge.found[name] = [" ".join(map(str, row)) for row in system.rows(sql, like)]
    answers = Counter(f"{told.verb} {told.status}" for told in followers.told)
    answers.update(f"events {reading.end}" for reading in followers.readings)
    return Findings(dict(judge.found), judge.late, dict(answers))


class _Judge:
    def __init__(self, ends: dict[str, End], away: list[tuple[float, float]], within: float) -> None:
        self._ends = ends
        self._away = away
        self._within = within
        self.late: list[float] = []
        self.found: defaultdict[str, list[str]] = defaultdict(list)

    def _is_away(self, began: float, ended: float) -> bool:
        return any(began <= end and ended >= start for start, end in self._away)

    def _is_refusal(self, status: int, began: float, ended: float, *, retry_after: bool) -> bool:
        """Whether this is the answer that is documented for PostgreSQL being away."""
        return status == HTTPStatus.SERVICE_UNAVAILABLE and retry_after and self._is_away(began, ended)

    def answer(self, told: Told) -> None:
        """One answer to a wait, a cancel, or a stream that was seen to its end."""
        if self._is_refusal(told.status, told.asked, told.at, retry_after=told.retry_after):
            return
        end = self._ends.get(told.job_id)
        shown = f"{told.job_id} {told.verb}: {told.status} {told.says}"
        if end is None:
            self.found["F1 answers about no job"].append(shown)
        elif told.verb == "wait":
            self._waited(told, end, shown)
        elif told.verb == "cancel":
            self._cancelled(told, end, shown)
        elif told.status != HTTPStatus.NO_CONTENT:
            self.found["F2 events after the last one"].append(shown)

    def _waited(self, told: Told, end: End, shown: str) -> None:
        if told.status != HTTPStatus.OK:
            self.found["F1 waits without an answer"].append(shown)
        elif told.says in FINAL:
            if told.says != end.status:
                self.found["F1 told another end"].append(f"{shown}, is {end.status}")
            if end.at is not None and not self._is_away(told.asked, told.at):
                self._note_delay(told.at - max(end.at, told.asked), shown)
        else:
            if told.at - told.asked < told.wait - EARLY:
                self.found["F1 waits that ended early"].append(f"{shown} after {told.at - told.asked:.2f} s")
            if (
                end.at is not None
                and told.at - max(end.at, told.asked) > self._within
                and not self._is_away(end.at, told.at)
            ):
                self.found["F1 told too late"].append(shown)

    def _note_delay(self, seconds: float, shown: str) -> None:
        self.late.append(seconds)
        if seconds > self._within:
            self.found["F1 told too late"].append(f"{shown} {seconds:.1f} s after its end")

    def _cancelled(self, told: Told, end: End, shown: str) -> None:
        match told.status:
            case HTTPStatus.OK if end.status != "cancelled" or told.says != "cancelled":
                self.found["F3 cancelled jobs that are not"].append(f"{shown}, is {end.status}")
            case HTTPStatus.ACCEPTED if end.status not in ("cancelled", "completed"):
                self.found["F3 asked jobs that ended otherwise"].append(f"{shown}, is {end.status}")
            case HTTPStatus.CONFLICT if end.at is None or end.status == "cancelled" or end.at > told.at:
                self.found["F3 refused to cancel what had not ended"].append(f"{shown}, is {end.status}")
            case HTTPStatus.OK | HTTPStatus.ACCEPTED | HTTPStatus.CONFLICT:
                pass
            case _:
                self.found["F3 cancels without an answer"].append(shown)

    def stream(self, readings: list[Reading]) -> None:
        """All streams of one job by one reader, in their order."""
        job_id = readings[0].job_id
        for reading in readings:
            self._ended(reading)
        events = [event for reading in readings for event in reading.events]
        for before, after in pairwise(events):
            if after.id <= before.id:
                self.found["F2 ids that do not grow"].append(f"{job_id}: {before.id}, {after.id}")
            if after.attempt < before.attempt:
                self.found["F2 attempts that go back"].append(f"{job_id}: {before.attempt}, {after.attempt}")
            if (
                before.attempt == after.attempt
                and (after.done or 0) < (before.done or 0)
                and after.name != "final"
            ):
                self.found["F2 progress that goes back"].append(f"{job_id}: {before.done}, {after.done}")
        finals = [event for event in events if event.name == "final"]
        end = self._ends.get(job_id)
        if len(finals) != 1 or events[-1].name != "final":
            self.found["F2 streams without one end"].append(f"{job_id}: {[event.name for event in events]}")
        elif end is None or finals[0].status != end.status:
            self.found["F2 told another end"].append(f"{job_id}: {finals[0].status}")
        elif end.at is not None and not self._is_away(readings[-1].began, readings[-1].ended):
            self._note_delay(
                readings[-1].ended - max(end.at, readings[-1].began), f"{job_id} events: {end.status}"
            )

    def _ended(self, reading: Reading) -> None:
        if reading.end in {"final", "hung up"}:
            return
        if reading.end.isdigit() and self._is_refusal(
            int(reading.end), reading.began, reading.ended, retry_after=reading.retry_after
        ):
            return
        self.found["F2 streams that ended without final"].append(
            f"{reading.job_id}: {reading.end or 'goes on'}"
        )
