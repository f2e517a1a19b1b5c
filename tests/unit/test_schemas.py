from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from webapp.api.breaches import breaches_of
from webapp.api.dlq_schemas import DeadLetterQuery
from webapp.api.page_schemas import PageQuery
from webapp.api.schemas import JobAnswer
from webapp.api.strictjson import BadBody, read_json
from webapp.jobs.filters import Filter
from webapp.jobs.model import JobRow
from webapp.jobs.nesting import MAX_DEPTH
from webapp.jobs.request import SubmitRequest


def nested(depth, opening, closing, core):
    return opening * depth + core + closing * depth


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n\t",
        b"{",
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": "\xff"}',
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"a": "\x00"}',
        b'{"a": 01}',
        b"{}{}",
        nested(1_000, b"[", b"]", b""),
        nested(100_000, b'{"a":', b"}", b"1"),
        b"[" * 1_000_000,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_not_strict_json_is_a_bad_body(body):
    with pytest.raises(BadBody, match=r"^the body must"):
        read_json(body)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_any_other_json_is_read_as_python_reads_it(value):
    text = json.dumps(value)
    assert read_json(text.encode()) == json.loads(text)


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_read_or_refused_and_never_break(body):
    try:
        read_json(body)
    except BadBody:
        return


@pytest.mark.parametrize(
    ("payload", "rule"),
    [
        ({"a": 2**63}, "payload.a must be an integer of at most 64 bits"),
        ({"a": -(2**63) - 1}, "payload.a must be an integer of at most 64 bits"),
        ({"a": [0, {"b": 2**70}]}, "payload.a[1].b must be an integer of at most 64 bits"),
        ({"a": float("nan")}, "payload.a must be a finite number"),
        ({"a": float("inf")}, "payload.a must be a finite number"),
        ({"a": "x\x00"}, "payload.a must not contain \\u0000"),
        ({"x\x00": 1}, "payload must not contain \\u0000"),
        ({"a": ["\ud800"]}, "payload.a[0] must not contain lone surrogates"),
        ({"\udfff": 1}, "payload must not contain lone surrogates"),
    ],
)
def test_a_payload_that_cannot_be_kept_unchanged_is_refused_with_its_path(payload, rule):
    with pytest.raises(ValidationError) as caught:
        SubmitRequest.model_validate({"payload": payload})
    assert rule in caught.value.errors()[0]["msg"]


def payload_of_depth(depth):
    payload = {}
    for _ in range(depth - 1):
        payload = {"a": payload}
    return payload


def test_nesting_is_allowed_up_to_its_bound():
    deepest = payload_of_depth(MAX_DEPTH)
    assert SubmitRequest.model_validate({"payload": deepest}).payload == deepest
    with pytest.raises(ValidationError, match=f"deeper than {MAX_DEPTH} levels"):
        SubmitRequest.model_validate({"payload": payload_of_depth(MAX_DEPTH + 1)})


def test_a_path_in_a_message_stays_short():
    deep = {"k" * 10_000: {"k" * 10_000: [2**70]}}
    with pytest.raises(ValidationError) as caught:
        SubmitRequest.model_validate({"payload": deep})
    assert len(caught.value.errors()[0]["msg"]) < 400


@pytest.mark.parametrize(
    "value", [-(2**63), 2**63 - 1, True, None, 1.7976931348623157e308, "😀", "\u2028", ""]
)
def test_values_at_the_edge_are_kept(value):
    assert SubmitRequest.model_validate({"payload": {"a": value}}).payload == {"a": value}


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "x",
        1,
        True,
        {},
        {"payload": None},
        {"payload": []},
        {"payload": "x"},
        {"payload": 1},
        {"payload": {}, "extra": 1},
        {"payload": {}, "idempotency_key": ""},
        {"payload": {}, "idempotency_key": "k" * 256},
        {"payload": {}, "idempotency_key": 1},
        {"payload": {}, "idempotency_key": True},
        {"payload": {}, "idempotency_key": ["k"]},
        {"payload": {}, "idempotency_key": "a\x00"},
        {"payload": {}, "idempotency_key": "\ud800"},
    ],
    ids=lambda body: repr(body)[:40],
)
def test_a_body_of_another_shape_is_refused(body):
    with pytest.raises(ValidationError):
        SubmitRequest.model_validate(body)


@pytest.mark.parametrize("key", [None, "k", "k" * 255, "😀" * 255, " ", "\n"])
def test_a_key_within_its_bounds_is_kept(key):
    assert SubmitRequest.model_validate({"payload": {}, "idempotency_key": key}).idempotency_key == key


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "-1"},
        {"limit": "many"},
        {"limit": ""},
        {"limit": "1.5"},
        {"limit": "9" * 5_000},
        {"offset": "-1"},
        {"offset": str(2**63)},
        {"offset": "nan"},
        {"status": "done"},
        {"status": ""},
        {"status": "QUEUED"},
        {"page": "1"},
    ],
    ids=repr,
)
def test_a_query_out_of_bounds_is_refused(query):
    with pytest.raises(ValidationError):
        PageQuery.model_validate(query)


def test_a_query_has_defaults():
    found = PageQuery.model_validate({})
    assert (found.status, found.limit, found.offset) == ([], 20, 0)
    assert found.wanted == Filter()
    assert DeadLetterQuery.model_validate({}).limit == 1_000


def test_times_are_answered_in_utc():
    at = datetime(2026, 1, 2, 12, 0, tzinfo=timezone(timedelta(hours=2)))
    row = JobRow(
        id=UUID(int=1),
        task="noop",
        payload={},
        queue="default",
        priority=5,
        status="queued",
        attempt=0,
        retry_count=0,
        max_retries=3,
        timeout=300.0,
        run_at=at,
        dispatched_at=None,
        lease_expires_at=None,
        worker_id=None,
        idempotency_key=None,
        result=None,
        last_error=None,
        created_at=at.astimezone(UTC),
        updated_at=at,
        last_attempt_at=None,
        finished_at=None,
        tags=[],
        expires_at=None,
        backoff=None,
        callback_url=None,
        callback_job_id=None,
        cancel_reason=None,
        progress=None,
        result_note=None,
    )
    answer = JobAnswer.of(row)
    assert answer["created_at"] == answer["run_at"] == "2026-01-02T10:00:00Z"
    assert answer["id"] == "00000000-0000-0000-0000-000000000001"
    assert answer["finished_at"] is None


@pytest.mark.parametrize(
    ("model", "sent", "rule"),
    [
        (SubmitRequest, {"payload": {}, "priority": 10}, "must be at most 9"),
        (SubmitRequest, {"payload": {}, "priority": -1}, "must be at least 0"),
        (SubmitRequest, {"payload": {}, "priority": "5"}, "must be an integer"),
        (SubmitRequest, {"payload": {}, "priority": 5.5}, "must be an integer"),
        (SubmitRequest, {"payload": {}, "timeout": 0}, "must be more than 0"),
        (SubmitRequest, {"payload": {}, "timeout": "1"}, "must be a number"),
        (SubmitRequest, {"payload": {}, "idempotency_key": ""}, "must have at least 1 characters"),
        (SubmitRequest, {"payload": {}, "queue": "q" * 101}, "must have at most 100 characters"),
        (SubmitRequest, {"payload": {}, "tags": "x"}, "must be an array"),
        (SubmitRequest, {"payload": {}, "tags": ["x"] * 1_000}, "must have at most 20 items"),
        (
            PageQuery,
            {"status": "lost"},
            "must be 'queued', 'processing', 'completed', 'failed' or 'cancelled'",
        ),
        (PageQuery, {"limit": "many"}, "must be an integer"),
        (PageQuery, {"cursor": "x"}, "must be a UUID"),
        (DeadLetterQuery, {"reason": "bored"}, "must be 'exhausted' or 'discarded'"),
    ],
)
def test_rules_are_in_the_words_of_json(model, sent, rule):
    with pytest.raises(ValidationError) as caught:
        model.model_validate(sent)
    assert breaches_of(caught.value)[0].rule == rule
