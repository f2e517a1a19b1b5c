"""The wire format of single keys of a queue."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from webapp.api.dlq_schemas import Words
from webapp.api.flow_schemas import RateLimit
from webapp.api.schemas import Moment
from webapp.flow.limits import LEAST_WEIGHT, MOST_CONCURRENCY, MOST_WEIGHT
from webapp.flow.model import KeyFigures, KeyRank, KeyState, KeyTarget, Pause, RankedKeys
from webapp.jobs.options import MAX_JOB_KEY_LENGTH
from webapp.jobs.request import JobKey, printable


class _Given(BaseModel):
    key: JobKey


def key_of(text: str) -> str:
    """A key of a path, which has the rules of a submission's.

    Raises:
        ValidationError: it breaks one.
    """
    return _Given(key=text).key


class KeyRequest(BaseModel):
    """The body of `PUT /queues/{queue}/keys/{key}`: all of it; what is left out is as for every key."""

    model_config = ConfigDict(extra="forbid", strict=True)

    concurrency: int | None = Field(
        None, ge=1, le=MOST_CONCURRENCY, description="Its jobs that run at once; null: as for every key."
    )
    rate: RateLimit | None = Field(None, description="How often its jobs may start; null: as for every key.")
    weight: float = Field(
        1.0, ge=LEAST_WEIGHT, le=MOST_WEIGHT, description="Its share of the turns, where another key has 1."
    )
    paused: bool = Field(default=False, description="None of its jobs starts.")
    by: Words | None = None
    why: Words | None = None

    def state(self, target: KeyTarget, now: datetime) -> KeyState:
        """As a value.

        Args:
            now: since when it is paused, if it is.
        """
        pause = Pause(now, self.by, self.why) if self.paused else None
        rate = self.rate.given() if self.rate else None
        return KeyState(*target, pause, self.concurrency, self.weight, rate=rate)


class KeysQuery(BaseModel):
    """The query of `GET /queues/{queue}/keys`."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=1_000)
    cursor: (
        Annotated[str, Field(min_length=1, max_length=MAX_JOB_KEY_LENGTH), AfterValidator(printable)] | None
    ) = Field(None, description="The last key of the page before.")
    order: KeyRank | None = Field(
        None,
        description="All keys of which something waits or runs, those of which most does first; without it, keys with limits of their own.",
    )

    @field_validator("order")
    @classmethod
    def _ranked_in_one_page(cls, order: KeyRank | None, info: ValidationInfo) -> KeyRank | None:
        if order is not None and info.data.get("cursor") is not None:
            raise ValueError(
                "must not be given together with cursor: what waits and runs changes from page to page"
            )
        return order


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class KeyAnswer(_Answer):
    """The limits of a key of its own; version 0: it is like every key of its queue."""

    queue: str
    key: str
    paused: bool
    paused_at: Moment | None
    paused_by: str | None
    paused_why: str | None
    concurrency: int | None
    rate: dict[str, Any] | None
    weight: float
    version: int

    @classmethod
    def of(cls, state: KeyState) -> dict[str, Any]:
        """The JSON-ready form of a state."""
        pause = state.pause
        answer = KeyAnswer(
            queue=state.queue,
            key=state.key,
            paused=pause is not None,
            paused_at=pause.at if pause else None,
            paused_by=pause.by if pause else None,
            paused_why=pause.why if pause else None,
            concurrency=state.concurrency,
            rate=state.rate.document() if state.rate else None,
            weight=state.weight,
            version=state.version,
        )
        return answer.model_dump(mode="json")


class KeyFiguresAnswer(KeyAnswer):
    """The same, with how many of its jobs wait, and how many processes run some.

    Of one key those that wait in lanes, and each counted to 10,000.
    """

    waiting: int
    running: int

    @classmethod
    def of_figures(cls, figures: KeyFigures) -> dict[str, Any]:
        """The JSON-ready form of a key's figures."""
        return KeyAnswer.of(figures.state) | {"waiting": figures.waiting, "running": figures.running}


class KeyPage(_Answer):
    """A page of keys.

    With `order` each has what waits and runs of it, there is no next page, and `counts_are_capped` says whether the queue has more
    jobs than were counted.
    """

    items: list[KeyFiguresAnswer | KeyAnswer]
    next_cursor: str | None
    counts_are_capped: bool | None = None

    @classmethod
    def of_ranked(cls, ranked: RankedKeys) -> dict[str, Any]:
        """The JSON-ready form of keys that were ranked."""
        return {
            "items": [KeyFiguresAnswer.of_figures(one) for one in ranked.keys],
            "next_cursor": None,
            "counts_are_capped": ranked.is_capped,
        }
