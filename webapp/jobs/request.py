"""What a client sends to have a job made, and the rules that each of its fields keeps.

It is the body of `POST /jobs`. Programs and handlers that submit without HTTP are held to the same rules
(`webapp/jobs/submitter.py`).
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
)

from webapp.jobs import options
from webapp.jobs.nesting import MAX_DEPTH, is_deeper
from webapp.jobs.options import Options
from webapp.jobs.submission import Submission
from webapp.jobs.tables import MAX_KEY_LENGTH
from webapp.jobs.unique_request import UniqueJob, check_key, check_text
from webapp.outbound.urls import MAX_URL, written_url

#: Integers PostgreSQL's and most languages' 64 bits can hold.
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**63 - 1
#: Most jobs in one batch.
MAX_BATCH = 10_000


def keepable(payload: dict[str, Any]) -> dict[str, Any]:
    """Refuses what PostgreSQL or another language could not read back unchanged.

    Raises:
        ValueError: with the path of the offending value.
    """
    if is_deeper(payload, MAX_DEPTH):
        raise ValueError(f"must not be nested deeper than {MAX_DEPTH} levels")
    pending: list[tuple[str, Any]] = [("payload", payload)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                check_text(path, key)
                pending.append((f"{path[:200]}.{key[:50]}", inner))
        elif isinstance(value, list):
            pending.extend((f"{path[:200]}[{index}]", inner) for index, inner in enumerate(value))
        elif isinstance(value, str):
            check_text(path, value)
        elif isinstance(value, int | float):
            _check_number(path, value)
    return payload


def _check_number(path: str, value: float) -> None:
    if isinstance(value, int) and not _MIN_INTEGER <= value <= _MAX_INTEGER:
        raise ValueError(f"{path} must be an integer of at most 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path} must be a finite number")


def _printable_key(value: str) -> str:
    check_key("idempotency_key", value)
    return value


def moment(given: object) -> datetime:
    """A time with an offset, in UTC; no number, and no time of an unknown zone."""
    try:
        if isinstance(given, str) and (parsed := datetime.fromisoformat(given)).tzinfo is not None:
            return parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("must be a time with an offset in ISO 8601, such as 2030-01-01T00:00:00Z")


def _within_a_century(given: datetime) -> datetime:
    if given - datetime.now(UTC) > timedelta(seconds=options.MAX_DELAY):
        raise ValueError("must be at most 100 years ahead")
    return given


def printable(value: str) -> str:
    """Words that can be shown.

    Raises:
        ValueError: they cannot.
    """
    if not value.isprintable() or value != value.strip():
        raise ValueError("must be printable, and neither begin nor end with a space")
    return value


def _each_once(tags: list[str]) -> list[str]:
    if len(set(tags)) < len(tags):
        raise ValueError("must not name a tag twice")
    return tags


class BackoffCurve(BaseModel):
    """The wait before retry n is `base ** n` seconds, at most `max`, less a random share of up to `jitter`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    base: float | None = Field(None, ge=1, le=100)
    max: float | None = Field(None, ge=0, le=options.MAX_BACKOFF_WAIT)
    jitter: float | None = Field(None, ge=0, le=1)


BackoffStep = Annotated[float, Field(ge=0, le=options.MAX_BACKOFF_WAIT)]
BackoffSteps = Annotated[list[BackoffStep], Field(min_length=1, max_length=options.MAX_BACKOFF_STEPS)]
#: What pydantic puts into the path of a field that may have one of two shapes.
SHAPES = ("shape: object", "shape: list")
Backoff = Annotated[
    Annotated[BackoffCurve, Tag(SHAPES[0])] | Annotated[BackoffSteps, Tag(SHAPES[1])],
    Discriminator(lambda given: SHAPES[isinstance(given, (list, tuple))]),
]
Ahead = Annotated[AwareDatetime, BeforeValidator(moment), AfterValidator(_within_a_century)]
Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(printable)]
OneTag = Annotated[str, Field(min_length=1, max_length=options.MAX_TAG_LENGTH), AfterValidator(printable)]


def _keepable_key(value: str) -> str:
    check_key("key", value)
    return value


Tags = Annotated[list[OneTag], Field(max_length=options.MAX_TAGS), AfterValidator(_each_once)]
JobKey = Annotated[
    str, Field(min_length=1, max_length=options.MAX_JOB_KEY_LENGTH), AfterValidator(_keepable_key)
]


class SubmitRequest(BaseModel):
    """The body of `POST /jobs`, and an item of `POST /jobs/batch`; null stands for what was not asked."""

    model_config = ConfigDict(extra="forbid", strict=True)

    payload: Annotated[dict[str, Any], AfterValidator(keepable)]
    idempotency_key: (
        Annotated[str, Field(min_length=1, max_length=MAX_KEY_LENGTH), AfterValidator(_printable_key)] | None
    ) = None
    queue: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    key: JobKey | None = None
    priority: int | None = Field(None, ge=options.LOWEST_PRIORITY, le=options.HIGHEST_PRIORITY)
    run_at: Ahead | None = None
    delay: float | None = Field(None, ge=0, le=options.MAX_DELAY)
    max_retries: int | None = Field(None, ge=0, le=options.MAX_RETRIES)
    backoff: Backoff | None = None
    timeout: float | None = Field(None, gt=0, le=options.MAX_TIMEOUT)
    expires_at: Ahead | None = None
    tags: Tags | None = None
    callback_url: Annotated[str, Field(max_length=MAX_URL), AfterValidator(written_url)] | None = None
    unique: UniqueJob | None = None

    @field_validator("delay")
    @classmethod
    def _one_way_of_waiting(cls, delay: float | None, info: ValidationInfo) -> float | None:
        if delay is not None and info.data.get("run_at") is not None:
            raise ValueError("must not be given together with run_at")
        return delay

    def submission(self, key: str | None) -> Submission:
        """What the domain is asked for, under this idempotency key."""
        asked = self.model_fields_set - {"payload", "idempotency_key"}
        given = {name: value for name in asked if (value := getattr(self, name)) is not None}
        if not given:
            return Submission(self.payload, key)
        if isinstance(self.backoff, BackoffCurve):
            given["backoff"] = self.backoff.model_dump(exclude_none=True)
        if self.tags is not None:
            given["tags"] = tuple(self.tags)
        if self.unique is not None:
            given["unique"] = self.unique.asked()
        return Submission(self.payload, key, Options(**given))
