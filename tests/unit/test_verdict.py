from __future__ import annotations

from datetime import UTC, datetime

import pytest

from webapp.outbound.verdict import MAX_RETRY_AFTER, Again, Done, Never, judge, retry_after

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "expect", "retry_on", "verdict"),
    [
        (200, ["2xx"], [], Done()),
        (204, ["2xx"], [], Done()),
        (200, [201], [], Never()),
        (201, [200, 201], [], Done()),
        (404, ["2xx", 404], [], Done()),
        (202, [200], [202], Again()),
        (302, ["2xx"], [], Never()),
        (304, ["2xx"], [], Never()),
        (400, ["2xx"], [], Never()),
        (404, ["2xx"], ["4xx"], Again()),
        (404, ["2xx"], [404], Again()),
        (408, ["2xx"], [409], Never()),
        (410, ["2xx"], [], Never()),
        (429, ["2xx"], [], Again()),
        (500, ["2xx"], [], Again()),
        (503, ["2xx"], [], Again()),
        (500, ["5xx"], [], Done()),
        (599, ["2xx"], [], Again()),
        (101, ["2xx"], [], Never()),
    ],
)
def test_an_answer_completes_repeats_or_ends_its_job(status, expect, retry_on, verdict):
    assert judge(status, {}, expect=expect, retry_on=retry_on, now=NOW) == verdict


@pytest.mark.parametrize(("status", "after"), [(429, 7.0), (503, 7.0), (500, None), (404, 7.0)])
def test_retry_after_counts_where_the_server_is_busy_or_the_payload_says_so(status, after):
    answer = judge(status, {"retry-after": "7"}, expect=["2xx"], retry_on=[404], now=NOW)
    assert answer == Again(after)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("\u0665", None),
        ("0", 0.0),
        (" 30 ", 30.0),
        ("86400", MAX_RETRY_AFTER),
        ("9" * 5_000, MAX_RETRY_AFTER),
        ("Tue, 24 Nov 2026 12:00:30 GMT", 30.0),
        ("Tue, 24 Nov 2026 12:00:30 -0000", 30.0),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0.0),
        ("Tue, 24 Nov 2099 11:00:00 GMT", MAX_RETRY_AFTER),
        ("Tue, 99 Nov 2026 11:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_bounded(given, seconds):
    assert retry_after({"retry-after": given}, NOW) == seconds


def test_a_date_is_measured_by_the_servers_own_clock():
    headers = {"retry-after": "Tue, 24 Nov 2020 12:00:30 GMT", "date": "Tue, 24 Nov 2020 12:00:00 GMT"}
    assert retry_after(headers, NOW) == 30.0
