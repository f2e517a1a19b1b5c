"""How old the view of a read replica is at most, by what it and the primary say; and why the primary answers instead. Pure."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from math import inf
from typing import NamedTuple

from webapp.infra.postgres.database_errors import Trouble
from webapp.infra.postgres.sql_files import read_sql

#: Asks the server at DATABASE_READ_URL, and that at DATABASE_URL.
ASK_REPLICA, ASK_PRIMARY = (read_sql(__file__, "staleness", name) for name in ("replica", "primary"))


class ReplicaSays(NamedTuple):
    """The row of the statement `replica`.

    Args:
        cluster: the identifier that a primary shares with its standbys.
        started_at: when this server was started.
        timeline: counts the promotions in its history.
        in_recovery: it follows another server.
        replayed_age: seconds since the last transaction that it has replayed was committed.
        heard_age: seconds since it knew that nothing was missing; None: it does not know, or may not say.
        replayed: how far it has replayed, bytes of WAL.
    """

    cluster: int
    started_at: datetime
    timeline: int
    in_recovery: bool
    replayed_age: float | None = None
    heard_age: float | None = None
    replayed: int | None = None


class PrimarySays(NamedTuple):
    """The row of the statement `primary`.

    Args:
        cluster: the identifier that it shares with its standbys.
        started_at: when it was started.
        timeline: counts the promotions in its history.
        written: where its WAL ends, bytes; None: it is in recovery itself.
    """

    cluster: int
    started_at: datetime
    timeline: int
    written: int | None = None


class Reason(StrEnum):
    """Why the primary answers a list, and not the replica."""

    #: The replica does not answer, does not let us in, or did so a moment ago.
    AWAY = "away"
    #: It is further behind than it may be.
    BEHIND = "behind"
    #: How far it is behind is not known, or it is no replica of this primary.
    UNKNOWN = "unknown"
    #: What it replays was in the way of the statement, and ended it.
    CONFLICT = "conflict"
    #: All connections of this process to it were in use.
    BUSY = "busy"
    #: It did not do in time, or at all, what was asked of it.
    FAILED = "failed"
    #: The page goes on from another one, and an older view might have left out what stands between them.
    PAGE = "page"


_REASONS = {
    Trouble.AWAY: Reason.AWAY,
    Trouble.REFUSED: Reason.AWAY,
    Trouble.FULL: Reason.AWAY,
    Trouble.BUSY: Reason.CONFLICT,
    Trouble.NO_CONNECTION: Reason.BUSY,
}
#: What is true of the replica for a while, and not of one list alone.
LASTING = frozenset({Reason.AWAY, Reason.BEHIND, Reason.UNKNOWN})


def reason_of(trouble: Trouble) -> Reason:
    """Why the primary answers after trouble with the replica.

    Example:
        >>> reason_of(Trouble.BUSY), reason_of(Trouble.SLOW)
        (<Reason.CONFLICT: 'conflict'>, <Reason.FAILED: 'failed'>)
    """
    return _REASONS.get(trouble, Reason.FAILED)


def staleness(replica: ReplicaSays, primary: PrimarySays | None, said_age: float = 0.0) -> float | None:
    """How old the replica's view is at most, seconds; None when that is not known.

    Each age is a bound, so the smallest holds. That of the last transaction is small while the primary writes. The others hold
    while it does not, and only where all that the primary is known to have written has been replayed: what the replica has
    heard may come from another standby, which may be cut off itself.

    Args:
        replica: what it says now.
        primary: what the primary said; None: nothing yet, so whether this is its replica is not known.
        said_age: how long ago, seconds.

    Example:
        >>> start = datetime(2026, 1, 1)
        >>> staleness(ReplicaSays(7, start, 1, True, replayed_age=900.0, replayed=50), PrimarySays(7, start, 1, written=50), 0.1)
        0.1
    """
    if primary is None or not _follows(replica, primary):
        return None
    if not replica.in_recovery:
        # It is the primary itself under another name, or has been promoted and goes its own way.
        return 0.0 if replica.started_at == primary.started_at else None
    ages = [replica.replayed_age]
    if replica.replayed is not None and primary.written is not None and replica.replayed >= primary.written:
        ages += [said_age, replica.heard_age]
    known = [age for age in ages if age is not None]
    return max(0.0, min(known)) if known else None


def _follows(replica: ReplicaSays, primary: PrimarySays) -> bool:
    """True if the replica has the primary's history, as far as is known of it; what has another may say what it likes."""
    return replica.cluster == primary.cluster and replica.timeline >= primary.timeline


def judged(age: float | None, bound: float, at_most: float = inf) -> Reason | None:
    """Why a view of this age is not taken; None when it is.

    Args:
        age: seconds; None: not known.
        bound: seconds that any view may be old, ...
        at_most: ... and that of this list.

    Example:
        >>> judged(2.0, 5.0), judged(2.0, 5.0, at_most=1.0), judged(6.0, 5.0, at_most=1.0)
        (None, <Reason.PAGE: 'page'>, <Reason.BEHIND: 'behind'>)
    """
    if age is None:
        return Reason.UNKNOWN
    if age > bound:
        return Reason.BEHIND
    return Reason.PAGE if age > at_most else None
