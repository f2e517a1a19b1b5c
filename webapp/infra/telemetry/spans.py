"""OpenTelemetry's SDK as DJPS uses it: one provider per process, started by its first span, and errors are logged, never raised.

Spans wait in a bounded queue and a thread of the SDK sends them; with the collector away or slow the newest take the
place of the oldest. A fork starts with a queue and a thread of its own. `webapp.infra.telemetry.traces` is the way in.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from contextvars import ContextVar, Token
from functools import wraps
from types import TracebackType
from typing import ParamSpec, Protocol, Self
from uuid import UUID

from dotenv import dotenv_values
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from webapp.infra.telemetry import traceparent
from webapp.infra.telemetry.traceparent import Traceparent, of_attempt, read
from webapp.settings import Settings, env_file

logger = logging.getLogger(__name__)

P = ParamSpec("P")

#: How long a process that ends waits for the collector, milliseconds.
FLUSH_MS = 2_000

#: LeasedJob over every fork, so that no child is born while its parent makes a provider and holds this for ever.
_starting = threading.Lock()
os.register_at_fork(
    before=_starting.acquire, after_in_parent=_starting.release, after_in_child=_starting.release
)

#: The ids that the next span of this context gets.
_wanted: ContextVar[Traceparent | None] = ContextVar("djps_wanted_span", default=None)


class _Ids(RandomIdGenerator):
    """Random ids, but those that an attempt has anyway."""

    def generate_trace_id(self) -> int:
        """The trace of the attempt that begins, or a new one."""
        wanted = _wanted.get()
        return super().generate_trace_id() if wanted is None else wanted.trace_id

    def generate_span_id(self) -> int:
        """The span of the attempt that begins, or a new one."""
        wanted = _wanted.get()
        return super().generate_span_id() if wanted is None else wanted.span_id


class _Processor(BatchSpanProcessor):
    """The SDK's, but one that does not keep a process from ending for half a minute."""

    def shutdown(self) -> None:
        """Sends what is left, for `FLUSH_MS` at most."""
        # The public method takes no time limit, and the SDK's 30 s are longer than supervisors wait.
        self._batch_processor.shutdown(FLUSH_MS)


def _harmless(method: Callable[P, None]) -> Callable[P, None]:
    """Logs what a method raises: tracing must not fail a job, nor be where its time limit strikes."""

    @wraps(method)
    def tried(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception:
            logger.exception("span could not be told")

    return tried


class RunningSpan:
    """A span that has begun; as a context manager it is the current one inside its block, and ends with it.

    Args:
        span: the SDK's.
        place: what is called or submitted meanwhile belongs under.
    """

    __slots__ = ("_attached", "_span", "_token", "place")

    def __init__(self, span: Span) -> None:
        self._span = span
        found = span.get_span_context()
        self.place = Traceparent(found.trace_id, found.span_id, sampled=found.trace_flags.sampled)
        self._token: Token[str | None] | None = None
        self._attached: Token[Context] | None = None

    def __enter__(self) -> Self:
        """What happens from here on is part of the span, also for instrumentation that knows only OpenTelemetry."""
        self._token = traceparent.enter(self.place)
        self._attached = otel_context.attach(set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """It ends here."""
        if self._attached is not None:
            otel_context.detach(self._attached)
        if self._token is not None:
            traceparent.leave(self._token)
        self.end()

    @_harmless
    def note(self, name: str, value: str | int) -> None:
        """Adds an attribute."""
        self._span.set_attribute(name, value)

    @_harmless
    def fail(self, kind: str, message: str = "", stack: str | None = None) -> None:
        """Says that it failed, and of what.

        Args:
            kind: the error's type.
            stack: the traceback as text.
        """
        if stack is not None:
            about = {"exception.type": kind, "exception.message": message, "exception.stacktrace": stack}
            self._span.add_event("exception", about)
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR, message or None))

    @_harmless
    def end(self) -> None:
        """Ends it and leaves it to the thread that sends."""
        self._span.end()


class Attempt(Protocol):
    """What is known of an attempt when it begins: a `Claim`."""

    @property
    def id(self) -> UUID:
        """The job."""

    @property
    def task(self) -> str:
        """The handler's name."""

    @property
    def queue(self) -> str:
        """Where the job waited."""

    @property
    def attempt(self) -> int:
        """From 1."""

    @property
    def retry_count(self) -> int:
        """Retries used up before."""

    @property
    def worker_id(self) -> str:
        """The process that runs it."""

    @property
    def waited(self) -> float:
        """From due to claimed, seconds."""

    @property
    def request_id(self) -> str | None:
        """The request that submitted the job."""

    @property
    def traceparent(self) -> str | None:
        """The place in a trace that the job's row keeps."""


class Spans:
    """Makes spans and sends them.

    Args:
        settings: name the collector.
        role: what this process is: api, worker.
        version: of DJPS.
    """

    def __init__(self, settings: Settings, role: str, version: str) -> None:
        _read_env_file()
        self._url = settings.traces_url
        self._role = role
        self._version = version
        self._pid = -1
        self._provider: TracerProvider | None = None
        self._tracer: Tracer | None = None

    def request(
        self, name: str, parent: Traceparent | None, attributes: dict[str, str | int | None]
    ) -> RunningSpan:
        """Begins the span of a request."""
        given = {key: value for key, value in attributes.items() if value is not None}
        return RunningSpan(self._ready().start_span(name, _under(parent), SpanKind.SERVER, given))

    def attempt(self, job: Attempt) -> RunningSpan:
        """Begins the span of an attempt, under the request that submitted its job; it links to the attempt before."""
        links = []
        if job.attempt > 1:
            before = of_attempt(job.id, job.attempt - 1, job.traceparent)
            links.append(Link(_context_of(before), {"djps.job.attempt": job.attempt - 1}))
        attributes: dict[str, str | int | float] = {
            "messaging.system": "djps",
            "messaging.operation.type": "process",
            "messaging.operation.name": "run",
            "messaging.destination.name": job.queue,
            "messaging.message.id": str(job.id),
            "djps.job.id": str(job.id),
            "djps.job.attempt": job.attempt,
            "djps.job.retry_count": job.retry_count,
            "djps.job.task": job.task,
            "djps.job.queue": job.queue,
            "djps.job.waited_seconds": job.waited,
            "djps.worker.id": job.worker_id,
        }
        if job.request_id is not None:
            attributes["djps.request.id"] = job.request_id
        tracer = self._ready()
        token = _wanted.set(of_attempt(job.id, job.attempt, job.traceparent))
        try:
            span = tracer.start_span(
                f"run {job.task}", _under(read(job.traceparent)), SpanKind.CONSUMER, attributes, links
            )
        finally:
            _wanted.reset(token)
        return RunningSpan(span)

    def stop(self) -> None:
        """Sends what is left of this process's spans, for `FLUSH_MS` at most; the next span starts anew."""
        if self._provider is not None and self._pid == os.getpid():
            self._pid, provider = -1, self._provider
            provider.shutdown()

    def _ready(self) -> Tracer:
        """This process's tracer, made at the first call after a start or a fork."""
        if self._pid != os.getpid() or self._tracer is None:
            with _starting:
                if self._pid != os.getpid() or self._tracer is None:
                    self._start()
        return self._tracer  # type: ignore[return-value] # it was made above

    def _start(self) -> None:
        ours = {
            "service.name": f"djps-{self._role}",
            "service.version": self._version,
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        }
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes before ours.
        self._provider = TracerProvider(
            resource=Resource.create(ours).merge(OTELResourceDetector().detect()), id_generator=_Ids()
        )
        self._provider.add_span_processor(_Processor(OTLPSpanExporter(endpoint=self._url)))
        self._tracer = self._provider.get_tracer("djps", self._version)
        self._pid = os.getpid()


def _under(parent: Traceparent | None) -> Context:
    """The context of a span's parent, and nothing else: what the process does otherwise is not part of it."""
    if parent is None:
        return Context()
    return set_span_in_context(NonRecordingSpan(_context_of(parent)), Context())


def _context_of(place: Traceparent) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if place.sampled else TraceFlags.DEFAULT)
    return SpanContext(place.trace_id, place.span_id, is_remote=True, trace_flags=flags)


def _read_env_file() -> None:
    """Gives the SDK what `.env` says of it: it reads the environment alone, and knows more names than `Settings`."""
    file = env_file()
    for name, value in dotenv_values(file).items() if file else ():
        if name.startswith("OTEL_") and value is not None:
            os.environ.setdefault(name, value)
