"""Ends of attempts: one statement for every outcome, for one job or for hundreds.

An attempt ends once. The statement is fenced by the attempt's number and writes the attempt's record together with the job, so
an end that comes late, or twice, changes nothing. Functions take a connection and never commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import Connection, text

from webapp.infra.broker.hints import Hint
from webapp.infra.postgres.engine import Statement
from webapp.infra.postgres.literals import array_of, kept_as_sent, optional_array_of, text_array_of
from webapp.infra.postgres.prepared import FOR_A_MOMENT, FOR_LONG
from webapp.infra.postgres.sql_files import of_one, read_sql, without_answer, without_rows
from webapp.jobs.error_report import ErrorReport
from webapp.jobs.model import Claim, LeasedJob
from webapp.jobs.retry import DeathReason
from webapp.jobs.states import UNBURNT, AttemptOutcome, JobStatus

#: An attempt, as the process that runs it knows it, or as it is found in the hands of one that is gone.
H = TypeVar("H", Claim, LeasedJob)


class Follows(StrEnum):
    """What follows an attempt that did not complete its job."""

    #: The job is queued again.
    AGAIN = "again"
    #: Nothing: the job waits to be moved to the dead letter queue.
    LAST = "last"
    #: The job is cancelled, if that was asked; if not, the attempt goes on.
    CANCEL = "cancel"


class End(NamedTuple, Generic[H]):
    """How one attempt ends, and what follows. Made by the functions below; the fields are columns of the statement.

    Args:
        held: the attempt.
        follows: None completes the job.
        outcome: what its record says.
        outcome_if_asked: what it says where the job is cancelled because that was asked; None: the same.
        result: JSON text.
        ran_from: seconds from the claim until the handler began.
        ran_until: seconds from the claim until it ended; None: it ends now.
        delay: seconds until the job is due again; None: it keeps its place.
        sent: its message follows; else the dispatcher sends it.
        error: kept with the attempt.
        reason: why the attempt was the last one.
        note: why the result was not kept.
    """

    held: H
    follows: Follows | None = None
    outcome: AttemptOutcome | None = None
    outcome_if_asked: AttemptOutcome | None = None
    result: str | None = None
    ran_from: float | None = None
    ran_until: float | None = None
    delay: float | None = None
    sent: bool | None = None
    error: ErrorReport | None = None
    reason: DeathReason | None = None
    note: str | None = None


def completed(
    claim: Claim,
    result: str | None,
    ran_from: float | None = None,
    ran_until: float | None = None,
    note: str | None = None,
) -> End[Claim]:
    """The handler returned.

    Args:
        result: what it returned as JSON text, or None.
        ran_from: seconds from the claim until it began.
        ran_until: seconds from the claim until it ended.
        note: why its result was not kept.
    """
    # By position: a backlog makes one for each of its jobs.
    return End(claim, None, None, None, result, ran_from, ran_until, None, None, None, None, note)


def again(
    held: H,
    outcome: AttemptOutcome,
    error: ErrorReport | None,
    delay: float,
    *,
    is_cancelled: bool = False,
) -> End[H]:
    """The job is queued again, or cancelled where that was asked.

    Args:
        outcome: `failed` and `lost` use up a retry, `snoozed` does not.
        delay: seconds until the job is due.
        is_cancelled: the handler stopped because its cancellation was asked; the record says so.
    """
    asked = AttemptOutcome.CANCELLED if is_cancelled else None
    return End(held, Follows.AGAIN, outcome, asked, delay=delay, error=error)


def released(held: H, why: ErrorReport | None = None, *, sent: bool = False) -> End[H]:
    """The process gives the job back without running it: it keeps its place, and no retry is used up.

    Args:
        why: kept with the attempt; None where the process itself hands it back.
        sent: its message follows; else the dispatcher sends it.
    """
    return End(held, Follows.AGAIN, AttemptOutcome.RELEASED, sent=sent, error=why)


def last(
    held: H,
    outcome: AttemptOutcome,
    error: ErrorReport,
    reason: DeathReason = DeathReason.EXHAUSTED,
) -> End[H]:
    """The job's last attempt: it is left to be moved to the dead letter queue, or cancelled where that was asked."""
    return End(held, Follows.LAST, outcome, AttemptOutcome.CANCELLED, error=error, reason=reason)


def cancelled(held: H, error: ErrorReport | None = None) -> End[H]:
    """The attempt stops because its cancellation was asked; where it was not, nothing ends."""
    return End(held, Follows.CANCEL, AttemptOutcome.CANCELLED, error=error)


class Ended(NamedTuple):
    """A job whose attempt has ended: where it stands by now, and what a message about it is made from."""

    id: UUID
    status: str
    task: str
    queue: str
    timeout: float
    priority: int

    @property
    def hint(self) -> Hint:
        """What its message is made from."""
        return Hint(self.id, self.task, self.queue, self.timeout, self.priority)

    @property
    def is_queued(self) -> bool:
        """True if it waits; one whose cancellation was asked is cancelled."""
        return self.status == JobStatus.QUEUED


def _text(*without: str) -> str:
    return read_sql(__file__, "end_attempts", without=without)


_END_ATTEMPTS = Statement(_text(), plan_lasts=FOR_A_MOMENT)
_END_ONE = Statement(of_one(_text("times")), plan_lasts=FOR_LONG)
#: The same for attempts that completed their jobs; tickets.py claims the next jobs in it.
COMPLETED = without_answer(_text("other ends"))
_COMPLETE_MANY = Statement(without_rows(_text("other ends")), plan_lasts=FOR_A_MOMENT)
_COMPLETE_ONE = Statement(of_one(without_rows(_text("other ends", "times"))), plan_lasts=FOR_LONG)


def end_attempts(connection: Connection, ends: Sequence[End[H]]) -> list[Ended]:
    """Ends attempts of one process; returns the jobs whose attempts these were, in no order. Of the others nothing changes.

    Args:
        ends: at least one, all of the same holder.
    """
    statement = _END_ONE if _is_one(ends) else _END_ATTEMPTS
    return [Ended._make(row) for row in statement.run(connection, _values_of(ends)).rows]


def end_attempt(connection: Connection, end: End[H]) -> Ended | None:
    """Ends one attempt; None when its lease was lost, or its cancellation was not asked."""
    found = end_attempts(connection, [end])
    return found[0] if found else None


def complete_many(connection: Connection, done: Sequence[End[Claim]]) -> int:
    """Ends attempts of one process that completed their jobs; returns how many: a chunk of five hundred wants no five hundred rows.

    Raises:
        DBAPIError: one of them is being ended by another session; nothing was changed.
    """
    if is_noted(done):
        return len(end_attempts(connection, done))
    statement = _COMPLETE_ONE if _is_one(done) else _COMPLETE_MANY
    return statement.run(connection, values_of_completed(done)).number


def is_noted(done: Sequence[End[Claim]]) -> bool:
    """True if a result was not kept: only the statement of every end writes why."""
    return any(end.note for end in done)


def _is_one(ends: Sequence[End[H]]) -> bool:
    """True for one attempt that took all the time since its claim: PostgreSQL plans it in half the time."""
    return len(ends) == 1 and ends[0].ran_until is None


def values_of_completed(done: Sequence[End[Claim]]) -> dict[str, Any]:
    """The values of `COMPLETED_AND_RECORDED`: an array for each column, an empty one where all of it is NULL."""
    held = [end.held for end in done]
    results = _unless_empty([end.result for end in done])
    return {
        "worker_id": held[0].worker_id,
        "ids": array_of([one.id for one in held]),
        "attempts": array_of([one.attempt for one in held]),
        "results": text_array_of(results),
        "results_as_sent": text_array_of(_unless_empty([kept_as_sent(result) for result in results])),
        "ran_from": optional_array_of(_unless_empty([end.ran_from for end in done])),
        "ran_until": optional_array_of(_unless_empty([end.ran_until for end in done])),
    }


def _values_of(ends: Sequence[End[H]]) -> dict[str, Any]:
    """The values of the statement: an array for each column, an empty one where all of it is NULL."""
    _, follows, outcomes, asked, results, ran_from, ran_until, delays, sent, errors, reasons, notes = map(
        _unless_empty, zip(*ends, strict=True)
    )
    held = [end.held for end in ends]
    return {
        "worker_id": held[0].worker_id,
        "ids": array_of([one.id for one in held]),
        "attempts": array_of([one.attempt for one in held]),
        "follows": text_array_of(follows),
        "outcomes": text_array_of(outcomes),
        "outcomes_if_asked": text_array_of(asked),
        "results": text_array_of(results),
        "results_as_sent": text_array_of(_unless_empty([kept_as_sent(result) for result in results])),
        "ran_from": optional_array_of(ran_from),
        "ran_until": optional_array_of(ran_until),
        "delays": optional_array_of(delays),
        "burns": optional_array_of([_burnt_by(end) for end in ends] if follows else ()),
        "sent": optional_array_of(sent),
        **_values_of_errors(errors),
        "reasons": text_array_of(reasons),
        "notes": text_array_of(notes),
    }


def _values_of_errors(errors: Sequence[ErrorReport | None]) -> dict[str, str]:
    """What is kept of the errors, as columns."""
    return {
        "summaries": text_array_of([None if one is None else one.summary for one in errors]),
        "error_types": text_array_of([None if one is None else one.type for one in errors]),
        "error_messages": text_array_of([None if one is None else one.message for one in errors]),
        "tracebacks": text_array_of([None if one is None else one.traceback for one in errors]),
    }


def _burnt_by(end: End[H]) -> int | None:
    """The retries that an attempt used up."""
    return 1 if end.follows is Follows.AGAIN and end.outcome not in UNBURNT else None


def _unless_empty(column: Sequence[Any]) -> Sequence[Any]:
    """A column, or nothing where all of it is None."""
    return () if not column or (column[0] is None and column.count(None) == len(column)) else column


_HAS_ENDED = text(read_sql(__file__, "status_after"))


def status_after(connection: Connection, claim: Claim) -> JobStatus | None:
    """The job's status, if this very attempt's end is on record: after a commit whose answer was lost."""
    values = {"id": claim.id, "attempt": claim.attempt, "worker_id": claim.worker_id}
    status = connection.execute(_HAS_ENDED, values).scalar()
    return None if status is None else JobStatus(status)
