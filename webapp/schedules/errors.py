"""What schedules refuse, and why. Each says it in one sentence."""

from __future__ import annotations

from datetime import datetime

from webapp.infra.jsontext import iso


class ScheduleError(Exception):
    """The base of every error about schedules."""


class UnknownSchedule(ScheduleError):
    """There is no schedule of this name, or it is not within reach."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no schedule {name!r}; to make it, PUT /schedules/{name}")
        self.name = name


class NameTaken(ScheduleError):
    """A schedule that the caller does not reach has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the name {name!r} belongs to a schedule of a queue that is not one of this key's")
        self.name = name


class ScheduleChanged(ScheduleError):
    """It is not as the request says that it must be, so nothing was changed."""


class StaleSchedule(ScheduleChanged):
    """It was changed since the version that the request is about."""

    def __init__(self, name: str, given: str, version: int) -> None:
        super().__init__(
            f'schedule {name!r} was changed meanwhile: If-Match must be its ETag, "{version}"; given: {given[:100]}'
        )


class ScheduleMissing(ScheduleChanged):
    """The request is about a version of a schedule that there is not."""

    def __init__(self, name: str, given: str) -> None:
        super().__init__(
            f"there is no schedule {name!r}: If-Match must be left out to make it; given: {given[:100]}"
        )


class ScheduleExists(ScheduleChanged):
    """It was to be made, and is there."""

    def __init__(self, name: str, version: int) -> None:
        super().__init__(
            f'there is a schedule {name!r} of version "{version}" already: If-None-Match must be left out to change it'
        )


class FieldRefused(ScheduleError):
    """A field breaks a rule that cannot be judged by itself.

    Args:
        field: of the request.
        rule: that it breaks.
        given: what it says.
    """

    def __init__(self, field: str, rule: str, given: object) -> None:
        super().__init__(f"{field} {rule}; given: {given!r}")
        self.field = field
        self.rule = rule
        self.given = given


class FiringsPruned(FieldRefused):
    """What was fired in the time that is asked for is not all on record."""

    def __init__(self, first: datetime, until: datetime) -> None:
        super().__init__(
            "from",
            f"must be after {iso(until)}, or again be true: what was fired until then is not all on record any more",
            iso(first),
        )
