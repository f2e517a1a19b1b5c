"""What a submission says in `unique`, so that its job is the only one of its key; and the rule of texts that PostgreSQL keeps."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from webapp.flow.tenant import MARK
from webapp.jobs.unique import MAX_HELD_FOR, MAX_UNIQUE_KEY, MAX_WAIT, OnConflict, Unique, While


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


def check_key(path: str, value: str) -> None:
    """Judges a key at a path of the body.

    Raises:
        ValueError: it is no text that is kept, or begins as what keeps the keys of tenants apart.
    """
    check_text(path, value)
    if value.startswith(MARK):
        raise ValueError(f"{path} must not begin with \\u001f")


def _keepable_key(value: str) -> str:
    check_key("unique.key", value)
    return value


class UniqueJob(BaseModel):
    """While a job with this key counts, a submission with it makes none; null stands for what was not asked."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key: Annotated[str, Field(min_length=1, max_length=MAX_UNIQUE_KEY), AfterValidator(_keepable_key)]
    states: Literal["queued", "unfinished"] | None = Field(None, alias="while")
    seconds: float | None = Field(None, alias="for", gt=0, le=MAX_HELD_FOR)
    on_conflict: Literal["return", "refuse", "replace"] | None = None
    max_wait: float | None = Field(
        None,
        gt=0,
        le=MAX_WAIT,
        description="Only with `replace`: seconds after its first submission at which the job is due at the latest.",
    )

    @field_validator("on_conflict")
    @classmethod
    def _only_before_the_start(cls, on_conflict: str | None, info: ValidationInfo) -> str | None:
        if on_conflict == OnConflict.REPLACE:
            if info.data.get("states") == While.UNFINISHED:
                raise ValueError(
                    "must not be replace with while unfinished: a job that has begun is not replaced"
                )
            if info.data.get("seconds") is not None:
                raise ValueError("must not be replace together with for")
        return on_conflict

    @field_validator("max_wait")
    @classmethod
    def _of_what_is_put_off(cls, max_wait: float | None, info: ValidationInfo) -> float | None:
        if max_wait is not None and info.data.get("on_conflict", OnConflict.REPLACE) != OnConflict.REPLACE:
            raise ValueError("must be given with on_conflict replace only")
        return max_wait

    def asked(self) -> Unique:
        """What the domain is asked for."""
        return Unique(
            self.key,
            While(self.states) if self.states is not None else None,
            self.seconds,
            OnConflict(self.on_conflict or "return"),
            self.max_wait,
        )
