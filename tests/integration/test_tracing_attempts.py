"""Spans of attempts, as a real OTLP receiver gets them."""

from __future__ import annotations

import itertools
import os

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from collector import CLIENT, TRACE, TRACEPARENT, told
from factories import ENDS, age, claimed, ended, queued, row_of, tables
from opentelemetry import trace as opentelemetry_trace
from psycopg2.errors import UniqueViolation
from sqlalchemy import text

from tasks import dead_letter
from tasks.chunk import execute_jobs
from tasks.execution import execute_job
from tasks.presence import lost_jobs
from tasks.sweeps import callbacks
from webapp.flow.reach import EVERYTHING
from webapp.infra.telemetry import traceparent, traces
from webapp.infra.telemetry.logs import bound_field
from webapp.infra.telemetry.traceparent import of_attempt
from webapp.jobs import Retry, Snooze, store
from webapp.jobs.errors import Cancelled
from webapp.jobs.submission import Submission


def fail_in(monkeypatch, *names):
    for name in names:
        monkeypatch.setattr(f"opentelemetry.sdk.trace.{name}", lambda *_, **__: 1 / 0)


def attempt(job_id):
    """One message for a job; it is over, whatever became of the job."""
    try:
        execute_job.run(str(job_id))
    except ENDS:
        return


@pytest.fixture
def run_once(engine, handle, collector):
    """Runs one attempt of a new job, and gives its span."""

    def once(function):
        attempt(queued(engine, task=handle(function)).id)
        (span,) = told(collector)
        return span

    return once


def test_what_a_database_quotes_is_not_told_to_the_collector(run_once, engine):
    quoted = "DETAIL:  Key (key)=(se" + "same) already exists."

    def insert(payload, context):
        raise RuntimeError("not stored") from UniqueViolation(quoted)

    span = run_once(insert)
    assert span.error is not None
    (event,) = span.events
    assert event[1]["exception.message"] == "UniqueViolation"
    assert "in insert" in event[1]["exception.stacktrace"]
    assert "sesame" not in str(span)
    # The attempt keeps all of it, for those who may look at the job.
    with engine.connect() as connection:
        assert "sesame" in connection.execute(text("SELECT error_message FROM job_attempts")).scalar_one()


def test_an_attempt_says_what_it_was_of(engine, handle, collector):
    name = handle(lambda payload, context: {"place": context.traceparent}, queue="mail")
    job = queued(engine, task=name, queue="mail", traceparent=TRACEPARENT, request_id="r-1")
    attempt(job.id)
    (span,) = told(collector)
    assert (span.name, span.kind, span.error, span.events) == (f"run {name}", "CONSUMER", None, [])
    assert (span.trace_id, span.parent_id, span.links) == (TRACE, CLIENT, [])
    waited = span.attributes.pop("djps.job.waited_seconds")
    worker = span.attributes.pop("djps.worker.id")
    assert 0 <= waited < 60
    assert worker.endswith(f"/{os.getpid()}")
    assert span.attributes == {
        "messaging.system": "djps",
        "messaging.operation.type": "process",
        "messaging.operation.name": "run",
        "messaging.destination.name": "mail",
        "messaging.message.id": str(job.id),
        "djps.job.id": str(job.id),
        "djps.job.attempt": 1,
        "djps.job.retry_count": 0,
        "djps.job.task": name,
        "djps.job.queue": "mail",
        "djps.job.outcome": "completed",
        "djps.request.id": "r-1",
    }
    place = f"00-{TRACE}-{span.span_id}-01"
    assert row_of(engine, job.id).result == {"place": place}
    assert place == str(of_attempt(job.id, 1, TRACEPARENT))


def test_a_job_without_a_place_has_a_trace_of_its_own(engine, handle, collector):
    def second_time(payload, context):
        if context.attempt == 1:
            raise Retry("again", after=0)

    job = queued(engine, task=handle(second_time))
    attempt(job.id)
    attempt(job.id)
    first, second = told(collector)
    assert first.trace_id == second.trace_id
    assert first.parent_id == second.parent_id == ""
    assert second.links == [(first.trace_id, first.span_id)]


def test_with_traces_off_a_handler_is_given_the_place_that_was_kept(engine, handle):
    name = handle(lambda payload, context: {"place": context.traceparent})
    kept, none = queued(engine, task=name, traceparent=TRACEPARENT), queued(engine, task=name)
    attempt(kept.id)
    attempt(none.id)
    assert row_of(engine, kept.id).result == {"place": TRACEPARENT}
    assert row_of(engine, none.id).result == {"place": None}


def broken(payload, context):
    raise ValueError("broken")


def unspeakable(payload, context):
    raise ValueError("\ud800\x00")


def too_slow(payload, context):
    raise SoftTimeLimitExceeded


def snoozed(payload, context):
    raise Snooze(5)


def cancelled(payload, context):
    raise Cancelled


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        (broken, "ValueError", "broken"),
        (unspeakable, "ValueError", "\\ud800\\x00"),
        (
            too_slow,
            "webapp.jobs.errors.JobTimeout",
            "the attempt ran longer than its timeout of 300 s",
        ),
    ],
)
def test_an_attempt_that_failed_says_of_what(run_once, function, kind, message):
    span = run_once(function)
    assert (span.attributes["djps.job.outcome"], span.attributes["error.type"]) == ("failed", kind)
    assert span.error == message
    ((event, about),) = span.events
    assert (event, about["exception.type"], about["exception.message"]) == ("exception", kind, message)
    assert function.__name__ in about["exception.stacktrace"]


@pytest.mark.parametrize("function", [snoozed, cancelled])
def test_an_attempt_that_was_put_off_or_cancelled_is_no_error(run_once, function):
    span = run_once(function)
    assert span.attributes["djps.job.outcome"] == function.__name__
    assert (span.error, span.events) == (None, [])
    assert "error.type" not in span.attributes


def test_a_task_no_one_knows_here_is_an_error(engine, collector):
    attempt(queued(engine, task="of-a-later-release").id)
    (span,) = told(collector)
    assert (span.name, span.attributes["error.type"]) == (
        "run of-a-later-release",
        "tasks.execution.HandlerMissing",
    )


def test_each_job_of_a_chunk_has_a_span_as_if_it_had_come_alone(engine, handle, collector):
    def odd(payload, context):
        if payload["n"] % 2:
            raise ValueError("odd")

    name = handle(odd)
    jobs = [queued(engine, task=name, payload={"n": n}, traceparent=TRACEPARENT) for n in range(4)]
    ended(execute_jobs, [str(job.id) for job in jobs])
    found = told(collector)
    assert [one.attributes["djps.job.id"] for one in found] == [str(job.id) for job in jobs]
    assert [one.error for one in found] == [None, "odd", None, "odd"]
    assert {one.parent_id for one in found} == {CLIENT}
    # Time spent on one job is no part of the next one's span.
    assert all(one.ended <= next_one.started for one, next_one in itertools.pairwise(found))


def test_what_a_handler_submits_belongs_to_its_attempt(engine, handle, service, collector):
    name = handle(lambda payload, context: service.submit(Submission({"task": "noop"}), EVERYTHING) and None)
    attempt(queued(engine, task=name, traceparent=TRACEPARENT).id)
    (span,) = told(collector)
    assert tables(engine)[1]["traceparent"] == f"00-{TRACE}-{span.span_id}-01"
    assert traceparent.here() is None


def test_instrumentation_that_knows_only_opentelemetry_finds_the_attempt(engine, handle, collector):
    seen = []
    name = handle(
        lambda payload, context: seen.append(opentelemetry_trace.get_current_span().get_span_context())
    )
    attempt(queued(engine, task=name).id)
    (span,) = told(collector)
    assert f"{seen[0].span_id:016x}" == span.span_id
    assert not opentelemetry_trace.get_current_span().get_span_context().is_valid


def test_a_callback_stays_in_the_trace_and_names_the_request(engine, parts):
    job = claimed(engine, traceparent=TRACEPARENT, request_id="r-1")
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE jobs SET callback_url = 'https://example.org', status = 'completed', finished_at = now(),"
                " lease_expires_at = NULL, worker_id = NULL WHERE id = :id"
            ),
            {"id": job.id},
        )
    assert callbacks.run_callbacks(parts) == 1
    both = [(row["traceparent"], row["request_id"]) for row in tables(engine)[:2]]
    assert both == [(TRACEPARENT, "r-1")] * 2


@pytest.mark.usefixtures("collector")
def test_a_span_that_cannot_be_told_or_begun_fails_no_attempt(engine, handle, monkeypatch, caplog):
    untold, unbegun = (queued(engine, task=handle(broken)) for _ in range(2))
    fail_in(monkeypatch, "Span.set_attribute", "Span.end")
    attempt(untold.id)
    fail_in(monkeypatch, "Tracer.start_span")
    attempt(unbegun.id)
    assert [row_of(engine, job.id).last_error for job in (untold, unbegun)] == ["ValueError: broken"] * 2
    said = {record.message for record in caplog.records}
    assert {"span could not be told", "span of an attempt could not be begun"} <= said


def test_a_fork_tells_for_itself(engine, handle, collector):
    attempt(queued(engine, task="noop").id)
    pid = os.fork()
    if pid == 0:  # pragma: no cover - another process
        try:
            with traces.request("of the child", None, {}):
                pass
            traces.flush()
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    found = told(collector)
    assert [one.name for one in found] == ["run noop", "of the child"]
    assert [one.instance.rpartition(":")[2] for one in found] == [str(os.getpid()), str(pid)]


def test_a_sampler_decides_for_a_whole_job(engine, handle, collector, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")

    def second_time(payload, context):
        if context.attempt == 1:
            raise Retry("again", after=0)

    name = handle(second_time)
    jobs = [queued(engine, task=name) for _ in range(40)]
    for job in (*jobs, *jobs):
        attempt(job.id)
    found = told(collector)
    kept = {one.attributes["djps.job.id"] for one in found}
    assert 4 < len(kept) < 36
    assert len(found) == 2 * len(kept)


@pytest.mark.parametrize("on", [True, False])
def test_lines_about_an_attempt_that_was_lost_or_dead_lettered_name_its_request(engine, parts, request, on):
    if on:
        request.getfixturevalue("collector")
    lost = claimed(engine, request_id="of-lost", traceparent=TRACEPARENT)
    ended = claimed(
        engine, request_id="of-ended", traceparent=TRACEPARENT, max_retries=0, worker_id="other/1"
    )
    age(engine, "lease_expires_at", 1_000)
    seen = set()

    def keep(record):
        names = ("job_id", "attempt", "request_id", "trace_id", "span_id")
        seen.add((record.getMessage(), *(bound_field(name) for name in names)))
        return True

    for module in (lost_jobs, dead_letter):
        module.logger.addFilter(keep)
    try:
        lost_jobs.settle(engine, parts.policy, "lease_expired", lambda c: store.take_stuck(c, 10))
    finally:
        for module in (lost_jobs, dead_letter):
            module.logger.removeFilter(keep)

    def line(message, job, request_id):
        place = of_attempt(job.id, 1, TRACEPARENT).fields.values() if on else (None, None)
        return (message, str(job.id), 1, request_id, *place)

    assert seen == {
        line("job recovered", lost, "of-lost"),
        line("job recovered", ended, "of-ended"),
        line("job moved to the dead letter queue", ended, "of-ended"),
    }
