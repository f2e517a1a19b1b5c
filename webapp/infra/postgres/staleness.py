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


def own_word(replica: ReplicaSays) -> float | None:
    """How old the replica's view is at most by its own word, seconds; None when it cannot say.

    Both ages are bounds, so the smaller one holds: the first is small while the primary writes, the second while it does not.
    """
    if not replica.in_recovery:
        return None
    ages = [age for age in (replica.replayed_age, replica.heard_age) if age is not None]
    return max(0.0, min(ages)) if ages else None


def follows(replica: ReplicaSays, primary: PrimarySays | None) -> bool:
    """True if the replica has the primary's history, as far as is known of it; what has another may say what it likes."""
    return primary is not None and replica.cluster == primary.cluster and replica.timeline >= primary.timeline


def staleness(replica: ReplicaSays, primary: PrimarySays) -> float | None:
    """How old the replica's view is at most, seconds, by the word of both; None when that is not known.

    Args:
        replica: what it said, ...
        primary: ... a moment after this.

    Example:
        >>> start = datetime(2026, 1, 1)
        >>> staleness(ReplicaSays(7, start, 1, True, replayed_age=900.0, replayed=50), PrimarySays(7, start, 1, written=50))
        0.0
    """
    if not follows(replica, primary):
        return None
    if not replica.in_recovery:
        # It is the primary itself under another name, or has been promoted and goes its own way.
        return 0.0 if replica.started_at == primary.started_at else None
    if None not in (replica.replayed, primary.written) and replica.replayed >= primary.written:  # type: ignore[operator] # neither is None
        return 0.0
    return own_word(replica)


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
