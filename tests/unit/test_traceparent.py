from __future__ import annotations

from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from webapp.infra.telemetry import traceparent
from webapp.infra.telemetry.traceparent import Traceparent, of_attempt, read

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
JOB = UUID("01a20af4-1c53-716c-9a00-04d2b42b60c5")


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        # Only the lowest bit is about sampling.
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"00-{TRACE}-{SPAN}-fe", False),
        # A later version is read as far as this one goes.
        (f"01-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", True),
    ],
)
def test_a_header_is_read_and_written_in_version_00(header, sampled):
    found = read(header)
    assert found == Traceparent(int(TRACE, 16), int(SPAN, 16), sampled=sampled)
    assert str(found) == f"00-{TRACE}-{SPAN}-0{int(sampled)}"
    assert found.fields == {"trace_id": TRACE, "span_id": SPAN}


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01.",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-0g",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        # What a server makes of a header that was sent twice.
        f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 512}",
        "00-٤bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ],
)
def test_a_header_that_breaks_a_rule_is_none(header):
    assert read(header) is None


def test_an_attempt_has_the_trace_of_its_job_and_a_span_of_its_own():
    header = f"00-{TRACE}-{SPAN}-00"
    first, second = of_attempt(JOB, 1, header), of_attempt(JOB, 2, header)
    assert first.trace_id == second.trace_id == int(TRACE, 16)
    assert len({first.span_id, second.span_id, int(SPAN, 16)}) == 3
    assert not first.sampled
    assert of_attempt(JOB, 1, header) == first


@pytest.mark.parametrize("header", [None, "nonsense"])
def test_a_job_without_a_trace_has_one_of_its_own_over_all_its_attempts(header):
    first, second = of_attempt(JOB, 1, header), of_attempt(JOB, 2, header)
    assert first.trace_id == second.trace_id != 0
    assert first.span_id != second.span_id
    assert read(str(first)) == first
    assert of_attempt(uuid7(), 1, header).trace_id != first.trace_id


def test_traces_of_jobs_are_spread_over_what_a_sampler_looks_at():
    # `traceidratio` compares the last 8 bytes; a job's id as it is would always be in the second half.
    halves = [of_attempt(uuid7(), 1, None).trace_id & (2**64 - 1) < 2**63 for _ in range(400)]
    assert 100 < sum(halves) < 300


def test_a_place_holds_until_it_is_left():
    assert traceparent.here() is None
    token = traceparent.enter(Traceparent(1, 2, sampled=True))
    assert traceparent.here() == f"00-{1:032x}-{2:016x}-01"
    traceparent.leave(token)
    assert traceparent.here() is None
