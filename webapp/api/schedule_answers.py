"""How schedules are answered: as they stand, their versions, what they fired, and why they do not."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from webapp.api.schemas import REDACTED, Moment
from webapp.infra.jsontext import iso
from webapp.jobs.nesting import readable
from webapp.schedules import timetable
from webapp.schedules.explain import Explanation
from webapp.schedules.model import FiringRow, Schedule, Timing, Version
from webapp.schedules.runs import Filled
from webapp.schedules.service import Shown
from webapp.schedules.zones import rules_version, zone_of

#: What of a spec shows what its jobs carry.
CONTENT = ("payload", "callback_url")


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FiringAnswer(_Answer):
    """What became of a time: `job_id` is of the job that was stored, `until` the last of several times that this stands for."""

    at: Moment
    round: int
    kind: str
    outcome: str
    reason: str | None
    until: Moment | None
    job_id: UUID | None
    version: int
    fired_at: Moment

    @classmethod
    def of(cls, row: FiringRow) -> dict[str, Any]:
        """The JSON-ready form of a firing."""
        answer = FiringAnswer(**{name: getattr(row, name) for name in cls.model_fields})
        return answer.model_dump(mode="json")


class ScheduleItem(_Answer):
    """A schedule in a list; `version` is in the ETag as well, and `words` is what cron or every says."""

    name: str
    state: str
    queue: str
    version: int
    words: str
    next_at: Moment | None
    due_at: Moment | None
    last_at: Moment | None
    paused_at: Moment | None
    paused_by: str | None
    pause_note: str | None
    fired: int
    skipped: int
    buffered: int
    open_job_id: UUID | None
    created_at: Moment
    updated_at: Moment

    @classmethod
    def of(cls, schedule: Schedule) -> dict[str, Any]:
        """The JSON-ready form of a schedule."""
        own = {name: getattr(schedule, name) for name in ScheduleItem.model_fields if name != "words"}
        words = timetable.words(schedule.spec.timing)
        return ScheduleItem(**own, words=words).model_dump(mode="json")


class ScheduleAnswer(ScheduleItem):
    """A schedule by itself: with what it is, its next five times and its last five firings."""

    spec: dict[str, Any]
    next_times: list[Moment]
    last_firings: list[FiringAnswer]

    @classmethod
    def of_shown(cls, shown: Shown, *, with_content: bool = True) -> dict[str, Any]:
        """The JSON-ready form of a schedule and what is around it.

        Args:
            with_content: also what its jobs carry.
        """
        return ScheduleItem.of(shown.schedule) | {
            "spec": shown_spec(shown.schedule.spec.document(), with_content=with_content),
            "next_times": [iso(one) for one in shown.upcoming],
            "last_firings": [FiringAnswer.of(one) for one in shown.last],
        }


def shown_spec(document: dict[str, Any], *, with_content: bool) -> dict[str, Any]:
    """A spec as it is shown; what its jobs carry is null to those who may not see it."""
    job = dict(document["job"])
    if with_content:
        job["payload"] = readable(job["payload"])
    else:
        job |= {name: None for name in CONTENT if name in job} | {REDACTED: True}
    return document | {"job": job}


class SchedulePage(_Answer):
    """A page of schedules."""

    items: list[ScheduleItem]
    next_cursor: str | None


class FiringPage(_Answer):
    """A page of firings."""

    items: list[FiringAnswer]
    next_cursor: str | None


class VersionAnswer(_Answer):
    """A version of a schedule: who made it, when and why."""

    version: int
    changed_at: Moment
    changed_by: str | None
    why: str | None
    spec: dict[str, Any]

    @classmethod
    def of(cls, one: Version, *, with_content: bool = True) -> dict[str, Any]:
        """The JSON-ready form of a version."""
        own = VersionAnswer(**(one._asdict() | {"spec": {}})).model_dump(mode="json")
        return own | {"spec": shown_spec(one.spec, with_content=with_content)}


class Versions(_Answer):
    """The versions of a schedule that are kept."""

    items: list[VersionAnswer]


class TimeAnswer(_Answer):
    """A time: in UTC, and as the clock on the wall has it."""

    at: Moment
    local: str


class Times(_Answer):
    """Times to come, and what they follow from in words; `rules` is the version of the rules of time zones."""

    words: str
    rules: str
    times: list[TimeAnswer]

    @classmethod
    def of(cls, timing: Timing, times: list[datetime]) -> dict[str, Any]:
        """The JSON-ready form of times."""
        zone = zone_of(timing.zone)
        items = [TimeAnswer(at=one, local=one.astimezone(zone).isoformat()) for one in times]
        return Times(words=timetable.words(timing), rules=rules_version(), times=items).model_dump(
            mode="json"
        )


class ScheduleExplanation(_Answer):
    """Why a schedule does not fire now: a state for programs, a sentence, and the facts behind it."""

    state: str
    sentence: str
    facts: dict[str, Any]

    @classmethod
    def of(cls, found: Explanation) -> dict[str, Any]:
        """The JSON-ready form of an explanation."""
        return {"state": found.state, "sentence": found.sentence, "facts": found.facts}


class FilledAnswer(_Answer):
    """What was filled in; with `dry_run`, `fired` is what would be. `more`: send it again from `next_from` on."""

    matched: int
    fired: int
    existing: int
    refused: int
    more: bool
    next_from: Moment | None

    @classmethod
    def of(cls, filled: Filled) -> dict[str, Any]:
        """The JSON-ready form of it."""
        own = {name: getattr(filled, name) for name in cls.model_fields}
        return FilledAnswer(**own).model_dump(mode="json")


def cursor_of(row: FiringRow) -> str:
    """The cursor of the page behind a firing."""
    return f"{iso(row.at)}~{row.round}"


def read_cursor(given: str | None) -> tuple[datetime, int] | None:
    """What a cursor says.

    Raises:
        ValueError: it is none.
    """
    if given is None:
        return None
    at, _, number = given.partition("~")
    moment = datetime.fromisoformat(at)
    if moment.tzinfo is None or not -1 <= int(number) < 2**15:
        raise ValueError("no cursor")
    return moment, int(number)
