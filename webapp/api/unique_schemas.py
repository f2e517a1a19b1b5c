"""What a submission says in `unique`, so that its job is the only one of its key; and the rule of texts that PostgreSQL keeps."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from webapp.jobs.unique import MAX_HELD_FOR, MAX_UNIQUE_KEY, OnConflict, Unique, While


def check_text(path: str, value: str) -> None:
    """Judges a text at a path of the body.

    Raises:
        ValueError: PostgreSQL, or another language, could not give it back unchanged.
    """
    if "\x00" in value:
        raise ValueError(f"{path} must not contain \\u0000")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path} must not contain lone surrogates") from None


def _keepable_key(value: str) -> str:
    check_text("unique.key", value)
    return value


class UniqueJob(BaseModel):
    """While a job with this key counts, a submission with it makes none; null stands for what was not asked."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key: Annotated[str, Field(min_length=1, max_length=MAX_UNIQUE_KEY), AfterValidator(_keepable_key)]
    states: Literal["queued", "unfinished"] | None = Field(None, alias="while")
    seconds: float | None = Field(None, alias="for", gt=0, le=MAX_HELD_FOR)
    on_conflict: Literal["return", "refuse"] | None = None

    def asked(self) -> Unique:
        """What the domain is asked for."""
        return Unique(
            self.key,
            While(self.states) if self.states is not None else None,
            self.seconds,
            OnConflict(self.on_conflict or "return"),
        )
