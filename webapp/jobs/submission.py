"""What a client asks for, and the checked and complete job that comes of it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from uuid import UUID

from webapp.flow.reach import Reach
from webapp.flow.tenant import DEFAULT, Tenant
from webapp.infra.broker.hints import Hint, Ticket
from webapp.infra.postgres.literals import json_of
from webapp.jobs.errors import CallbackRefused, ExpiredAlready, UnknownQueue, UnknownTask
from webapp.jobs.handlers import DEFAULT_QUEUE, Handler, HandlerRegistry
from webapp.jobs.options import DEFAULT_PRIORITY, NO_OPTIONS, Options, Terms
from webapp.jobs.unique import Unique
from webapp.outbound.urls import TargetRefused, callable_url
from webapp.settings import Settings

if TYPE_CHECKING:
    from webapp.jobs.model import JobRow

T = TypeVar("T")

#: How long an idempotency key lives where no setting says otherwise, seconds.
KEY_TTL = 86_400.0
#: How payloads are compared; `json.dumps` would make an encoder each time.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Submission:
    """What a client asked for."""

    payload: dict[str, Any]
    idempotency_key: str | None = None
    options: Options = NO_OPTIONS


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that is about to be stored; `payload` is JSON text, `terms` is None for what every job gets.

    Args:
        lane: where it waits, if its queue or task has limits.
        unique: which key it is to hold.
        tenant: whose it is; its keys are kept behind that one's mark.
        submitted_by: the number of the key of the API by which it came; None: by none.
        group: the batch or workflow that it belongs to.
    """

    id: UUID
    task: str
    payload: str
    queue: str
    max_retries: int
    timeout: float
    idempotency_key: str | None
    fingerprint: bytes
    request_id: str | None = None
    traceparent: str | None = None
    terms: Terms | None = None
    lane: int | None = None
    unique: Unique | None = None
    tenant: Tenant = DEFAULT
    submitted_by: int | None = None
    group: UUID | None = None

    @property
    def key(self) -> str | None:
        """Whose work it is."""
        return None if self.terms is None else self.terms.key

    @property
    def is_owned(self) -> bool:
        """True if its row says more than that it is the default tenant's."""
        return self.submitted_by is not None or self.group is not None or self.tenant.id != DEFAULT.id

    @property
    def ticket(self) -> Ticket:
        """What a message about its lane is made from."""
        return Ticket(self.queue, self.task, self.timeout, self.priority)

    @property
    def priority(self) -> int:
        """0 to 9, higher first."""
        return DEFAULT_PRIORITY if self.terms is None else self.terms.priority

    @property
    def hint(self) -> Hint:
        """What its message is made from."""
        return Hint(self.id, self.task, self.queue, self.timeout, self.priority)


class Origin(NamedTuple):
    """Who submits.

    Args:
        request_id: of the request.
        traceparent: its place in a trace.
        reach: of the caller.
        key: the number of the key of the API that was shown; None: none was.
    """

    request_id: str | None
    traceparent: str | None
    reach: Reach
    key: int | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that is stored; `created` is False when its key had been used for the same request before.

    Args:
        held: it holds the unique key that this request asked for, and nothing was stored.
        replaced: it was there before, and is what this request asks for from now on.
        is_told: workers are to be told of it.
    """

    job: JobRow
    created: bool
    held: bool = False
    replaced: bool = False
    is_told: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """A job that is stored, of a batch or from inside a program; `created` is False when its key had been used for the same request before.

    Args:
        held, replaced: as in `Accepted`.
    """

    id: UUID
    created: bool
    held: bool = False
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What a job gets when its handler does not say.

    Args:
        max_retries: retries after the first attempt.
        timeout: seconds an attempt may take.
        default_handler: runs jobs whose payload names no handler; empty: they are refused.
        only_known: whether a payload must name a known handler where it names one; else the default runs it.
        key_ttl: seconds an idempotency key lives.
        retention_days: days a final job is kept; 0: for ever.
    """

    max_retries: int
    timeout: float
    default_handler: str
    key_ttl: float = KEY_TTL
    only_known: bool = False
    retention_days: int = 0

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Those that the settings say."""
        return cls(
            settings.max_job_retries,
            settings.job_timeout,
            settings.default_handler,
            settings.idempotency_ttl,
            only_known=bool(settings.handler_modules),
            retention_days=settings.retention_days,
        )


class Rules:
    """What may be submitted, and what a job gets where its submission does not say.

    Args:
        registry: what can run.
        limits: the defaults of a job.
    """

    def __init__(self, registry: HandlerRegistry, limits: Limits) -> None:
        self._registry = registry
        self.limits = limits

    def can_judge(self, payload: Mapping[str, object]) -> bool:
        """True if this process knows what runs a job with this payload, whatever HANDLERS the workers have."""
        return (
            self.limits.only_known or "task" not in payload or self._registry.get(payload["task"]) is not None
        )

    def queue_of(self, payload: Mapping[str, Any]) -> str:
        """Where jobs with this payload wait whose submission names no queue; a handler can run them."""
        found = self._registry.get(payload.get("task")) or self._registry.get(self.limits.default_handler)
        return DEFAULT_QUEUE if found is None else found.queue

    def complete(
        self, submission: Submission, job_id: UUID, origin: Origin, now: datetime, *, suggest: bool = True
    ) -> NewJob:
        """The job that is stored for a submission.

        Args:
            suggest: an error names the handler that was probably meant.

        Raises:
            UnknownTask: no handler can run it.
            OptionRefused: no worker listens to the queue it asks for, or it would expire before it is due.
            PayloadRefused: the payload does not fit its handler's model.
        """
        reach = origin.reach
        found = self._handler_for(submission.payload, reach, suggest=suggest)
        found.check(submission.payload)
        asked = submission.options
        self._check(asked, now, reach)
        own = submission.idempotency_key
        return NewJob(
            id=job_id,
            task=found.name,
            payload=json_of(submission.payload),
            queue=asked.queue or found.queue,
            max_retries=first_given(asked.max_retries, found.max_retries, self.limits.max_retries),
            timeout=first_given(asked.timeout, found.timeout, self.limits.timeout),
            idempotency_key=own and reach.kept(own),
            fingerprint=fingerprint(submission),
            request_id=origin.request_id,
            traceparent=origin.traceparent,
            terms=terms_of(found, asked, now, reach) if asked is not NO_OPTIONS or found.sets_terms else None,
            unique=asked.unique and replace(asked.unique, key=reach.kept(asked.unique.key)),
            tenant=reach.home,
            submitted_by=origin.key,
        )

    def _handler_for(self, payload: Mapping[str, Any], reach: Reach, *, suggest: bool) -> Handler:
        """The handler that runs a job with this payload: the one it names, or the default. One for another tenant's queue is not there."""
        found = self._registry.get(payload.get("task"))
        if found is None and not (self.limits.only_known and "task" in payload):
            found = self._registry.get(self.limits.default_handler)
        if found is None or not reach.knows(found.queue):
            known = tuple(name for name in self._registry.names() if self._is_known(name, reach))
            raise UnknownTask(payload.get("task"), known, suggest=suggest)
        return found

    def _is_known(self, name: str, reach: Reach) -> bool:
        found = self._registry.get(name)
        return found is not None and reach.knows(found.queue)

    def _check(self, asked: Options, now: datetime, reach: Reach) -> None:
        if asked.queue is not None:
            known = self._registry.queues()
            if asked.queue not in known or not reach.knows(asked.queue):
                raise UnknownQueue(asked.queue, tuple(filter(reach.knows, known)))
        if asked.callback_url is not None:
            check_callback(asked.callback_url)
        if asked.expires_at is not None and asked.is_late(now):
            # By this machine's clock, as a courtesy; a job that is stored is judged by PostgreSQL's.
            raise ExpiredAlready(asked.expires_at)


def check_callback(url: str) -> None:
    """Judges a callback's URL by the settings of today.

    Raises:
        CallbackRefused: they do not allow it to be called.
    """
    try:
        callable_url(url)
    except TargetRefused as refused:
        raise CallbackRefused(url, str(refused)) from None


def first_given(asked: T | None, of_handler: T | None, default: T) -> T:
    """What the client asked for, else what its handler says, else the setting."""
    if asked is not None:
        return asked
    return default if of_handler is None else of_handler


def terms_of(found: Handler, asked: Options, now: datetime, reach: Reach) -> Terms:
    """What the client asked for, and the handler's defaults where it did not.

    Args:
        now: when it asked.
        reach: of the client.
    """
    backoff = asked.backoff if asked.backoff is not None else found.backoff
    run_at, delay = _put_off(asked, now)
    return Terms(
        priority=first_given(asked.priority, found.priority, DEFAULT_PRIORITY),
        run_at=run_at,
        delay=delay,
        expires_at=asked.expires_at,
        expires_in=found.expires_in,
        backoff=None if backoff is None else json.dumps(backoff),
        tags=tuple(dict.fromkeys((*asked.tags, *found.tags))),
        callback_url=asked.callback_url,
        key=asked.key and reach.kept(asked.key),
    )


def _put_off(asked: Options, now: datetime) -> tuple[datetime | None, float]:
    """When a job is due, and after how many seconds: not later than it may be put off."""
    run_at, delay = asked.run_at, asked.delay or 0.0
    most = asked.unique.max_wait if asked.unique is not None else None
    if most is None:
        return run_at, delay
    return run_at and min(run_at, now + timedelta(seconds=most)), min(delay, most)


def fingerprint(submission: Submission) -> bytes:
    """SHA-256 of the request in a canonical form: the order of keys and the white space do not count."""
    canonical = _CANONICAL.encode(submission.payload)
    if submission.options is not NO_OPTIONS:
        # JSON text has no bare line feed, so no payload alone reads like a payload with options.
        canonical += "\n" + submission.options.canonical()
    return hashlib.sha256(canonical.encode()).digest()
