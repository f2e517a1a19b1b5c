from __future__ import annotations

import json
import time
from datetime import datetime
from uuid import UUID, uuid4

import pytest
from ending import complete
from factories import LEASE, WORKER, age, dead_lettered, new_job, queued, tables, waiting
from sqlalchemy import text

from webapp.jobs import insert, store
from webapp.jobs.tables import MAX_KEY_LENGTH

JSON = "application/json"
PROBLEM = "application/problem+json"
ANSWERED = {
    *("worker_id", "lease_expires_at", "dispatched_at", "cancel_requested_at", "request_id", "traceparent"),
    "id",
    "status",
    "task",
    "payload",
    "queue",
    "priority",
    "attempt",
    "retry_count",
    "max_retries",
    "timeout",
    "idempotency_key",
    "result",
    "last_error",
    "run_at",
    "created_at",
    "updated_at",
    "last_attempt_at",
    "finished_at",
    "tags",
    "expires_at",
    "backoff",
    "callback_url",
    "callback_job_id",
    "cancel_reason",
    "result_note",
    "tenant",
    "submitted_by",
    "group_id",
    "key",
    "progress",
}


def assert_problem(answer, status):
    assert answer.status_code == status
    assert answer.content_type == PROBLEM
    document = answer.get_json(force=True)
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert document["request_id"] == answer.headers["X-Request-ID"]
    assert "Traceback" not in answer.text
    return document


def post(client, body, **options):
    return client.post("/jobs", data=body, content_type=JSON, **options)


def submit(client, payload=None, key=None, **options):
    body = {"payload": {"task": "noop"} if payload is None else payload}
    if key is not None:
        body["idempotency_key"] = key
    return client.post("/jobs", json=body, **options)


def test_a_job_is_created(client):
    answer = submit(client, {"task": "noop", "n": 1})
    assert (answer.status_code, answer.content_type) == (201, JSON)
    job = answer.json
    assert set(job) == ANSWERED | {"unique_key"}
    assert (job["status"], job["task"], job["payload"]) == ("queued", "noop", {"task": "noop", "n": 1})
    assert (job["retry_count"], job["attempt"], job["max_retries"], job["timeout"]) == (0, 0, 3, 300.0)
    assert job["idempotency_key"] is job["last_attempt_at"] is job["result"] is None
    assert UUID(job["id"]).version == 7
    assert job["created_at"].endswith("Z")
    assert datetime.fromisoformat(job["created_at"]).utcoffset().total_seconds() == 0
    shown = client.get(f"/jobs/{job['id']}")
    assert (shown.status_code, shown.json) == (200, job)


@pytest.mark.parametrize("payload", [{}, {"task": "nobody"}, {"task": 1}, {"task": ["noop"]}, {"a": None}])
def test_a_payload_that_names_no_handler_runs_the_default_one(client, payload):
    answer = submit(client, payload)
    assert (answer.status_code, answer.json["task"], answer.json["payload"]) == (201, "simulated", payload)


def test_without_a_default_an_unknown_handler_is_refused_and_the_known_are_named(another_app, engine):
    client = another_app(default_handler="").test_client()
    for payload in ({"task": "nobody"}, {}, {"task": [["x" * 10_000]]}):
        document = assert_problem(submit(client, payload), 422)
        assert "fail, http, noop, simulated, sleep" in document["detail"]
        assert len(document["detail"]) < 400
    assert submit(client, {"task": "noop"}).status_code == 201
    assert len(tables(engine)) == 1


@pytest.mark.parametrize("task", ["slep", "", None, 1, ["noop"], {"a": 1}, "nobody", "sleep "])
def test_with_handlers_of_ones_own_an_unknown_task_is_refused(another_app, engine, task):
    client = another_app(handlers="tasks.handlers.demo").test_client()
    document = assert_problem(submit(client, {"task": task}), 422)
    (broken,) = document["errors"]
    assert broken["field"] == "payload.task"
    assert "fail, http, noop, simulated, sleep" in broken["rule"]
    assert ("did you mean 'sleep'?" in broken["rule"]) is (task in ("slep", "sleep "))
    assert tables(engine) == []


@pytest.mark.parametrize("default", ["noop", "simulated", ""])
def test_with_handlers_of_ones_own_the_default_runs_what_names_none(another_app, default):
    client = another_app(handlers="tasks.handlers.demo", default_handler=default).test_client()
    answer = submit(client, {"to": "ada"})
    if default:
        assert (answer.status_code, answer.json["task"]) == (201, default)
    else:
        assert_problem(answer, 422)
    assert submit(client, {"task": "sleep"}).status_code == 201


def test_the_same_request_with_the_same_key_is_the_same_job(client, engine):
    first = submit(client, {"task": "noop", "a": 1, "b": [1, {"c": 2}]}, "k")
    again = submit(client, {"b": [1, {"c": 2}], "a": 1, "task": "noop"}, "k")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json == again.json
    assert len(tables(engine)) == 1


def test_a_used_key_answers_with_the_job_as_it_stands_now(client, engine):
    job_id = UUID(submit(client, key="k").json["id"])
    with engine.begin() as connection:
        (claim,) = store.claim(connection, [job_id], worker_id=WORKER, lease=LEASE)
        complete(connection, claim, "1")
    again = submit(client, key="k")
    assert (again.status_code, again.json["status"], again.json["result"]) == (200, "completed", 1)


@pytest.mark.parametrize(
    "other", [{"task": "noop", "a": 2}, {"task": "noop"}, {"task": "noop", "a": 1.0}, {}]
)
def test_the_same_key_with_another_payload_is_refused_and_names_the_job(client, engine, other):
    first = submit(client, {"task": "noop", "a": 1}, "k").json
    before = tables(engine)
    assert first["id"] in assert_problem(submit(client, other, "k"), 422)["detail"]
    assert tables(engine) == before


@pytest.mark.parametrize("key", ["k", " ", "k" * MAX_KEY_LENGTH, "😀" * MAX_KEY_LENGTH, "a\nb", "%s'\"\\"])
def test_any_key_within_its_bounds_is_answered_as_given(client, key):
    assert submit(client, key=key).json["idempotency_key"] == key
    assert submit(client, key=key).status_code == 200


def test_null_is_no_key(client):
    body = json.dumps({"payload": {"task": "noop"}, "idempotency_key": None})
    assert post(client, body).status_code == 201
    assert post(client, body).status_code == 201


@pytest.mark.parametrize(
    "value",
    [
        -(2**63),
        2**63 - 1,
        0.1,
        -0.0,
        1e-300,
        "ä😀\u2028",
        "\\u0000",
        "",
        [],
        {},
        None,
    ],
    ids=repr,
)
def test_values_at_the_edge_come_back_unchanged(client, value):
    created = submit(client, {"task": "noop", "value": value})
    assert created.status_code == 201
    assert created.json["payload"]["value"] == value
    assert client.get(f"/jobs/{created.json['id']}").json["payload"]["value"] == value


def test_a_large_float_keeps_its_value_and_loses_its_exponent(client):
    # PostgreSQL's jsonb keeps numbers as decimals: a float without a fraction comes back as an integer.
    job_id = submit(client, {"task": "noop", "value": 1.7976931348623157e308}).json["id"]
    assert float(client.get(f"/jobs/{job_id}").json["payload"]["value"]) == 1.7976931348623157e308


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/vnd.api+json"])
def test_every_way_to_say_json_is_understood(client, content_type):
    answer = client.post("/jobs", data='{"payload": {}}', content_type=content_type)
    assert answer.status_code == 201


def body_of_size(size):
    frame = len('{"payload":{"a":""}}')
    return '{"payload":{"a":"' + "x" * (size - frame) + '"}}'


HOSTILE = {
    "nothing": (b"", 422),
    "white space": (b"  \n", 422),
    "no JSON": (b"payload=1", 422),
    "half of it": (b'{"payload": {"a": ', 422),
    "two documents": (b'{"payload": {}}{"payload": {}}', 422),
    "a comment": (b'{"payload": {}} // x', 422),
    "single quotes": (b"{'payload': {}}", 422),
    "null": (b"null", 422),
    "a number": (b"1", 422),
    "a string": (b'"payload"', 422),
    "an array": (b"[]", 422),
    "an array of bodies": (b'[{"payload": {}}]', 422),
    "an empty object": (b"{}", 422),
    "payload null": (b'{"payload": null}', 422),
    "payload array": (b'{"payload": []}', 422),
    "payload string": (b'{"payload": "x"}', 422),
    "payload number": (b'{"payload": 1}', 422),
    "payload false": (b'{"payload": false}', 422),
    "an extra field": (b'{"payload": {}, "prio": 9}', 422),
    "many extra fields": (json.dumps({"payload": {}} | {f"f{n}": n for n in range(5_000)}).encode(), 422),
    "NaN": (b'{"payload": {"a": NaN}}', 422),
    "Infinity": (b'{"payload": {"a": Infinity}}', 422),
    "-Infinity": (b'{"payload": {"a": -Infinity}}', 422),
    "1e400": (b'{"payload": {"a": 1e400}}', 422),
    "-1e400": (b'{"payload": {"a": [-1e400]}}', 422),
    "2**63": (b'{"payload": {"a": %d}}' % 2**63, 422),
    "2**70": (b'{"payload": {"a": %d}}' % 2**70, 422),
    "an integer of 5,000 digits": (b'{"payload": {"a": ' + b"9" * 5_000 + b"}}", 422),
    "an integer of 100,000 digits": (b'{"payload": {"a": ' + b"9" * 100_000 + b"}}", 422),
    "NUL in a value": (b'{"payload": {"a": "\\u0000"}}', 422),
    "NUL in a key": (b'{"payload": {"\\u0000": 1}}', 422),
    "a bare NUL": (b'{"payload": {"a": "\x00"}}', 422),
    "NUL in the idempotency key": (b'{"payload": {}, "idempotency_key": "a\\u0000"}', 422),
    "a lone surrogate in a value": (b'{"payload": {"a": "\\ud800"}}', 422),
    "a lone surrogate in a key": (b'{"payload": {"\\udfff": 1}}', 422),
    "a lone surrogate in the idempotency key": (b'{"payload": {}, "idempotency_key": "\\ud800"}', 422),
    "swapped surrogates": (b'{"payload": {"a": "\\ude00\\ud83d"}}', 422),
    "invalid UTF-8": (b'{"payload": {"a": "\xff\xfe"}}', 422),
    "an encoded surrogate": (b'{"payload": {"a": "\xed\xa0\x80"}}', 422),
    "overlong UTF-8": (b'{"payload": {"a": "\xc0\x80"}}', 422),
    "UTF-16": ('{"payload": {}}'.encode("utf-16"), 422),
    "a byte order mark": (b'\xef\xbb\xbf{"payload": {}}', 422),
    "nesting 65 deep": (b'{"payload": {"a":' + b"[" * 64 + b"]" * 64 + b"}}", 422),
    "nesting 1,000 deep": (b'{"payload": {"a":' + b"[" * 1_000 + b"]" * 1_000 + b"}}", 422),
    "objects 1,000 deep": (b'{"payload":' + b'{"a":' * 1_000 + b"1" + b"}" * 1_001, 422),
    "nesting 100,000 deep": (b'{"payload": {"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}", 422),
    "opened 200,000 times": (b"[" * 200_000, 422),
    "an empty idempotency key": (b'{"payload": {}, "idempotency_key": ""}', 422),
    "a key of 256 characters": (b'{"payload": {}, "idempotency_key": "%s"}' % (b"k" * 256), 422),
    "a key of 200,000 characters": (b'{"payload": {}, "idempotency_key": "%s"}' % (b"k" * 200_000), 422),
    "a number for a key": (b'{"payload": {}, "idempotency_key": 1}', 422),
    "true for a key": (b'{"payload": {}, "idempotency_key": true}', 422),
    "an array for a key": (b'{"payload": {}, "idempotency_key": ["k"]}', 422),
    "an object for a key": (b'{"payload": {}, "idempotency_key": {}}', 422),
    "one byte too many": (body_of_size(256 * 1024 + 1).encode(), 413),
    "2 MB": (body_of_size(2 * 1024 * 1024).encode(), 413),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_body_gets_a_problem_document_and_changes_nothing(client, engine, redis, name):
    body, status = HOSTILE[name]
    queued(engine, idempotency_key="k")
    before = tables(engine)
    answer = post(client, body)
    document = assert_problem(answer, status)
    assert len(answer.data) < 20_000
    assert document["detail"].isprintable()
    assert tables(engine) == before
    assert waiting(redis) == []
    assert post(client, b'{"payload": {}}').status_code == 201


def test_a_body_at_the_limit_is_taken(client):
    assert post(client, body_of_size(256 * 1024)).status_code == 201


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"],
)
def test_what_does_not_say_it_is_json_is_refused(client, engine, content_type):
    answer = client.post("/jobs", data=b'{"payload": {}}', content_type=content_type)
    assert "application/json" in assert_problem(answer, 415)["detail"]
    assert tables(engine) == []


def test_a_broken_rule_is_named_with_its_field_and_what_was_given(client):
    document = assert_problem(post(client, b'{"payload": {}, "idempotency_key": 7, "x": "y"}'), 422)
    by_field = {breach["field"]: breach for breach in document["errors"]}
    assert by_field["idempotency_key"]["given"] == "7"
    assert by_field["x"]["given"] == "'y'"
    assert by_field["x"]["rule"]


@pytest.mark.parametrize(
    "name",
    ["1", "x", "not-a-uuid", "%00", "%F0%9F%98%80", "' OR 1=1", "x" * 5_000, f"{uuid4()}x", "-", "%2e%2e"],
)
def test_what_is_no_uuid_is_not_found(client, name):
    assert_problem(client.get(f"/jobs/{name}"), 404)


def test_a_uuid_that_no_job_has_is_not_found(client):
    unknown = uuid4()
    assert str(unknown) in assert_problem(client.get(f"/jobs/{unknown}"), 404)["detail"]


@pytest.mark.parametrize("path", ["/jobs", "/dlq"])
@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=100000",
        "limit=ten",
        "limit=",
        "limit=1.5",
        "limit=1e2",
        "limit=%00",
        "limit=" + "9" * 5_000,
        "offset=-1",
        "offset=x",
        "offset=9223372036854775808",
        "offset=" + "9" * 400,
        "unknown=1",
        "limit[]=1",
        "%ff=%fe",
    ],
    ids=lambda query: query[:20],
)
def test_a_query_out_of_bounds_is_refused(client, path, query):
    assert_problem(client.get(f"{path}?{query}"), 422)


@pytest.mark.parametrize("status", ["", "done", "QUEUED", "queued,failed", "%00", "queued'--"])
def test_a_status_that_is_none_is_refused(client, status):
    assert_problem(client.get(f"/jobs?status={status}"), 422)


def test_a_value_given_twice_is_refused(client):
    assert_problem(client.get("/jobs?limit=1&limit=2"), 422)


def test_the_dead_letter_queue_is_an_array_of_jobs_newest_first(client, engine):
    assert client.get("/dlq").json == []
    first, second = dead_lettered(engine), dead_lettered(engine)
    queued(engine)
    found = client.get("/dlq")
    assert (found.status_code, found.content_type) == (200, JSON)
    assert [job["id"] for job in found.json] == [str(second.id), str(first.id)]
    assert set(found.json[0]) == ANSWERED
    assert (found.json[0]["status"], found.json[0]["last_error"]) == ("failed", "E: broken")
    assert [job["id"] for job in client.get("/dlq?limit=1&offset=1").json] == [str(first.id)]


@pytest.mark.parametrize(
    "path", ["/nothing", "/docs/nothing", "/jobs/", "/jobs/a/b", "/health/", "/static/x", "/jobs//x"]
)
def test_an_unknown_path_is_a_problem_document(client, path):
    assert_problem(client.get(path), 404)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE"])
@pytest.mark.parametrize("path", ["/jobs", f"/jobs/{UUID(int=1)}", "/dlq", "/health", "/metrics"])
def test_a_method_that_a_path_does_not_take_is_a_problem_document_that_names_those_it_takes(
    client, method, path
):
    answer = client.open(path, method=method)
    assert_problem(answer, 405)
    assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/jobs", "/dlq", "/health", "/health/ready", "/metrics"])
def test_head_answers_as_get_does_without_a_body(client, path):
    answer = client.head(path)
    assert (answer.status_code, answer.data) == (200, b"")


def test_options_says_what_a_path_takes(client):
    answer = client.options("/jobs")
    assert answer.status_code == 200
    assert {"GET", "POST", "HEAD", "OPTIONS"} == set(answer.headers["Allow"].split(", "))


@pytest.mark.parametrize("given", ["abc", "019d.x_y:z/+=-", "x" * 128])
def test_a_request_id_is_kept_and_answered(client, given):
    answer = client.get("/health", headers={"X-Request-ID": given})
    assert answer.headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "ä", '{"a":1}', "<script>"])
def test_a_request_id_that_is_none_is_replaced(client, given):
    answer = client.get("/health", headers={"X-Request-ID": given})
    assert UUID(answer.headers["X-Request-ID"]).version == 7


def test_the_request_id_goes_with_the_job(client, engine):
    submit(client, headers={"X-Request-ID": "abc"})
    assert tables(engine)[0]["request_id"] == "abc"


def test_every_answer_forbids_guessing_its_type(client):
    assert client.get("/health").headers["X-Content-Type-Options"] == "nosniff"
    assert client.get("/nothing").headers["X-Content-Type-Options"] == "nosniff"


def test_submissions_beyond_the_limit_are_told_when_to_come_again(another_app, engine):
    client = another_app(rate_limit="3 per minute").test_client()
    assert [submit(client).status_code for _ in range(3)] == [201, 201, 201]
    before = tables(engine)
    answer = submit(client)
    assert_problem(answer, 429)
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert tables(engine) == before
    assert client.get("/jobs").status_code == 200
    assert client.get("/health").status_code == 200


def test_bad_submissions_count_towards_the_limit_too(another_app):
    client = another_app(rate_limit="2 per minute").test_client()
    assert [post(client, b"x").status_code for _ in range(3)] == [422, 422, 429]


def test_the_limit_is_per_client_address(another_app):
    client = another_app(rate_limit="1 per minute", api_auth="open").test_client()
    for address in ("10.0.0.1", "10.0.0.2"):
        assert submit(client, environ_base={"REMOTE_ADDR": address}).status_code == 201
        assert submit(client, environ_base={"REMOTE_ADDR": address}).status_code == 429


@pytest.mark.parametrize(
    ("one", "other", "is_one_client"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
    ],
)
def test_the_limit_is_per_site_of_ipv6(another_app, one, other, is_one_client):
    client = another_app(rate_limit="1 per minute", api_auth="open").test_client()
    assert submit(client, environ_base={"REMOTE_ADDR": one}).status_code == 201
    code = submit(client, environ_base={"REMOTE_ADDR": other}).status_code
    assert code == (429 if is_one_client else 201)


def test_who_shows_a_key_is_limited_by_it_and_not_with_their_address(another_app, flask):
    client = another_app(rate_limit="1 per minute").test_client()
    words = ("access", "key", "create", "shop", "--scope", "jobs:submit")
    one, other = ({"Authorization": f"Bearer {flask(*words).stdout.strip()}"} for _ in range(2))

    def code(address, headers=None):
        return submit(client, environ_base={"REMOTE_ADDR": address}, headers=headers).status_code

    assert [code("127.0.0.1", one), code("127.0.0.2", one)] == [201, 429]
    assert [code("127.0.0.1", other), code("127.0.0.1")] == [201, 201]


def test_a_forwarded_address_is_not_believed_by_default(another_app):
    client = another_app(rate_limit="1 per minute", api_auth="open").test_client()
    codes = [submit(client, headers={"X-Forwarded-For": f"10.0.0.{n}"}).status_code for n in range(3)]
    assert codes == [201, 429, 429]


def test_a_forwarded_address_is_believed_for_the_proxies_that_are_trusted_and_no_further(another_app):
    client = another_app(rate_limit="1 per minute", trusted_proxies=1, api_auth="open").test_client()
    codes = [submit(client, headers={"X-Forwarded-For": f"10.0.0.{n}"}).status_code for n in range(2)]
    assert codes == [201, 201]
    forged = [
        submit(client, headers={"X-Forwarded-For": f"1.2.3.{n}, 10.0.0.9"}).status_code for n in range(2)
    ]
    assert forged == [201, 429]


def test_the_limit_holds_while_redis_is_away(another_app, closed_port):
    client = another_app(
        rate_limit="2 per minute", redis_url=f"redis://127.0.0.1:{closed_port}/0"
    ).test_client()
    assert [submit(client).status_code for _ in range(4)] == [201, 201, 429, 429]


def test_without_the_database_nothing_is_accepted_and_the_answer_says_so(another_app, closed_port):
    client = another_app(database_url=f"postgresql://djps:sesame@127.0.0.1:{closed_port}/djps").test_client()
    for answer in (submit(client), client.get("/jobs"), client.get("/dlq"), client.get(f"/jobs/{uuid4()}")):
        assert_problem(answer, 503)
        assert answer.headers["Retry-After"] == "1"
        assert "sesame" not in answer.text


def test_a_database_that_never_answers_is_given_up(another_app, silent_port):
    client = another_app(database_url=f"postgresql://djps:djps@127.0.0.1:{silent_port}/djps").test_client()
    started = time.monotonic()
    assert_problem(submit(client), 503)
    assert time.monotonic() - started < 5


def test_a_key_whose_first_request_is_not_through_yet_is_asked_for_again(client, engine):
    with engine.connect() as another_request:
        insert.insert_once(another_request, new_job(idempotency_key="k"), dispatched=False)
        answer = submit(client, key="k")
        assert_problem(answer, 409)
        assert answer.headers["Retry-After"] == "1"
        another_request.rollback()
    assert submit(client, key="k").status_code == 201


def test_a_bug_of_ours_is_a_problem_document_that_gives_nothing_away(app, client, monkeypatch):
    def break_down(*_, **__):
        raise RuntimeError("sesame")

    monkeypatch.setattr(app.extensions["jobs"], "page", break_down)
    answer = client.get("/jobs")
    assert_problem(answer, 500)
    assert "sesame" not in answer.text


def test_a_database_without_our_tables_is_an_error_inside_and_no_2xx(client, engine):
    with engine.begin() as connection:
        connection.execute(
            text("ALTER TABLE jobs RENAME TO elsewhere; ALTER TABLE jobs_living RENAME TO elsewhere_living")
        )
    try:
        for answer in (submit(client), submit(client, key="k"), client.get("/jobs")):
            assert_problem(answer, 500)
            assert "elsewhere" not in answer.text
    finally:
        with engine.begin() as connection:
            connection.execute(
                text(
                    "ALTER TABLE elsewhere RENAME TO jobs; ALTER TABLE elsewhere_living RENAME TO jobs_living"
                )
            )


def test_times_are_those_of_the_database(client, engine):
    row = queued(engine)
    age(engine, "created_at", 3_600, row.id)
    created = datetime.fromisoformat(client.get(f"/jobs/{row.id}").json["created_at"])
    assert (row.created_at - created).total_seconds() == 3_600
