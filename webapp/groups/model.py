"""Groups as values: their kinds, and what their members have come to. No I/O."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What a group is."""

    #: Jobs that are counted together.
    BATCH = "batch"
    #: Steps that wait for each other.
    WORKFLOW = "workflow"


class Totals(NamedTuple):
    """What the members of a group have come to, all of one moment.

    Args:
        total: how many members there are.
        completed, failed, cancelled: of these, how many ended as what.
        skipped: steps that will not run.
    """

    total: int
    completed: int
    failed: int
    cancelled: int
    skipped: int

    @property
    def open(self) -> int:
        """Members that have not ended.

        Example:
            >>> Totals(total=5, completed=2, failed=1, cancelled=0, skipped=0).open
            2
        """
        return self.total - self.completed - self.failed - self.cancelled - self.skipped

    @property
    def are_all_completed(self) -> bool:
        """True if every member has completed, also where there is none."""
        return self.completed == self.total
