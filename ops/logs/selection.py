"""Which lines are wanted. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from ops.logs.lines import Line


@dataclass(frozen=True, slots=True)
class Selection:
    """What a line must be to be shown.

    Attributes:
        earliest: written at this moment or later.
        pattern: found anywhere in it.
        level: at least as grave, as a number of `logging`.
        job: has this id, or its beginning, in it.
    """

    earliest: datetime | None = None
    pattern: re.Pattern[str] | None = None
    level: int = 0
    job: str | None = None

    @property
    def is_everything(self) -> bool:
        """True if no line is left out."""
        return self == Selection()

    def takes(self, line: Line) -> bool:
        """True if a line is wanted."""
        return (
            line.level >= self.level
            and (self.job is None or self.job in line.text)
            and (self.earliest is None or line.at >= self.earliest)
            and (self.pattern is None or self.pattern.search(line.text) is not None)
        )
