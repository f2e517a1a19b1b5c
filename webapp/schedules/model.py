"""Schedules as values: when one is due, what it fires, and what became of each of its times. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, NamedTuple
from uuid import UUID

from webapp.infra.jsontext import iso
from webapp.schedules.zones import UTC_NAME

#: Longest name of a schedule, characters.
LONGEST_NAME: Final = 200
#: Most seconds between two times of `every`, and of `catch_up_window`: a year.
YEAR: Final = 366 * 86_400
#: Most seconds of `grace` and of `jitter`: a day.
DAY: Final = 86_400
#: Most times that are caught up, and most that wait for their turn.
MOST_AT_ONCE: Final = 1_000
#: Most firings of a schedule, and most failures after which it is paused.
MOST_FIRINGS, MOST_FAILURES = 10**9, 100
#: Longest name of the payload's key that gets the time.
LONGEST_TIME_KEY: Final = 100
#: Most versions of a schedule that are kept.
VERSIONS_KEPT: Final = 20
#: Who pauses where no one does.
ITSELF: Final = "djps"


class CatchUp(StrEnum):
    """What becomes of times that were missed."""

    #: They are passed over.
    SKIP = "skip"
    #: The newest of them fires.
    LAST = "last"
    #: Each fires, the oldest first.
    ALL = "all"


class Overlap(StrEnum):
    """What becomes of a time while the job of the one before has not ended."""

    #: It is passed over.
    SKIP = "skip"
    #: One waits for its turn; more are passed over.
    BUFFER_ONE = "buffer_one"
    #: Each waits for its turn.
    BUFFER_ALL = "buffer_all"
    #: The job is asked to stop, and the newest time waits for its end.
    CANCEL_OTHER = "cancel_other"
    #: The job's process is killed, and the newest time waits for its end.
    TERMINATE_OTHER = "terminate_other"
    #: It fires all the same.
    ALLOW_ALL = "allow_all"


#: Those under which the newest time takes the place of what runs.
STOPPING = frozenset({Overlap.CANCEL_OTHER, Overlap.TERMINATE_OTHER})


class Kind(StrEnum):
    """Why there is a firing."""

    SCHEDULED = "scheduled"
    CAUGHT_UP = "caught_up"
    MANUAL = "manual"
    BACKFILL = "backfill"


class Outcome(StrEnum):
    """What became of a time."""

    #: Its job was stored.
    FIRED = "fired"
    #: Its job is stored when the one before has ended.
    BUFFERED = "buffered"
    #: It was passed over; the reason says why.
    SKIPPED = "skipped"
    #: Its job could not be stored; the reason says why.
    REFUSED = "refused"
    #: It and others until `until` were too late when they were looked at.
    MISSED = "missed"
    #: It and others until `until` came while the schedule was paused.
    PAUSED = "paused"


class State(StrEnum):
    """How a schedule stands."""

    ACTIVE = "active"
    PAUSED = "paused"
    #: It has no time to come.
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Timing:
    """When a schedule is due: by `cron` in `zone`, or every so many seconds.

    Args:
        every: seconds, counted from `start_at`, else from 1970.
        start_at, end_at: no time is before, none is after.
    """

    cron: str | None = None
    zone: str = UTC_NAME
    every: int | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """What a schedule is.

    Args:
        job: its payload and options, as a submission has them; empty where it is left out of a list.
        catch_up_limit: most times that `all` catches up.
        catch_up_window: seconds; what is older is not caught up by `all`.
        grace: seconds by which a time may be late and is not missed.
        buffer_limit: most that wait under `buffer_all`.
        jitter: seconds by a fixed share of which each time is put off.
        max_firings: so often it fires; None: there is no such end.
        time_key: the payload's key that gets the nominal time.
        pause_after_failures: so many failed jobs in a row pause it.
    """

    timing: Timing
    job: Mapping[str, Any] = field(default_factory=dict)
    catch_up: CatchUp = CatchUp.LAST
    catch_up_limit: int = 100
    catch_up_window: int = DAY
    grace: int = 60
    overlap: Overlap = Overlap.SKIP
    buffer_limit: int = 100
    jitter: int = 0
    max_firings: int | None = None
    time_key: str | None = None
    pause_after_failures: int | None = None

    def document(self) -> dict[str, Any]:
        """As JSON; a spec is kept, compared and shown by it."""
        timing = {one.name: _plain(getattr(self.timing, one.name)) for one in fields(Timing)}
        own = {one.name: _plain(getattr(self, one.name)) for one in fields(Spec) if one.name != "timing"}
        return timing | own | {"job": dict(self.job)}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Spec:
        """The spec of a document; what it does not say is as by default."""
        given = {name: value for name, value in document.items() if value is not None}
        for name in ("start_at", "end_at"):
            if name in given:
                given[name] = datetime.fromisoformat(given[name])
        timing = {one.name: given.pop(one.name) for one in fields(Timing) if one.name in given}
        known = {one.name: given[one.name] for one in fields(Spec) if one.name in given}
        known["catch_up"] = CatchUp(known.get("catch_up", CatchUp.LAST))
        known["overlap"] = Overlap(known.get("overlap", Overlap.SKIP))
        return cls(timing=Timing(**timing), **known)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    return value.value if isinstance(value, StrEnum) else value


def shift_of(schedule_id: UUID, jitter: int) -> float:
    """By how many seconds each time of a schedule is put off: a share of its jitter that stays the same on every host.

    Example:
        >>> shift_of(UUID(int=1), 0), 0 <= shift_of(UUID(int=1), 60) < 60
        (0.0, True)
    """
    share = int.from_bytes(sha256(schedule_id.bytes).digest()[:6]) / 2**48
    return round(share * jitter, 3)


def shift_by(schedule_id: UUID, spec: Spec) -> timedelta:
    """What the jitter of a spec puts the times of a schedule off."""
    return timedelta(seconds=shift_of(schedule_id, spec.jitter))


class Firing(NamedTuple):
    """What becomes of a time.

    Args:
        until: the last of several times that it stands for.
    """

    at: datetime
    kind: Kind
    outcome: Outcome
    reason: str | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class FiringRow:
    """A firing on record.

    Args:
        round: 0; more for a time that was fired again; -1 for one that stands for several.
        version: of the schedule.
        fired_at: when this was put on record.
    """

    at: datetime
    round: int
    kind: str
    outcome: str
    reason: str | None
    until: datetime | None
    job_id: UUID | None
    version: int
    fired_at: datetime


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as it stands.

    Args:
        queue: where its jobs wait, whatever their handler says later.
        next_at: its next nominal time; None: there is none.
        due_at: the same with its jitter.
        last_at: the newest time that was dealt with.
        open_job_id: the job of its last firing.
        buffered: how many of its times wait for their turn.
        fired, skipped: how many times fired, and how many were passed over.
        pruned_until: firings of times until then are not all on record any more.
    """

    id: UUID
    name: str
    queue: str
    version: int
    created_at: datetime
    updated_at: datetime
    paused_at: datetime | None
    paused_by: str | None
    pause_note: str | None
    resumed_at: datetime | None
    next_at: datetime | None
    due_at: datetime | None
    last_at: datetime | None
    open_job_id: UUID | None
    buffered: int
    fired: int
    skipped: int
    pruned_until: datetime | None
    spec: Spec = field(compare=False)

    @property
    def state(self) -> State:
        """How it stands."""
        if self.paused_at is not None:
            return State.PAUSED
        return State.ENDED if self.next_at is None and not self.buffered else State.ACTIVE


class Version(NamedTuple):
    """A version of a schedule, as it was given."""

    version: int
    spec: dict[str, Any]
    changed_at: datetime
    changed_by: str | None
    why: str | None
