"""The W3C `traceparent` header: a place in a trace, read, written, worked out for an attempt, and kept where one works.

A job's row keeps the header of the request that submitted it. The span of each attempt has an id that follows from the
job and the attempt, so that the next attempt, a log line or another process knows it without having been told: also
where the process that ran the attempt was killed and said nothing more.
"""

from __future__ import annotations

import re
from contextvars import ContextVar, Token
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

#: A header as every version begins; version 00 has nothing more, a later one may go on after a dash.
_HEADER = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_VERSION = "00"
#: No version is called this.
_INVALID_VERSION = "ff"
#: Bytes of a trace's id; a span's has half as many.
_TRACE_BYTES = 16
#: Longest header that is looked at, characters; nine times what version 00 has.
_LONGEST = 512
_SAMPLED = 0x01

_here: ContextVar[str | None] = ContextVar("djps_traceparent", default=None)


@dataclass(frozen=True, slots=True)
class Traceparent:
    """A place in a trace: the span under which the next ones belong.

    Args:
        trace_id: 1 to 2**128 - 1.
        span_id: 1 to 2**64 - 1.
        sampled: the one that began the trace keeps it.

    Example:
        >>> str(Traceparent(1, 2, sampled=True))
        '00-00000000000000000000000000000001-0000000000000002-01'
    """

    trace_id: int
    span_id: int
    sampled: bool

    def __str__(self) -> str:
        """The header, in version 00."""
        return f"{_VERSION}-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"

    @property
    def fields(self) -> dict[str, str]:
        """The ids as log lines and other tools write them."""
        return {"trace_id": f"{self.trace_id:032x}", "span_id": f"{self.span_id:016x}"}


def read(header: str | None) -> Traceparent | None:
    """Reads a header; None when there is none, or it breaks the rules of W3C Trace Context, level 1.

    Example:
        >>> read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").sampled
        True
    """
    if header is None or len(header) > _LONGEST:
        return None
    found = _HEADER.fullmatch(header)
    if found is None or found["version"] == _INVALID_VERSION:
        return None
    if found["version"] == _VERSION and found["more"]:
        return None
    trace_id, span_id = int(found["trace"], 16), int(found["span"], 16)
    if not (trace_id and span_id):
        return None
    return Traceparent(trace_id, span_id, sampled=bool(int(found["flags"], 16) & _SAMPLED))


def of_attempt(job_id: UUID, attempt: int, header: str | None) -> Traceparent:
    """Where an attempt stands: its span in the trace of its job.

    Args:
        attempt: from 1.
        header: what the job's row keeps; a job without one has a trace that follows from its id.
    """
    parent = read(header)
    # The job's id itself is no good trace id: samplers look at its last bytes, and in a UUID not all of them are random.
    trace_id = parent.trace_id if parent else int.from_bytes(sha256(job_id.bytes).digest()[:_TRACE_BYTES])
    span = sha256(job_id.bytes + attempt.to_bytes(4)).digest()[: _TRACE_BYTES // 2]
    return Traceparent(trace_id, int.from_bytes(span), sampled=parent.sampled if parent else True)


def here() -> str | None:
    """The header for what is submitted or called from here; None outside of any trace."""
    return _here.get()


def enter(place: Traceparent) -> Token[str | None]:
    """What is submitted from here on belongs under this place; `leave` takes the token."""
    return _here.set(str(place))


def leave(token: Token[str | None]) -> None:
    """Undoes `enter`."""
    _here.reset(token)
