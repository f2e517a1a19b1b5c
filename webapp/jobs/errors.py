"""What can go wrong with a job, and what a handler raises to say what should happen next."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from difflib import get_close_matches
from uuid import UUID

from pydantic import ValidationError

from webapp.flow.tenant import told
from webapp.jobs.options import MAX_DELAY, checked_number
from webapp.jobs.states import JobStatus

#: Most names of handlers that an error lists.
SHOWN_NAMES = 30
#: Longest name that is compared with those of handlers, characters.
LONGEST_NAME = 100
#: How alike two names must be, 0 to 1, for one to be taken for the other mistyped.
ALIKE = 0.7


class JobError(Exception):
    """The base of every error the job domain raises."""


class JobNotFound(JobError):
    """No job has this id."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__(f"no job has the id {job_id}")
        self.job_id = job_id


class JobGone(JobError):
    """The job was deleted for its age, not long ago."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__(f"job {job_id} was deleted for its age")
        self.job_id = job_id


class JobEnded(JobError):
    """The job is final, or its last attempt has failed, so it cannot be cancelled."""

    def __init__(self, job_id: UUID, status: str) -> None:
        # It is `processing` until it is moved to the dead letter queue.
        now = "has failed for the last time" if status == JobStatus.PROCESSING else f"is {status} already"
        super().__init__(f"job {job_id} {now}; only a queued or running job can be cancelled")
        self.job_id = job_id
        self.status = status


class JobBusy(JobError):
    """Someone else holds the job right now."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__(f"job {job_id} is busy: another request or session holds it; send this one again")
        self.job_id = job_id


class AttemptOver(JobError):
    """An attempt that has lost its lease, or has ended, wants to submit a job."""

    def __init__(self, job_id: UUID, attempt: int) -> None:
        super().__init__(f"attempt {attempt} of job {job_id} does not run any more, so it can submit nothing")


class NotForRetry(JobError):
    """The job is neither failed nor cancelled, so it cannot be queued again."""

    def __init__(self, job_id: UUID, status: str) -> None:
        super().__init__(f"job {job_id} is {status}; only a failed or cancelled job can be queued once more")
        self.job_id = job_id
        self.status = status


class NoOpenLetter(JobError):
    """The job has no dead letter that someone could still deal with."""

    def __init__(self, job_id: UUID, status: str) -> None:
        super().__init__(f"job {job_id} has no open dead letter; it is {status}")
        self.job_id = job_id
        self.status = status


class OptionRefused(JobError):
    """What a submission asks for cannot be had: `field` names the option."""

    def __init__(self, field: str, rule: str, given: object) -> None:
        super().__init__(f"{field} {rule}; given: {str(given)[:100]!r}")
        self.field = field
        self.rule = rule
        self.given = given


class UnknownTask(OptionRefused):
    """No handler has this name, and the default handler does not stand in for it.

    Args:
        suggest: looks for the name that was meant, which takes a millisecond or two.
    """

    def __init__(self, name: object, known: tuple[str, ...], *, suggest: bool = True) -> None:
        more = f", and {len(known) - SHOWN_NAMES} more" if len(known) > SHOWN_NAMES else ""
        rule = f"must name a registered handler ({', '.join(known[:SHOWN_NAMES])}{more})"
        closest = closest_to(name, known) if suggest else None
        super().__init__(
            "payload.task", f"{rule}; did you mean {closest!r}?" if closest is not None else rule, name
        )
        self.name = name
        self.known = known


class TaskNotJudged(JobError):
    """This program has not loaded the handlers of the workers, so it cannot say whether they know a task."""

    def __init__(self, name: object) -> None:
        super().__init__(
            f"payload.task {str(name)[:100]!r} is not known here: set HANDLERS to what API and workers have, or use HTTP"
        )


def closest_to(name: object, known: tuple[str, ...]) -> str | None:
    """The name that was probably meant; None where none is like it.

    Example:
        >>> closest_to("Slep", ("noop", "sleep"))
        'sleep'
    """
    if not isinstance(name, str) or len(name) > LONGEST_NAME:
        return None
    by_form = {one.lower(): one for one in known}
    found = get_close_matches(name.lower(), by_form, n=1, cutoff=ALIKE)
    return by_form[found[0]] if found else None


class PayloadUnchecked(OptionRefused):
    """The model of the payload's handler raised something else than what is wrong with the payload."""

    def __init__(self, task: str, error: Exception) -> None:
        super().__init__(
            "payload",
            f"could not be checked: the model of handler {task!r} raised {type(error).__name__}",
            "a payload",
        )


class UnknownQueue(OptionRefused):
    """No one listens to this queue."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__("queue", f"must be one that workers listen to ({', '.join(known)})", name)


class CallbackRefused(OptionRefused):
    """The settings do not allow this URL to be called."""

    def __init__(self, url: str, rule: str) -> None:
        super().__init__("callback_url", rule, url)


class ExpiredAlready(OptionRefused):
    """The job could never start in time."""

    def __init__(self, expires_at: datetime) -> None:
        super().__init__("expires_at", "must be after now, and after run_at or delay", expires_at.isoformat())


class PayloadRefused(JobError):
    """The payload does not fit the model of its handler; `error` names each rule that it breaks.

    Args:
        secret: what was given must not be repeated, it may hold secrets.
    """

    def __init__(self, task: str, error: ValidationError, *, secret: bool = False) -> None:
        super().__init__(f"payload does not fit the handler {task!r}: {error.error_count()} rules are broken")
        self.task = task
        self.error = error
        self.secret = secret


class OutOfReach(JobError):
    """The caller may not submit to this queue."""

    def __init__(self, queue: str, allowed: Collection[str]) -> None:
        super().__init__(f"the queue {queue!r} is not one of this key's: {', '.join(sorted(allowed))}")
        self.field, self.given = "queue", queue


class KeyElsewhere(JobError):
    """An idempotency key or unique key belongs to a job that the caller does not reach."""

    def __init__(self, field: str, key: str) -> None:
        super().__init__(f"{field} {told(key)!r} belongs to a job of a queue that is not one of this key's")
        self.field, self.given = field, told(key)


class KeyTaken(JobError):
    """A key that a submission asks for belongs to another job.

    Args:
        job_id: which; None where who asks is not told.
    """

    #: Which kind of key.
    field = "idempotency_key"

    def __init__(self, sentence: str, key: str, job_id: UUID | None) -> None:
        super().__init__(sentence)
        self.key = self.given = told(key)
        self.job_id = job_id


class KeyReused(KeyTaken):
    """The idempotency key belongs to a job with another request."""

    def __init__(self, key: str, job_id: UUID | None) -> None:
        used_for = "" if job_id is None else f", for job {job_id}"
        super().__init__(
            f"idempotency_key {told(key)!r} was used with another request{used_for}", key, job_id
        )


class KeyOfPruned(KeyTaken):
    """The idempotency key was used for this very request, and its job was deleted since, for its age."""

    def __init__(self, key: str, job_id: UUID | None) -> None:
        super().__init__(f"idempotency_key {told(key)!r} was used for {_pruned(job_id)}", key, job_id)


class KeyRace(JobError):
    """Another request with this idempotency key is being stored right now."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"another request with idempotency_key {told(key)!r} is under way; send this one again"
        )
        self.key = key


class UniqueHeld(KeyTaken):
    """Another job holds the unique key."""

    field = "unique.key"
    job_id: UUID

    def __init__(self, key: str, job_id: UUID) -> None:
        super().__init__(f"unique.key {told(key)!r} is held by job {job_id}", key, job_id)


class UniqueOfPruned(KeyTaken):
    """The unique key is held for a job that was deleted since, for its age."""

    field = "unique.key"

    def __init__(self, key: str, job_id: UUID | None) -> None:
        super().__init__(f"unique.key {told(key)!r} is held for {_pruned(job_id)}", key, job_id)


def _pruned(job_id: UUID | None) -> str:
    which = "a job that" if job_id is None else f"job {job_id}, which"
    return f"{which} was deleted for its age"


class UniqueRace(JobError):
    """Another request with this unique key is being stored right now."""

    def __init__(self, key: str) -> None:
        super().__init__(f"another request with unique.key {told(key)!r} is under way; send this one again")
        self.key = key


class SubmissionRefused(JobError):
    """A bound is reached: the job was not stored, and may be once others have left.

    Args:
        queue: whose bound.
        bound: which one, as clients see it; with an underscore for the dot.
        retry_after: seconds until it would be taken.
    """

    #: What a client may go by.
    code = "refused"

    def __init__(self, sentence: str, queue: str, bound: str, retry_after: int) -> None:
        super().__init__(f"{sentence}; send it again in {retry_after} s")
        self.queue = queue
        self.bound = bound
        self.retry_after = retry_after


class QueueFull(SubmissionRefused):
    """The queue has as many jobs as it may have, or its oldest due job has waited too long."""

    code = "queue-full"

    def __init__(self, queue: str, bound: str, value: float, retry_after: int) -> None:
        why = (
            f"its oldest due job has waited longer than its max_age of {value:g} s"
            if bound == "max_age"
            else f"its max_depth of {value:,} jobs is reached"
        )
        super().__init__(f"queue {queue!r} is full: {why}", queue, bound, retry_after)


class KeyFull(SubmissionRefused):
    """The key has as many jobs in the queue as each key may have."""

    code = "key-full"

    def __init__(self, queue: str, key: str, value: int, retry_after: int) -> None:
        why = f"the keys.max_depth of {value:,} jobs is reached"
        super().__init__(
            f"key {told(key)!r} of queue {queue!r} is full: {why}", queue, "key_max_depth", retry_after
        )
        self.key = key


class Retry(Exception):
    """Raised by a handler: try again, after `after` seconds where given, else by the job's backoff.

    It counts as a failed attempt: once the retries are used up the job is moved to the dead letter queue.
    """

    def __init__(self, reason: str = "", *, after: float | None = None) -> None:
        super().__init__(reason or "the handler asked for another try")
        self.after = None if after is None else checked_number("after", after, 0, MAX_DELAY)


class Snooze(Exception):
    """Raised by a handler: not now, come back in `seconds`. It uses up no retry, and may be raised any number of times."""

    def __init__(self, seconds: float) -> None:
        self.seconds = checked_number("seconds", seconds, 0, MAX_DELAY)
        super().__init__(f"the handler asked to come back in {self.seconds:g} s")


class Cancelled(Exception):
    """Raised by `JobContext.check_cancelled`: the job should stop, and a handler lets this through."""

    def __init__(self) -> None:
        super().__init__("the job's cancellation was asked")


class Discard(Exception):
    """Raised by a handler: trying again is no use, the job goes to the dead letter queue now."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class JobTimeout(Exception):
    """The attempt ran past its time limit."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the attempt ran longer than its timeout of {seconds:g} s")
        self.seconds = seconds


#: What a handler raises to say what should happen next.
CONTROL_FLOW = (Retry, Snooze, Cancelled, Discard)


def meant(error: BaseException) -> BaseException:
    """What an error says should happen next: a group of errors that all say the same stands for the first of them.

    Tasks of an `asyncio.TaskGroup` raise what they raise in such a group.

    Example:
        >>> meant(ExceptionGroup("unhandled errors", [Discard("no address")]))
        Discard('no address')
    """
    leaves = _leaves(error)
    for kind in CONTROL_FLOW:
        if leaves and all(isinstance(one, kind) for one in leaves):
            return leaves[0]
    return error


def _leaves(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    pending = [error]
    while pending:
        at = pending.pop(0)
        if isinstance(at, BaseExceptionGroup):
            pending = [*at.exceptions, *pending]
        else:
            found.append(at)
    return found
