"""The wire format of schedules: what one is, and how it is steered."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from webapp.api.dlq_schemas import RATES, Words
from webapp.api.dlq_schemas import Time as AnyTime
from webapp.jobs import options
from webapp.jobs.request import Backoff, JobKey, Tags, keepable, printable
from webapp.jobs.unique_request import UniqueJob
from webapp.outbound.urls import MAX_URL, written_url
from webapp.schedules import cron, zones
from webapp.schedules.cron import LONGEST as LONGEST_CRON
from webapp.schedules.model import (
    DAY,
    LONGEST_NAME,
    LONGEST_TIME_KEY,
    MOST_AT_ONCE,
    MOST_FAILURES,
    MOST_FIRINGS,
    STOPPING,
    YEAR,
    Spec,
    Timing,
)
from webapp.schedules.runs import Backfill

#: The years that a time may be of.
FIRST_YEAR, LAST_YEAR = 1970, 2199
#: Most times of a preview.
MOST_TIMES = 100


def _in_our_times(given: datetime) -> datetime:
    if not FIRST_YEAR <= given.year <= LAST_YEAR:
        raise ValueError(f"must be of a year from {FIRST_YEAR} to {LAST_YEAR}")
    return given


#: A time that calendars are made for.
Time = Annotated[AnyTime, AfterValidator(_in_our_times)]


def _expression(given: str) -> str:
    cron.check(given)
    return cron.plain(given)


def _zone(given: str) -> str:
    zones.zone_of(given)
    return given


class TimingFields(BaseModel):
    """When a schedule is due: by `cron` in `zone`, or `every` so many seconds."""

    # What is left out may break a rule as well.
    model_config = ConfigDict(extra="forbid", strict=True, validate_default=True)

    cron: Annotated[str, Field(min_length=1, max_length=LONGEST_CRON), AfterValidator(_expression)] | None = (
        Field(
            None,
            description="Five fields (minute, hour, day of the month, month, day of the week), or @daily and its like.",
        )
    )
    zone: Annotated[str, Field(min_length=1, max_length=zones.LONGEST_NAME), AfterValidator(_zone)] = Field(
        zones.UTC_NAME, description="An IANA name such as Europe/Berlin; of cron only."
    )
    every: int | None = Field(
        None, ge=1, le=YEAR, description="Seconds, counted from start_at, else from 1970."
    )
    start_at: Time | None = Field(None, description="No time is before.")
    end_at: Time | None = Field(None, description="No time is after.")

    @field_validator("every")
    @classmethod
    def _one_way(cls, every: int | None, info: ValidationInfo) -> int | None:
        given = info.data.get("cron")
        if every is not None and given is not None:
            raise ValueError("must not be given together with cron")
        if every is None and given is None and "cron" in info.data:
            raise ValueError("must be given where cron is not")
        return every

    @field_validator("end_at")
    @classmethod
    def _after_the_start(cls, end_at: Any, info: ValidationInfo) -> Any:
        start_at = info.data.get("start_at")
        if end_at is not None and start_at is not None and end_at < start_at:
            raise ValueError("must not be before start_at")
        return end_at

    def timing(self) -> Timing:
        """As a value."""
        return Timing(self.cron, self.zone, self.every, self.start_at, self.end_at)


class ScheduledJob(BaseModel):
    """The job of each firing: what `POST /jobs` takes, but for an idempotency key and fixed times."""

    model_config = ConfigDict(extra="forbid", strict=True)

    payload: Annotated[dict[str, Any], AfterValidator(keepable)]
    queue: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    key: JobKey | None = None
    priority: int | None = Field(None, ge=options.LOWEST_PRIORITY, le=options.HIGHEST_PRIORITY)
    delay: float | None = Field(None, ge=0, le=options.MAX_DELAY)
    max_retries: int | None = Field(None, ge=0, le=options.MAX_RETRIES)
    backoff: Backoff | None = None
    timeout: float | None = Field(None, gt=0, le=options.MAX_TIMEOUT)
    tags: Tags | None = None
    callback_url: Annotated[str, Field(max_length=MAX_URL), AfterValidator(written_url)] | None = None
    unique: UniqueJob | None = None

    def document(self) -> dict[str, Any]:
        """As it is kept: what was asked, and no more."""
        asked = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"payload"})
        # It is JSON already, and a null in it is a value.
        return {"payload": self.payload, **asked}


class ScheduleRequest(TimingFields):
    """The body of `PUT /schedules/{schedule}`: all of it; what is left out is as by default."""

    job: ScheduledJob | None = Field(None, description="What fires.")
    workflow: Any = Field(None, description="Not yet: must be left out.")
    catch_up: Literal["skip", "last", "all"] = Field(
        "last", description="What becomes of times that were missed: none fires, the newest, or each."
    )
    catch_up_limit: int = Field(100, ge=1, le=MOST_AT_ONCE, description="Most times that all catches up.")
    catch_up_window: int = Field(
        DAY, ge=1, le=YEAR, description="Seconds; what is older is not caught up by all."
    )
    grace: int = Field(60, ge=1, le=DAY, description="Seconds by which a time may be late and is not missed.")
    overlap: Literal["skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other", "allow_all"] = (
        Field("skip", description="What becomes of a time while the job of the one before has not ended.")
    )
    buffer_limit: int = Field(
        100, ge=1, le=MOST_AT_ONCE, description="Most times that wait under buffer_all."
    )
    jitter: int = Field(
        0, ge=0, le=DAY, description="Seconds by a share of which, fixed for the schedule, it is put off."
    )
    max_firings: int | None = Field(None, ge=1, le=MOST_FIRINGS, description="So often it fires.")
    time_key: Annotated[str, Field(min_length=1, max_length=LONGEST_TIME_KEY)] | None = Field(
        None, description="The payload's key that gets the nominal time."
    )
    pause_after_failures: int | None = Field(
        None, ge=1, le=MOST_FAILURES, description="So many failed jobs in a row pause it."
    )
    by: Words | None = None
    why: Words | None = None

    @field_validator("job")
    @classmethod
    def _something_fires(cls, job: ScheduledJob | None) -> ScheduledJob | None:
        if job is None:
            raise ValueError("is required")
        return job

    @field_validator("workflow")
    @classmethod
    def _not_yet(cls, workflow: object) -> None:
        if workflow is not None:
            raise ValueError("must be left out: a schedule fires a job, workflows are not there yet")

    @field_validator("overlap")
    @classmethod
    def _one_at_a_time(cls, overlap: str, info: ValidationInfo) -> str:
        if overlap in STOPPING and info.data.get("catch_up") == "all":
            raise ValueError(
                f"must not be {overlap} where catch_up is all: each time would stop the one before"
            )
        return overlap

    @field_validator("time_key")
    @classmethod
    def _free_key(cls, time_key: str | None, info: ValidationInfo) -> str | None:
        job = info.data.get("job")
        if time_key is not None and job is not None and time_key in job.payload:
            raise ValueError("must not be a key that job.payload has already")
        return time_key

    def spec(self) -> Spec:
        """As a value."""
        given = self.model_dump(mode="json", include=set(Spec.__dataclass_fields__) - {"job"})
        timing = self.model_dump(mode="json", include=set(Timing.__dataclass_fields__))
        job = self.job.document() if self.job is not None else {}
        return Spec.of(timing | given | {"job": job})


class PreviewRequest(TimingFields):
    """The body of `POST /schedules/preview`."""

    after: Time | None = Field(None, description="From when on; now, where it is left out.")
    count: int = Field(10, ge=1, le=MOST_TIMES)


class SteerRequest(BaseModel):
    """The body of a pause or a resume of a schedule; it may be left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    by: Words | None = None
    note: Words | None = None


class RunRequest(BaseModel):
    """The body of `POST /schedules/{schedule}/run`; it may be left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    overlap: (
        Literal["skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other", "allow_all"] | None
    ) = Field(None, description="In the place of the schedule's own, for this run.")
    by: Words | None = None
    why: Words | None = None


class BackfillRequest(BaseModel):
    """The body of `POST /schedules/{schedule}/backfill`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    first: Time = Field(alias="from", description="The first time, included.")
    last: Time = Field(alias="to", description="The last time, included; it must have passed.")
    again: bool = Field(default=False, description="Also times that have fired.")
    rate: float | None = Field(
        None, ge=RATES[0], le=RATES[1], description="So many jobs become due in a second."
    )
    dry_run: bool = False
    by: Words | None = None
    why: Words | None = None

    @field_validator("last")
    @classmethod
    def _after_the_first(cls, last: Any, info: ValidationInfo) -> Any:
        first = info.data.get("first")
        if first is not None and last < first:
            raise ValueError("must not be before from")
        return last

    def wanted(self, by: str | None) -> Backfill:
        """What the domain is asked for."""
        return Backfill(self.first, self.last, self.again, self.rate, self.dry_run, self.by or by, self.why)


def part_of_path(name: str) -> str:
    """A name that one part of a path can be.

    Raises:
        ValueError: it cannot.
    """
    if len(name) > LONGEST_NAME:
        raise ValueError(f"must have at most {LONGEST_NAME} characters")
    if "/" in name:
        raise ValueError("must not contain /")
    return name


Name = Annotated[
    str,
    Field(min_length=1, max_length=LONGEST_NAME),
    AfterValidator(printable),
    AfterValidator(part_of_path),
]


class SchedulesQuery(BaseModel):
    """The query of `GET /schedules`."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["active", "paused", "ended"] | None = None
    limit: int = Field(100, ge=1, le=1_000)
    cursor: Name | None = Field(None, description="The name of the last one of the page before.")


class FiringsQuery(BaseModel):
    """The query of `GET /schedules/{schedule}/firings`."""

    model_config = ConfigDict(extra="forbid")

    outcome: Literal["fired", "buffered", "skipped", "refused", "missed", "paused"] | None = None
    limit: int = Field(100, ge=1, le=1_000)
    before: Annotated[str, Field(max_length=60)] | None = Field(
        None, description="The next_cursor of the page before."
    )


class NextQuery(BaseModel):
    """The query of `GET /schedules/{schedule}/next`."""

    model_config = ConfigDict(extra="forbid")

    count: int = Field(10, ge=1, le=MOST_TIMES)
