"""Ends the attempts of processes that are gone: the sweeper's part, and that of the parent of a child that died."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from sqlalchemy import Connection, Engine

from tasks import dead_letter
from tasks.sweeps.base import Each, of_rows
from webapp.dead_letters.model import NewDeadLetter
from webapp.dead_letters.store import move_to_dead_letters
from webapp.infra.broker.hints import Hint
from webapp.infra.telemetry import logs, metrics, traces
from webapp.jobs import ends
from webapp.jobs.ends import Ended
from webapp.jobs.error_report import ErrorReport
from webapp.jobs.errors import JobTimeout
from webapp.jobs.loss import LOST, SPARED, Fate, LastSeen, fates
from webapp.jobs.model import LeasedJob
from webapp.jobs.retry import RetryDecision, RetryPolicy, TryAgain
from webapp.jobs.states import AttemptOutcome, JobStatus

logger = logging.getLogger(__name__)

#: Says what a process, named as the holder of a lease, ran when it died; None: it cannot be known.
Witness = Callable[[str], LastSeen | None]
#: What came of one attempt: its job moved to the dead letter queue, was released, or stands so now; None: its lease was lost.
Ending = NewDeadLetter | Ended | JobStatus | None


def no_witness(_holder: str) -> LastSeen | None:
    """Knows nothing of any process."""
    return None


@dataclass(frozen=True, slots=True)
class _Decided:
    """A job that a process held which is gone, and what becomes of it."""

    job: LeasedJob
    fate: Fate
    seen: LastSeen | None


def settle(
    engine: Engine,
    policy: RetryPolicy,
    reason: str,
    take: Callable[[Connection], list[LeasedJob]],
    *,
    witness: Witness = no_witness,
    send_alone: Callable[[Sequence[Hint]], object] | None = None,
) -> int:
    """Ends the attempts that `take` finds; returns how many.

    What ran is lost: its job is tried again at once, or goes to the dead letter queue. What was only held is queued again.

    Args:
        reason: label of `jobs_recovered_total`.
        take: locks and returns jobs whose holder is gone, all of a holder at once.
        witness: tells what a holder ran.
        send_alone: sends each of these jobs in a message of its own; without it they are left to the dispatcher.
    """
    total = 0
    with Each("job") as each:
        while ended := of_rows(
            engine,
            each,
            lambda connection: _decide(take(connection), witness),
            lambda decided: decided.job.id,
            lambda connection, decided: _end(connection, policy, decided, sent=send_alone is not None),
        ):
            total += len(ended)
            metrics.jobs_recovered.labels(reason).inc(len(ended))
            for decided, ending in ended:
                _note(decided, ending, reason)
            alone = [
                ending
                for decided, ending in ended
                if isinstance(ending, Ended) and decided.fate is Fate.SPARED_ALONE
            ]
            if send_alone is not None and (sendable := [one.hint for one in alone if one.is_queued]):
                send_alone(sendable)
    return total


def _decide(taken: Iterable[LeasedJob], witness: Witness) -> list[_Decided]:
    """Decides what becomes of jobs, holder by holder."""
    holder = attrgetter("worker_id")
    decided = []
    for name, of_one in groupby(sorted(taken, key=holder), key=holder):
        held = list(of_one)
        seen = witness(name)
        decided += [_Decided(job, Fate.LOST, seen) for job in held if job.recorded]
        opened = [job for job in held if not job.recorded]
        decided += [_Decided(job, fate, seen) for job, fate in zip(opened, fates(opened, seen), strict=True)]
    return decided


def _end(connection: Connection, policy: RetryPolicy, decided: _Decided, *, sent: bool) -> Ending:
    """Ends one attempt."""
    if decided.fate is Fate.LOST:
        report, decision = _after_loss(policy, decided.job, decided.seen)
        return end_lost(connection, decided.job, report, decision)
    sent = sent and decided.fate is Fate.SPARED_ALONE
    return ends.end_attempt(connection, ends.released(decided.job, SPARED, sent=sent))


def _after_loss(
    policy: RetryPolicy, job: LeasedJob, seen: LastSeen | None
) -> tuple[ErrorReport, RetryDecision]:
    """How the attempt ended that its process ran, and what follows."""
    if seen is None or seen.timed_out is None:
        return LOST, policy.after_loss(retry_count=job.retry_count, max_retries=job.max_retries)
    error = JobTimeout(seen.timed_out)
    decision = policy.of_job(job.backoff).after_failure(
        error, retry_count=job.retry_count, max_retries=job.max_retries
    )
    return ErrorReport.of(error), decision


def end_lost(
    connection: Connection, job: LeasedJob, report: ErrorReport, decision: RetryDecision
) -> NewDeadLetter | JobStatus | None:
    """Ends one attempt whose process is gone: its job is queued again, cancelled where that was asked, or moved to the dead letter queue.

    Returns the job's status, or its dead letter; None when its lease was lost.
    """
    outcome = AttemptOutcome.LOST if report is LOST else AttemptOutcome.FAILED
    if not job.recorded:
        end = (
            ends.again(job, outcome, report, decision.delay)
            if isinstance(decision, TryAgain)
            else ends.last(job, outcome, report)
        )
        ended = ends.end_attempt(connection, end)
        if ended is None or ended.status != JobStatus.PROCESSING:
            return None if ended is None else JobStatus(ended.status)
    return move_to_dead_letters(connection, job.id, job.attempt)


def _note(decided: _Decided, ending: Ending, reason: str) -> None:
    """Logs and counts the end of one attempt, after its commit."""
    job = decided.job
    with logs.bound(**fields_of(job)):
        logger.warning(
            "job recovered",
            extra={"task": job.task, "reason": reason, "holder": job.worker_id, "fate": decided.fate.value},
        )
    if isinstance(ending, NewDeadLetter):
        dead_letter.note(ending, job.attempt)
    elif isinstance(ending, Ended):
        count_released([ending])
    elif ending is JobStatus.CANCELLED:
        metrics.jobs_cancelled.inc()
    elif ending is JobStatus.QUEUED and decided.seen is not None and decided.seen.timed_out is not None:
        metrics.count_retry(job.task)


def count_released(released: Iterable[Ended]) -> None:
    """Counts attempts that were given back, by what became of their jobs: a cancellation that was asked is one then."""
    queued = [one.is_queued for one in released]
    metrics.jobs_released.inc(queued.count(True))
    metrics.jobs_cancelled.inc(queued.count(False))


def fields_of(held: LeasedJob) -> dict[str, str | int | None]:
    """What every line about an attempt says whose process does not speak for it any more."""
    return {
        "job_id": str(held.id),
        "attempt": held.attempt,
        "request_id": held.request_id,
        **traces.fields_of(held.id, held.attempt, held.traceparent),
    }
