"""An OpenTelemetry collector for tests: takes traces as OTLP over HTTP and keeps the spans."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from listener import Quiet, listening
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from webapp.infra.telemetry import traces

#: A trace that a client began elsewhere, and its span.
TRACE, CLIENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{CLIENT}-01"


@dataclass
class Seen:
    """A span as it came in; ids are in hex, and a span without a parent has an empty one."""

    service: str
    instance: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: list[tuple[str, str]]
    attributes: dict[str, object]
    error: str | None
    events: list[tuple[str, dict[str, object]]]
    started: int
    ended: int

    @property
    def attempt(self) -> object:
        """Which attempt it is of; None for a request."""
        return self.attributes.get("djps.job.attempt")


@dataclass
class Collector:
    """What came in."""

    url: str = ""
    spans: list[Seen] = field(default_factory=list)
    #: Every export's path and headers.
    exports: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def of_trace(self, trace_id: str) -> list[Seen]:
        """The spans of a trace, in the order in which they began."""
        return sorted((one for one in self.spans if one.trace_id == trace_id), key=lambda one: one.started)

    def of_job(self, job_id: str) -> list[Seen]:
        """The spans of a job's attempts, in their order."""
        mine = [one for one in self.spans if one.attributes.get("djps.job.id") == job_id]
        return sorted(mine, key=lambda one: one.started)

    def take(self, body: bytes) -> None:
        """Keeps the spans of one export."""
        for of_process in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = _values(of_process.resource.attributes)
            for scope in of_process.scope_spans:
                self.spans.extend(_seen(span, about) for span in scope.spans)


@contextmanager
def collecting(port: int = 0, answer: Callable[[], int] = lambda: 200) -> Iterator[Collector]:
    """Collects spans on 127.0.0.1 until the block ends.

    Args:
        port: any that is free when 0.
        answer: says with which status an export is answered.
    """
    collector = Collector()

    class Receiver(BaseHTTPRequestHandler):
        server: Quiet

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collector.exports.append((self.path, dict(self.headers)))
            status = answer()
            if status == 200:
                collector.take(body)
            reply = ExportTraceServiceResponse().SerializeToString()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with listening(Receiver, port) as server:
        collector.url = server.url
        yield collector


def told(collector: Collector) -> list[Seen]:
    """All that this process had to tell, in the order in which it began."""
    traces.flush()
    return sorted(collector.spans, key=lambda one: one.started)


def _seen(span: Span, about: dict[str, object]) -> Seen:
    failed = span.status.code == Status.STATUS_CODE_ERROR
    return Seen(
        service=str(about["service.name"]),
        instance=str(about["service.instance.id"]),
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        attributes=_values(span.attributes),
        error=span.status.message if failed else None,
        events=[(event.name, _values(event.attributes)) for event in span.events],
        started=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
    )


def _values(pairs: RepeatedCompositeFieldContainer) -> dict[str, object]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
