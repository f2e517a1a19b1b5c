"""How a program submits jobs without HTTP: what it asks for is held to the rules of a request, and a refusal is one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError

from webapp.jobs.broken_rules import field_of, rule_of, shown
from webapp.jobs.errors import JobError, OptionRefused, PayloadRefused
from webapp.jobs.request import MAX_BATCH, SubmitRequest
from webapp.jobs.submission import Accepted, Origin, Placed, Submission

if TYPE_CHECKING:
    # It counts, in files that the settings name; a test of a handler has none.
    from webapp.jobs.service import Jobs


class SomeRefused(JobError):
    """Some jobs of a batch were refused when the others were stored; `answers` has for each what became of it, in their order."""

    def __init__(self, answers: Sequence[Placed | JobError]) -> None:
        refused = [number for number, answer in enumerate(answers) if isinstance(answer, JobError)]
        first = refused[0]
        super().__init__(
            f"{len(refused)} of {len(answers)} jobs were refused and the others are stored; jobs.{first}: {answers[first]}"
        )
        self.answers = list(answers)


class Front(Protocol):
    """Where checked submissions go."""

    @property
    def largest(self) -> int:
        """The largest payload, bytes of JSON."""

    def take(self, submission: Submission) -> Placed:
        """Stores a job, or finds the one that its keys name."""

    def take_many(self, submissions: Sequence[Submission]) -> list[Placed | JobError]:
        """Stores many in one transaction; each has its own answer."""


class OriginFront:
    """The front door of jobs, for who is not a request.

    Args:
        jobs: the front door.
        origin: who submits.
        largest: as in `Front`.
    """

    def __init__(self, jobs: Jobs, origin: Origin, largest: int) -> None:
        self._jobs = jobs
        self._origin = origin
        self.largest = largest

    def take(self, submission: Submission) -> Placed:
        """Stores a job. Raises what `Jobs.submit` does."""
        return placed(self._jobs.submit(submission, self._origin.reach, self._origin))

    def take_many(self, submissions: Sequence[Submission]) -> list[Placed | JobError]:
        """Stores many. Raises what `Jobs.submit_many` does."""
        return self._jobs.submit_many(submissions, self._origin.reach, self._origin)


def placed(accepted: Accepted) -> Placed:
    """What a program is told of a job that was taken in. Pure."""
    return Placed(accepted.job.id, accepted.created, accepted.held, accepted.replaced)


def submit(front: Front, request: Mapping[str, Any]) -> Placed:
    """Submits what a request asks for.

    Args:
        request: the fields of a body of `POST /jobs`.

    Raises:
        JobError: it is refused.
    """
    submission = checked(request, front.largest)
    try:
        return front.take(submission)
    except PayloadRefused as error:
        raise of_model(error) from error


def submit_many(front: Front, requests: Sequence[Mapping[str, Any]]) -> list[Placed]:
    """Submits what requests ask for, in one transaction.

    Raises:
        JobError: one breaks a rule, and nothing was stored.
        SomeRefused: some are refused, and the others were stored.
    """
    if len(requests) > MAX_BATCH:
        raise OptionRefused("jobs", f"must have at most {MAX_BATCH} items", len(requests))
    submissions = [
        checked(request, front.largest, "jobs", str(number)) for number, request in enumerate(requests)
    ]
    if not submissions:
        return []
    answers = [
        of_model(one) if isinstance(one, PayloadRefused) else one for one in front.take_many(submissions)
    ]
    done = [one for one in answers if isinstance(one, Placed)]
    if len(done) < len(answers):
        raise SomeRefused(answers)
    return done


def checked(request: Mapping[str, Any], largest: int, *under: str) -> Submission:
    """What a request asks for, as it would be over HTTP: made to JSON and back, so that none of it changes later. Pure.

    Args:
        request: the fields of a body of `POST /jobs`; times may be `datetime`, and spans of time `timedelta`.
        largest: the largest payload, bytes of JSON.
        under: the path of the request, for the error.

    Raises:
        OptionRefused: it breaks a rule.

    Example:
        >>> checked({"payload": {"task": "noop"}, "priority": 7}, 1_000).options.priority
        7
    """
    given = {name: value for name, value in request.items() if name != "payload"}
    fields: dict[str, Any] = json.loads(_json_of(given, ".".join(under) or "options", _time_as_json))
    if "payload" in request:
        text = _json_of(request["payload"], ".".join((*under, "payload")))
        if len(text.encode("utf-8", "surrogatepass")) > largest:
            rule = f"must have at most {largest} bytes of JSON, as MAX_PAYLOAD_BYTES says"
            raise OptionRefused(".".join((*under, "payload")), rule, f"{len(text)} characters")
        fields["payload"] = json.loads(text)
    try:
        wanted = SubmitRequest.model_validate(fields)
    except ValidationError as error:
        raise _broken(error, *under) from None
    return wanted.submission(wanted.idempotency_key)


def _json_of(value: Any, path: str, default: Callable[[Any], Any] | None = None) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=default)
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionRefused(path, f"must be JSON ({str(error)[:100]})", type(value).__name__) from None


def _time_as_json(value: Any) -> Any:
    """A time or a span of time in an option.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _broken(error: ValidationError, *under: str, secret: bool = False) -> OptionRefused:
    """The first rule that was broken."""
    item = error.errors(include_url=False)[0]
    field, given = field_of(item, *under) or "request", item["input"]
    is_plain = isinstance(given, (str, int, float, bool, type(None)))
    return OptionRefused(field, rule_of(item), "not shown" if secret else given if is_plain else shown(given))


def of_model(error: PayloadRefused) -> OptionRefused:
    """The first rule of a handler's model that a payload breaks, in place of how many it breaks."""
    return _broken(error.error, "payload", secret=error.secret)
