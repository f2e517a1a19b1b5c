"""Jobs that a caller does not see and that have a key which they ask for: that it is taken is told, and not by which job."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from webapp.flow.reach import Reach
from webapp.flow.reached import Reached, reach_values
from webapp.infra.postgres.literals import array_of
from webapp.jobs.errors import (
    JobError,
    KeyElsewhere,
    KeyOfPruned,
    KeyReused,
    KeyTaken,
    OutOfReach,
    UniqueHeld,
    UniqueOfPruned,
)
from webapp.jobs.submission import Placed, Submission

_REACHED = Reached(__file__, "reached")


def check_reached(queue: str | None, reach: Reach) -> None:
    """Sees to it that a job may be submitted to a queue; None: none is named. Another tenant's own is unknown, as `Rules` say.

    Raises:
        OutOfReach: it is not one of the queues that are reached; whether there is such a queue is not said.
    """
    if queue is not None and reach.queues is not None and queue not in reach.queues:
        raise OutOfReach(queue, reach.queues)


class Unseen(NamedTuple):
    """Of some jobs, those that a caller is not told of.

    Args:
        elsewhere: of a queue that they do not reach.
        gone: not there any more, so of what queue they were is not known.
    """

    elsewhere: frozenset[UUID] = frozenset()
    gone: frozenset[UUID] = frozenset()

    def told(self, taken: KeyTaken) -> JobError:
        """What the caller is told of a key that another job has. Pure.

        Example:
            >>> reused = KeyReused("k", UUID(int=1))
            >>> Unseen(gone=frozenset({UUID(int=1)})).told(reused)
            KeyReused("idempotency_key 'k' was used with another request")
            >>> Unseen().told(reused) is reused
            True
        """
        if taken.job_id in self.elsewhere:
            return KeyElsewhere(taken.field, taken.key)
        if taken.job_id not in self.gone:
            return taken
        match taken:
            case KeyReused():
                return KeyReused(taken.key, None)
            case KeyOfPruned():
                return KeyOfPruned(taken.key, None)
            case _:
                return UniqueOfPruned(taken.key, None)


def unseen(connection: Connection, ids: Collection[UUID | None], reach: Reach) -> Unseen:
    """Which of these jobs the caller is not told of; None is none, and where everything is reached, nothing is asked."""
    named = {one for one in ids if one is not None}
    if reach.is_everything or not named:
        return Unseen()
    values = {"ids": array_of(named)} | reach_values(reach)
    is_reached = {row[0]: row[1] for row in connection.execute(_REACHED.by(reach), values)}
    return Unseen(
        frozenset(job_id for job_id, is_so in is_reached.items() if not is_so),
        frozenset(named - is_reached.keys()),
    )


def taken_keys(
    submissions: Sequence[Submission], answers: Mapping[int, Placed | JobError]
) -> dict[int, KeyTaken]:
    """Of a batch the keys that other jobs have, by the numbers of the answers that name these jobs. Pure."""
    found = {number: _taken(submissions[number], answer) for number, answer in answers.items()}
    return {number: taken for number, taken in found.items() if taken is not None}


def _taken(submission: Submission, answer: Placed | JobError) -> KeyTaken | None:
    if isinstance(answer, KeyTaken):
        return answer
    if not isinstance(answer, Placed) or answer.created:
        return None
    if answer.held and submission.options.unique is not None:
        return UniqueHeld(submission.options.unique.key, answer.id)
    return KeyOfPruned(submission.idempotency_key or "", answer.id)


def hidden(taken: Mapping[int, KeyTaken], found: Unseen) -> dict[int, JobError]:
    """What takes the place of answers that name jobs of which the caller is not told. Pure."""
    told = {number: found.told(one) for number, one in taken.items()}
    return {number: told[number] for number, one in taken.items() if told[number] is not one}
