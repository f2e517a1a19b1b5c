"""The wire format of how the installation does, and did."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from webapp.api.flow_schemas import QueueAnswer
from webapp.api.schemas import Moment
from webapp.jobs.request import Name, moment
from webapp.system.errors import RangeRefused
from webapp.system.figures import COUNTERS, HISTOGRAMS, within
from webapp.system.overview import Overview

#: Most steps of an answer.
MOST_POINTS = 1_000
#: How far back a series goes where that is not said, and in how many steps at most, seconds.
LONG, POINTS = 3_600, 120
#: Steps that are chosen where none is given, seconds: samples are folded to the second and the last but one of them.
STEPS = (10, 60, 300, 900, 3_600, 6 * 3_600, 86_400)
#: Longest range: samples are not kept for longer, seconds.
LONGEST = 90 * 86_400
_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

_Time = Annotated[AwareDatetime, BeforeValidator(moment)]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SeriesQuery(BaseModel):
    """The query of `GET /series`."""

    model_config = ConfigDict(extra="forbid")

    name: Literal[*COUNTERS, *HISTOGRAMS]  # type: ignore[valid-type] # known when this is imported
    task: Name | None = Field(None, description="Of this task alone; for runs and waits.")
    queue: Name | None = Field(None, description="In this queue alone; for runs and waits.")
    since: _Time | None = Field(
        None, alias="from", description="An hour before the end where it is left out."
    )
    until: _Time | None = Field(None, alias="to", description="Now where it is left out.")
    step: int | None = Field(None, ge=10, le=86_400, multiple_of=10, description="Seconds.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.name not in HISTOGRAMS and (self.task is not None or self.queue is not None):
            raise ValueError("task and queue narrow the series runs and waits alone")
        return self

    def within(self, now: datetime) -> tuple[datetime, datetime, int]:
        """From when until when, and in steps of how many seconds.

        Raises:
            RangeRefused: the range is empty, too long, or has too many steps.
        """
        until = self.until or now
        since = self.since or until - timedelta(seconds=LONG)
        seconds = (until - since).total_seconds()
        if not 0 < seconds <= LONGEST:
            raise RangeRefused("from", "must be before to, and at most 90 days before it", str(self.since))
        step = self.step or next((one for one in STEPS if seconds <= one * POINTS), STEPS[-1])
        if seconds > step * MOST_POINTS:
            raise RangeRefused("step", f"must leave at most {MOST_POINTS} steps", str(self.step))
        return since, until, step


class SpreadAnswer(_Answer):
    """How seconds were spread: between which two each share ends; the second is null where it is longer than all that is told apart."""

    p50: tuple[float, float | None] | None
    p95: tuple[float, float | None] | None
    p99: tuple[float, float | None] | None


class PointAnswer(_Answer):
    """What happened in the step that begins at `at`."""

    at: Moment
    count: float
    spread: SpreadAnswer | None = None


class SeriesAnswer(_Answer):
    """A series; steps that nothing happened in are left out."""

    name: str
    step: int
    items: list[PointAnswer]

    @classmethod
    def of_counts(cls, name: str, step: int, found: Sequence[tuple[datetime, float]]) -> dict[str, Any]:
        """The JSON-ready form of a series of one number."""
        points = [PointAnswer(at=at, count=count) for at, count in found]
        return cls(name=name, step=step, items=points).model_dump(mode="json")

    @classmethod
    def of_spreads(
        cls, name: str, step: int, found: Sequence[tuple[datetime, Sequence[float]]]
    ) -> dict[str, Any]:
        """The JSON-ready form of a series with a distribution."""
        points = [
            PointAnswer(at=at, count=sum(counts), spread=spread_of(name, counts)) for at, counts in found
        ]
        return cls(name=name, step=step, items=points).model_dump(mode="json")


def spread_of(name: str, counts: Sequence[float]) -> SpreadAnswer:
    """Between which seconds shares of a series end. Pure."""
    ends = HISTOGRAMS[name][1]
    found = {word: within(ends, counts, share) if counts else None for word, share in _SHARES.items()}
    return SpreadAnswer(**found)


class WorkingAnswer(_Answer):
    """Who works."""

    workers: int
    children: int
    busy: int
    maintenance_workers: int
    beat_tick_age_seconds: float


class FailingAnswer(_Answer):
    """A group of open dead letters."""

    task: str | None
    queue: str | None
    error_type: str | None
    fingerprint: str
    count: int
    first_dead_at: Moment
    last_dead_at: Moment
    sample_job_id: UUID


class AttentionAnswer(_Answer):
    """Something that needs attention: what it is, and where one sees more."""

    kind: str
    sentence: str
    link: str


class OverviewAnswer(_Answer):
    """How the installation does."""

    at: Moment
    per_second: dict[str, float]
    waits: SpreadAnswer
    runs: SpreadAnswer
    queues: list[QueueAnswer]
    counts_are_estimates: bool
    working: WorkingAnswer | None
    open_letters: int
    failing: list[FailingAnswer]
    paused_tasks: list[str]
    attention: list[AttentionAnswer]

    @classmethod
    def of(cls, seen: Overview) -> dict[str, Any]:
        """The JSON-ready form of a look."""
        who = seen.working
        answer = cls(
            at=seen.at,
            per_second=dict(seen.rates),
            waits=spread_of("waits", seen.spreads["waits"]),
            runs=spread_of("runs", seen.spreads["runs"]),
            queues=[QueueAnswer.model_validate(QueueAnswer.of_queue(one)) for one in seen.queues],
            counts_are_estimates=seen.estimated,
            working=None
            if who is None
            else WorkingAnswer(
                workers=who.workers,
                children=who.children,
                busy=who.busy,
                maintenance_workers=who.maintenance,
                beat_tick_age_seconds=round(who.beat_age, 3),
            ),
            open_letters=seen.open_letters,
            failing=[
                FailingAnswer(**{name: getattr(one, name) for name in FailingAnswer.model_fields})
                for one in seen.groups
            ],
            paused_tasks=list(seen.paused_tasks),
            attention=[AttentionAnswer(**one._asdict()) for one in seen.attention],
        )
        return answer.model_dump(mode="json")
