"""The table of samples: what the processes of a host have counted, by span of time.

A host writes a row each ten seconds, whatever its jobs do, so no job pays for one. A chart of an hour reads 360 rows of each host by their
primary key; what is older is folded to a row each minute, then each hour, and is deleted at last.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Integer, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from webapp.infra.postgres.base import TIME, Base

#: Spans of a sample, seconds: as it was taken, and folded once and twice.
# As `samples_span_known` has them.
TAKEN, MINUTE, HOUR = 10, 60, 3_600
SPANS = (TAKEN, MINUTE, HOUR)


class Sample(Base):
    """By how much the counters of a host grew within a span that begins at a moment.

    `figures` has the names of series and their growth; what did not grow is left out. Histograms are there with the growth of each of their
    buckets, so that those of several hosts and spans can be added. The key is in the order in which a chart reads.
    """

    __tablename__ = "samples"

    span: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(TIME, primary_key=True)
    #: A host has one row for each span and moment.
    host: Mapped[str] = mapped_column(Text, primary_key=True)
    #: Numbers by the name of their series; see `webapp.system.figures`.
    figures: Mapped[Any] = mapped_column(JSONB)

    __table_args__ = (CheckConstraint("span IN (10, 60, 3600)", name="samples_span_known"),)
