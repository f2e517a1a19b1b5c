"""Spans of time in which attempts were held or run, and how many there were at once: from the log of claims, and by the handlers' own clocks."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from ops.chaos.system import System


class Span(NamedTuple):
    """From when to when a process held an attempt, or ran it; moments are seconds since 1970.

    Args:
        holder: the process.
        key: of the job; empty for none.
    """

    began: float
    ended: float
    holder: str
    key: str


class Excess(NamedTuple):
    """A moment at which more processes had something than a limit allows."""

    at: float
    found: int
    most: int


# An attempt holds its slot from its claim until its row is no longer `processing`, also where its process is dead. Both moments are
# noted inside the transactions: the claim's after the one before has committed, so what is exact in the product is exact here.
_HELD = """
SELECT extract(epoch FROM t.at)::float8, coalesce(extract(epoch FROM settled.at)::float8, 'infinity'), t.worker_id, coalesce(j.key, '')
  FROM transitions t JOIN jobs j ON j.id = t.job_id LEFT JOIN LATERAL (
       SELECT min(one.at) AS at FROM transitions one
        WHERE one.job_id = t.job_id AND one.attempt = t.attempt AND one.old = 'processing') AS settled ON true
 WHERE j.idempotency_key LIKE %s AND t.new = 'processing' ORDER BY 1"""

# By the handlers' own clocks. Of one that was killed it is not known when it ended: it counts until its row was settled.
_RUN = """
SELECT extract(epoch FROM e.started_at)::float8,
       coalesce(extract(epoch FROM e.ended_at)::float8, extract(epoch FROM settled.at)::float8, 'infinity'), e.pid::text, coalesce(j.key, '')
  FROM effects e JOIN jobs j ON j.id = e.job_id LEFT JOIN LATERAL (
       SELECT min(one.at) AS at FROM transitions one
        WHERE one.job_id = e.job_id AND one.attempt = e.attempt AND one.old = 'processing') AS settled ON true
 WHERE j.idempotency_key LIKE %s ORDER BY 1"""

_HANDED_ON = """
SELECT avg(EXISTS (SELECT FROM transitions AS ended WHERE ended.tx = t.tx AND ended.old = 'processing')::int)::float8
  FROM transitions t JOIN jobs j ON j.id = t.job_id
 WHERE j.idempotency_key LIKE %s AND t.new = 'processing' AND t.at > to_timestamp(%s) AND t.at <= to_timestamp(%s)"""


def held(system: System, prefix: str) -> list[Span]:
    """When processes held attempts of a scenario's jobs, from the claim to the settle."""
    return [Span(*row) for row in system.rows(_HELD, f"{prefix}-%")]


def run(system: System, prefix: str) -> list[Span]:
    """When handlers ran, as they wrote it down themselves."""
    return [Span(*row) for row in system.rows(_RUN, f"{prefix}-%")]


def crowds(spans: Iterable[Span]) -> Iterator[tuple[float, int]]:
    """For each span, in the order in which they begin, when that was and how many processes there are from then on.

    Example:
        >>> list(crowds([Span(0, 2, "a", ""), Span(1, 3, "a", ""), Span(1.5, 2, "b", ""), Span(2, 3, "c", "")]))
        [(0, 1), (1, 1), (1.5, 2), (2, 2)]
    """
    going: Counter[str] = Counter()
    ends: list[tuple[float, str]] = []
    for span in sorted(spans):
        while ends and ends[0][0] <= span.began:
            _, holder = heapq.heappop(ends)
            going[holder] -= 1
            if not going[holder]:
                del going[holder]
        going[span.holder] += 1
        heapq.heappush(ends, (span.ended, span.holder))
        yield span.began, len(going)


def excesses(spans: Iterable[Span], most_at: Callable[[float], int | None]) -> list[Excess]:
    """The moments at which one began beyond the limit.

    Args:
        most_at: the limit at a moment; None: there was none.
    """
    return [
        Excess(at, found, most)
        for at, found in crowds(spans)
        if (most := most_at(at)) is not None and found > most
    ]


def most_in_a_window(moments: Sequence[float], seconds: float) -> int:
    """The most of these ordered moments that lie within any stretch of so many seconds.

    Example:
        >>> most_in_a_window([0.0, 0.4, 0.9, 1.2, 3.0], 1.0)
        3
    """
    most = first = 0
    for number, moment in enumerate(moments):
        while moments[first] <= moment - seconds:
            first += 1
        most = max(most, number - first + 1)
    return most


def handed_on(system: System, prefix: str, since: float, until: float) -> float:
    """The share of a scenario's claims that came in the transaction that ended another job; 0 of none.

    Args:
        since, until: claims between these count, seconds since 1970.
    """
    ((share,),) = system.rows(_HANDED_ON, f"{prefix}-%", since, until)
    return float(share or 0.0)


def busy(spans: Iterable[Span], since: float, until: float) -> float:
    """Seconds of work within a stretch of time, all processes together."""
    return sum(max(0.0, min(span.ended, until) - max(span.began, since)) for span in spans)
