"""`djps_submit`: a job exists exactly when its caller's own writes do, and is held to the rules of a request."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg2
import psycopg2.errors
import pytest
from factories import attempts_of, books, ended, preparing, queued, row_of
from hypothesis import HealthCheck, given
from hypothesis import settings as tried
from hypothesis import strategies as st
from pydantic import BaseModel
from several_tenants import made
from sqlalchemy import text
from sqlalchemy.engine import make_url

from tasks.execution import execute_job
from tasks.sweeps import dispatch
from webapp.flow.admission import Bounds
from webapp.flow.limits import Limits, QueueLimits
from webapp.flow.reach import EVERYTHING
from webapp.infra.telemetry import metrics
from webapp.jobs import known, store
from webapp.jobs.handlers import registry
from webapp.jobs.request import SubmitRequest
from webapp.jobs.submission import Limits as JobLimits
from webapp.jobs.submission import fingerprint

ROLE, WORD = "djps_shop", "shop"


@pytest.fixture
def tell(app, engine, parts):
    """Tells the database what handlers there are, as a maintenance worker does."""

    def once(**changes):
        limits = JobLimits.of(parts.settings)
        rules = known.rules_of(registry, limits, parts.settings.max_payload_bytes) | changes
        with engine.begin() as connection:
            return known.tell(connection, rules | {"stamp": str(changes) if changes else rules["stamp"]})

    return once


@pytest.fixture
def told(tell):
    tell()


@pytest.fixture
def shop(app, engine):
    """A role that may call the function, and nothing else; and a table of its own."""
    with preparing(engine) as connection:
        connection.execute(text(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{WORD}'"))
        connection.execute(text(f"GRANT EXECUTE ON FUNCTION djps_submit TO {ROLE}"))
        connection.execute(text(f"CREATE SCHEMA {ROLE} AUTHORIZATION {ROLE}"))
        connection.execute(text(f"CREATE TABLE {ROLE}.orders (id int PRIMARY KEY)"))
        connection.execute(text(f"ALTER TABLE {ROLE}.orders OWNER TO {ROLE}"))
    yield
    with preparing(engine) as connection:
        connection.execute(text(f"DROP OWNED BY {ROLE} CASCADE; DROP ROLE {ROLE}"))


@pytest.fixture
def session(shop, settings):
    """Opens sessions of the role, past all of DJPS."""
    opened = []

    def one():
        url = make_url(settings.database_url).set(drivername="postgresql", username=ROLE, password=WORD)
        opened.append(psycopg2.connect(url.render_as_string(hide_password=False)))
        return opened[-1]

    yield one
    for connection in opened:
        connection.close()


@pytest.fixture
def session_told(told, session):
    return session()


@pytest.fixture
def turned(client, app):
    """Pauses or resumes the default queue, known at once to every process."""

    def turn(how):
        assert client.post(f"/queues/default/{how}", json={"why": "a test"}).status_code == 200
        for book in books(app):
            book.forget()

    return turn


def submit(connection, payload, **options):
    """Calls the function in the session's transaction."""
    named = "".join(f', "{name}" => %({name})s' for name in options)
    values = {
        name: json.dumps(value) if name in {"backoff", "unique"} else value for name, value in options.items()
    }
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT djps_submit(%(payload)s{named})", values | {"payload": json.dumps(payload)})
        return UUID(cursor.fetchone()[0])


def ask(connection, sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else None


def jobs_in(engine):
    with engine.connect() as connection:
        return connection.execute(text("SELECT count(*) FROM jobs")).scalar_one()


NOOP = {"task": "noop"}


def test_a_committed_job_is_sent_by_the_next_look_and_runs_and_a_rolled_back_one_never_was(
    told, session, engine, parts
):
    shop = session()
    ask(shop, "INSERT INTO orders VALUES (1)")
    kept = submit(shop, NOOP | {"order": 1}, priority=7, tags=["a", "b"], key="ada", timeout=9, max_retries=2)
    assert jobs_in(engine) == 0
    shop.commit()
    ask(shop, "INSERT INTO orders VALUES (2)")
    lost = submit(shop, NOOP | {"order": 2})
    shop.rollback()
    assert dispatch.run_dispatch(parts) == 1
    row = row_of(engine, kept)
    assert (row.payload, row.priority, row.tags, row.key, row.timeout, row.max_retries) == (
        {"task": "noop", "order": 1},
        7,
        ["a", "b"],
        "ada",
        9.0,
        2,
    )
    assert (row.task, row.queue, row.tenant, row.submitted_by) == ("noop", "default", "default", None)
    ended(execute_job, str(kept))
    assert row_of(engine, kept).status == "completed"
    with engine.connect() as connection:
        assert store.find(connection, lost, EVERYTHING) is None
    assert ask(shop, "SELECT id FROM orders") == [(1,)]


def test_ids_tell_their_age_and_grow(told, session):
    shop = session()
    before = datetime.now(UTC) - timedelta(seconds=2)
    ids = [submit(shop, NOOP) for _ in range(20)]
    times = [datetime.fromtimestamp((one.int >> 80) / 1000, UTC) for one in ids]
    assert {one.version for one in ids} == {7}
    assert {one.variant for one in ids} == {"specified in RFC 4122"}
    assert before < times[0] <= times[-1] < datetime.now(UTC) + timedelta(seconds=2)
    assert times == sorted(times)
    assert len(set(ids)) == 20


@pytest.mark.parametrize(
    "forbidden",
    [
        "SELECT * FROM jobs",
        "SELECT * FROM jobs_living",
        "SELECT * FROM idempotency_keys",
        "SELECT * FROM access_secrets",
        "SELECT * FROM known_handlers",
        "UPDATE queues SET paused_at = now()",
        "DELETE FROM jobs_living",
        "INSERT INTO known_handlers VALUES ('x', 'default')",
        "SELECT djps_take_key('a', '', gen_random_uuid(), 1)",
        "SELECT djps_refuse('a', 'b', 'c')",
        "CREATE TABLE public.mine (a int)",
    ],
)
def test_a_role_with_execute_can_do_nothing_else(told, session, forbidden):
    shop = session()
    assert submit(shop, NOOP)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        ask(shop, forbidden)


def test_a_role_without_it_cannot_call_it(told, session, engine):
    with preparing(engine) as connection:
        connection.execute(text(f"REVOKE EXECUTE ON FUNCTION djps_submit FROM {ROLE}"))
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        submit(session(), NOOP)


def test_objects_of_the_caller_by_our_names_are_not_taken_for_ours(told, session, engine):
    shop = session()
    ask(shop, "CREATE TEMP TABLE queues (name text, max_depth int)")
    ask(shop, "CREATE TEMP TABLE known_handlers (task text)")
    ask(shop, "CREATE FUNCTION djps_shop.to_json(text) RETURNS json LANGUAGE sql AS $$ SELECT '1'::json $$")
    ask(shop, "SET search_path = djps_shop, pg_temp, public")
    job_id = submit(shop, NOOP, idempotency_key="k")
    shop.commit()
    assert row_of(engine, job_id).queue == "default"


CENTURY = datetime.now(UTC) + timedelta(days=40_000)
PAST = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("payload", "options", "said"),
    [
        ([], {}, "payload must be a JSON object; given: 'array'"),
        (None, {}, "payload must be a JSON object; given: 'null'"),
        ({"task": "noop", "x": "y" * 2**18}, {}, "payload must have at most 262144 bytes of JSON"),
        ({"task": "noop", "x": 2**63}, {}, "payload must hold no number beyond 64 bits"),
        ({"task": "noop", "x": [{"y": -(2**64)}]}, {}, "payload must hold no number beyond 64 bits"),
        (NOOP, {"priority": 10}, "priority must be 0 to 9; given: '10'"),
        (NOOP, {"priority": -1}, "priority must be 0 to 9; given: '-1'"),
        (NOOP, {"key": ""}, "key must have 1 to 200 characters"),
        (NOOP, {"key": "\x1f7\x1fa"}, "key must have 1 to 200 characters and not begin with \\u001f"),
        (NOOP, {"run_at": CENTURY}, "run_at must be at most 100 years ahead"),
        (NOOP, {"run_at": "infinity"}, "run_at must be at most 100 years ahead"),
        (NOOP, {"delay": -1}, "delay must be 0 to 3155760000; given: '-1'"),
        (NOOP, {"delay": float("nan")}, "delay must be 0 to 3155760000; given: 'NaN'"),
        (NOOP, {"delay": 1, "run_at": PAST}, "delay must not be given together with run_at"),
        (NOOP, {"max_retries": 101}, "max_retries must be 0 to 100; given: '101'"),
        (NOOP, {"timeout": 0}, "timeout must be more than 0 and at most 86400; given: '0'"),
        (NOOP, {"timeout": float("inf")}, "timeout must be more than 0"),
        (NOOP, {"expires_at": PAST}, "expires_at must be after now"),
        (
            NOOP,
            {"expires_at": datetime.now(UTC) + timedelta(60), "delay": 90 * 86_400},
            "expires_at must be after now",
        ),
        (NOOP, {"tags": ["a"] * 2}, "tags must not name a tag twice; given: 'a'"),
        (NOOP, {"tags": [str(n) for n in range(21)]}, "tags must have at most 20 items; given: '21'"),
        (NOOP, {"tags": [" a"]}, "tags must be printable texts of 1 to 64 characters"),
        (NOOP, {"tags": ["a\u200bb"]}, "tags must be printable texts of 1 to 64 characters"),
        (NOOP, {"tags": [None]}, "tags must be printable texts of 1 to 64 characters"),
        (NOOP, {"backoff": []}, "backoff must have 1 to 100 items"),
        (NOOP, {"backoff": [-1]}, "backoff must be waits of 0 to 2592000 seconds; given: '-1'"),
        (NOOP, {"backoff": 5}, "backoff must be an array of seconds, or an object"),
        (NOOP, {"backoff": {"base": 0}}, "backoff.base must be 1 to 100; given: '0'"),
        (NOOP, {"backoff": {"bass": 1}}, "backoff.bass is not a field of this request"),
        (NOOP, {"callback_url": "ftp://example.org"}, "callback_url must be an http:// or https:// URL"),
        (
            NOOP,
            {"callback_url": "https://a:b@example.org"},
            "callback_url must be an http:// or https:// URL",
        ),
        (NOOP, {"idempotency_key": "k" * 256}, "idempotency_key must have 1 to 255 characters"),
        (NOOP, {"traceparent": "00-0-0-00"}, "traceparent must be a W3C traceparent"),
        (NOOP, {"queue": "unheard"}, "queue must be one that workers listen to (default"),
        (NOOP, {"unique": {"key": "a"}}, "unique is not taken in a transaction of yours"),
    ],
    ids=str,
)
def test_what_breaks_a_rule_is_said_in_one_sentence_and_stores_nothing(
    session_told, engine, payload, options, said
):
    shop = session_told
    with pytest.raises(psycopg2.Error) as refused:
        submit(shop, payload, **options)
    assert said in refused.value.diag.message_primary
    assert refused.value.pgcode == "DJ422"
    assert refused.value.diag.column_name == said.partition(" ")[0]
    shop.rollback()
    assert jobs_in(engine) == 0


def nested(depth):
    value = {}
    for _ in range(depth - 1):
        value = {"x": value}
    return value


def test_nesting_is_counted_as_over_http(told, session):
    shop = session()
    assert submit(shop, {"task": "noop"} | nested(64))
    with pytest.raises(psycopg2.Error, match="deeper than 64 levels"):
        submit(shop, {"task": "noop"} | nested(65))


def test_an_unknown_task_names_those_there_are_or_goes_to_the_default(told, tell, session, engine):
    shop = session()
    tell(only_known=True)
    said = r"payload\.task must name a registered handler \(.*noop.*\); given: 'nop'"
    with pytest.raises(psycopg2.Error, match=said):
        submit(shop, {"task": "nop"})
    shop.rollback()
    tell(only_known=False, default_task="simulated")
    job_id = submit(shop, {"task": "nop"})
    other = submit(shop, {"a": 1})
    shop.commit()
    assert {row_of(engine, one).task for one in (job_id, other)} == {"simulated"}


def test_before_any_process_has_told_of_handlers_it_is_said_so(session, app):
    with pytest.raises(psycopg2.Error, match="no process of DJPS has said yet") as refused:
        submit(session(), NOOP)
    assert refused.value.pgcode == "DJ503"


def test_a_handlers_own_terms_go_for_what_is_not_asked(handle, tell, session, engine):
    name = handle(
        lambda payload, context: None,
        queue="slow",
        max_retries=7,
        timeout=11.0,
        priority=8,
        backoff=[1, 2],
        tags=("h", "a"),
        expires_in=60.0,
    )
    tell()
    shop = session()
    plain = submit(shop, {"task": name})
    asked = submit(
        shop, {"task": name}, queue="default", priority=1, backoff={"base": 3}, tags=["a", "b"], delay=90
    )
    shop.commit()
    first, second = row_of(engine, plain), row_of(engine, asked)
    assert (first.queue, first.max_retries, first.timeout, first.priority, first.backoff, first.tags) == (
        "slow",
        7,
        11.0,
        8,
        [1, 2],
        ["h", "a"],
    )
    assert (first.expires_at - first.run_at).total_seconds() == pytest.approx(60, abs=0.001)
    assert (second.queue, second.priority, second.backoff, second.tags) == (
        "default",
        1,
        {"base": 3},
        ["a", "b", "h"],
    )
    assert 85 < (second.run_at - datetime.now(UTC)).total_seconds() <= 90


class Page(BaseModel):
    depth: int


def test_a_payload_that_does_not_fit_its_model_fails_in_the_worker_for_good(handle, tell, session, engine):
    name = handle(lambda payload, context: payload["depth"], model=Page, max_retries=5)
    tell()
    shop = session()
    fits, bad = submit(shop, {"task": name, "depth": 1}), submit(shop, {"task": name, "depth": "deep"})
    shop.commit()
    for one in (fits, bad):
        ended(execute_job, str(one))
    assert row_of(engine, fits).result == 1
    (attempt,) = attempts_of(engine, bad)
    error = (attempt["error_message"], attempt["death_reason"])
    assert error == ("payload.depth must be an integer; given: 'deep'", "discarded")


# ---- idempotency keys ----


def test_the_same_request_is_one_job_whichever_way_it_comes(told, session, client):
    shop = session()
    body = {"payload": {"task": "noop", "n": 1}, "idempotency_key": "order-1", "priority": 7}
    by_http = client.post("/jobs", json=body).json["id"]
    assert str(submit(shop, {"n": 1, "task": "noop"}, idempotency_key="order-1", priority=7)) == by_http
    shop.commit()
    by_sql = str(submit(shop, {"task": "noop"}, idempotency_key="order-2", delay=60, tags=["a"]))
    shop.commit()
    again = client.post(
        "/jobs", json={"payload": {"task": "noop"}, "idempotency_key": "order-2", "delay": 60, "tags": ["a"]}
    )
    assert (again.status_code, again.json["id"]) == (200, by_sql)


def test_a_key_of_another_request_is_refused(told, session):
    shop = session()
    first = submit(shop, NOOP, idempotency_key="k")
    with pytest.raises(
        psycopg2.Error, match=f"idempotency_key 'k' was used with another request, for job {first}"
    ):
        submit(shop, NOOP | {"n": 1}, idempotency_key="k")


def test_a_key_that_ran_out_is_free_and_one_of_a_deleted_job_is_not(told, session, engine):
    shop = session()
    first = submit(shop, NOOP, idempotency_key="k")
    shop.commit()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": first})
    with pytest.raises(psycopg2.Error, match="was deleted for its age") as gone:
        submit(shop, NOOP, idempotency_key="k")
    assert gone.value.pgcode == "DJ410"
    shop.rollback()
    with engine.begin() as connection:
        connection.execute(text("UPDATE idempotency_keys SET expires_at = now() - interval '1 s'"))
    second = submit(shop, NOOP, idempotency_key="k")
    shop.commit()
    assert second != first
    assert submit(shop, NOOP, idempotency_key="k") == second


def test_a_key_finds_its_job_after_its_end_and_after_its_task_is_gone(told, tell, session, engine):
    shop = session()
    first = submit(shop, NOOP, idempotency_key="k")
    shop.commit()
    ended(execute_job, str(first))
    assert submit(shop, NOOP, idempotency_key="k") == first
    shop.commit()
    tell(only_known=True, handlers=json.dumps([]))
    assert submit(shop, NOOP, idempotency_key="k") == first


def test_fifty_callers_with_one_key_make_one_job_and_a_rollback_frees_it(told, session, engine):
    first = session()
    lost = submit(first, NOOP, idempotency_key="k")
    barrier = threading.Barrier(50, timeout=30)
    sessions = [session() for _ in range(50)]

    def one(shop):
        barrier.wait()
        job_id = submit(shop, NOOP, idempotency_key="k")
        shop.commit()
        return job_id

    with ThreadPoolExecutor(50) as pool:
        answers = [pool.submit(one, shop) for shop in sessions]
        # They wait for the first one, which takes its job back.
        threading.Timer(0.3, first.rollback).start()
        ids = {answer.result(60) for answer in answers}
    assert len(ids) == 1
    assert lost not in ids
    assert jobs_in(engine) == 1


TEXTS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00"), max_size=8)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(-1e15, 1e15).filter(
    lambda x: "e" not in repr(x) and repr(x) != "-0.0"
)
VALUES = st.recursive(
    st.none() | st.booleans() | TEXTS | NUMBERS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@contextmanager
def asking(engine):
    with engine.connect() as connection:
        yield lambda sql, **values: connection.exec_driver_sql(sql, values).scalar()


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
@tried(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_request_is_told_by_the_same_fingerprint_as_over_http(app, engine, payload):
    same = fingerprint(SubmitRequest.model_validate({"payload": payload}).submission(None))
    with asking(engine) as of:
        sql = "SELECT sha256(convert_to(djps_canonical(%(payload)s::jsonb), 'UTF8'))"
        assert bytes(of(sql, payload=json.dumps(payload))) == same


@given(st.floats(-1e15, 1e15).filter(lambda x: repr(x) != "-0.0"))
@tried(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_floats_are_written_as_python_writes_them(app, engine, value):
    with asking(engine) as of:
        assert of("SELECT djps_float(%(value)s)", value=value) == repr(value)


@pytest.mark.parametrize(
    "options",
    [
        {"priority": 0, "delay": 0, "max_retries": 0},
        {"delay": 1e15 / 1e6, "timeout": 0.1, "key": "Zürich\U0001f600"},
        {
            "run_at": "2030-01-01T08:00:00.000120+01:00",
            "expires_at": "2031-01-01T00:00:00Z",
            "queue": "default",
        },
        {"backoff": [1, 2.5], "tags": ["b", "a"], "callback_url": "https://example.org/?a=b&c"},
        {"backoff": {"base": 3, "max": None}, "tags": []},
        {},
    ],
    ids=str,
)
def test_options_are_told_by_the_same_fingerprint_as_over_http(told, session, engine, options):
    shop = session()
    job_id = submit(shop, NOOP, idempotency_key="k", **options)
    shop.commit()
    same = fingerprint(SubmitRequest.model_validate({"payload": NOOP, **options}).submission("k"))
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT fingerprint FROM jobs WHERE id = :id"), {"id": job_id}
        ).scalar()
    assert bytes(found) == same


# ---- queues ----


def test_a_paused_queue_takes_jobs_that_wait(session_told, turned, engine, parts):
    turned("pause")
    job_id = submit(session_told, NOOP)
    session_told.commit()
    assert dispatch.run_dispatch(parts) == 0
    turned("resume")
    assert dispatch.run_dispatch(parts) == 1
    assert row_of(engine, job_id).dispatched_at is not None


def test_a_queue_with_limits_files_the_job_in_its_lane(told, session, engine, limit, parts):
    limit(QueueLimits(Limits(1)))
    shop = session()
    job_id = submit(shop, NOOP, key="ada")
    shop.commit()
    dispatch.run_dispatch(parts)
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT lane = djps_lane('default', 'ada') FROM jobs WHERE id = :id"), {"id": job_id}
        )
        assert found.scalar_one()


def test_a_full_queue_refuses_also_what_this_transaction_has_filled(told, session, limit):
    limit(QueueLimits(bounds=Bounds(max_depth=3, key_max_depth=1)))
    shop = session()
    first = submit(shop, NOOP, key="ada", idempotency_key="k")
    assert submit(shop, NOOP, key="bob") != first
    shop.commit()
    with pytest.raises(psycopg2.Error, match="key 'ada' of queue 'default' is full") as full:
        submit(shop, NOOP, key="ada")
    assert full.value.pgcode == "DJ429"
    shop.rollback()
    submit(shop, NOOP)
    with pytest.raises(
        psycopg2.Error, match="queue 'default' is full: its max_depth of 3 jobs is reached"
    ) as full:
        submit(shop, NOOP)
    assert full.value.pgcode == "DJ503"
    shop.rollback()
    # One that makes no job takes no room.
    submit(shop, NOOP)
    assert submit(shop, NOOP, key="ada", idempotency_key="k") == first


def test_a_queue_whose_oldest_job_is_too_old_refuses(told, session, limit, engine):
    limit(QueueLimits(bounds=Bounds(max_age=60)))
    shop = session()
    queued(engine)
    submit(shop, NOOP)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET run_at = now() - interval '70 s'"))
    with pytest.raises(psycopg2.Error, match="its oldest due job has waited longer than its max_age of 60 s"):
        submit(shop, NOOP)


def test_another_tenants_queue_is_not_there(app, engine, handle, tell, session):
    made(app, engine, "acme")
    handle(lambda payload, context: None, queue="acme.own")
    tell()
    shop = session()
    with pytest.raises(psycopg2.Error, match="queue must be one that workers listen to") as refused:
        submit(shop, NOOP, queue="acme.own")
    assert "acme" not in refused.value.diag.message_primary.partition("; given")[0]


# ---- what the database knows ----


def test_the_database_is_told_once_and_again_after_a_change(tell, handle, engine):
    assert (tell(), tell()) == (True, False)
    name = handle(lambda payload, context: None, tags=("a",), model=Page)
    assert (tell(), tell()) == (True, False)
    with engine.connect() as connection:
        row = connection.execute(
            text("SELECT queue, tags, has_model FROM known_handlers WHERE task = :task"), {"task": name}
        )
        assert row.one() == ("default", ["a"], True)
    registry._handlers.pop(name)
    assert tell()
    with engine.connect() as connection:
        assert set(connection.execute(text("SELECT task FROM known_handlers")).scalars()) == set(
            registry.names()
        )


def test_the_dispatcher_tells_it_every_few_seconds(parts, engine, clock):
    telling = known.Telling(engine, registry, JobLimits.of(parts.settings), 262_144, clock)
    assert (telling.turn(), telling.turn()) == (True, False)
    with engine.begin() as connection:
        connection.execute(text("UPDATE submission_rules SET stamp = 'of an older release'"))
    assert not telling.turn()
    clock.now += known.LOOK_EVERY
    assert telling.turn()
    parts.telling._look_at = float("-inf")
    dispatch.run_dispatch(parts)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM submission_rules")).scalar_one() == 1


def test_a_job_that_came_over_http_is_not_checked_again(handle, engine):
    name = handle(lambda payload, context: None, model=Page)
    row = queued(engine, task=name, payload={"task": name}, request_id="sql-looks-alike")
    ended(execute_job, str(row.id))
    assert row_of(engine, row.id).status == "completed"


def created():
    return sum(
        sample.value for sample in metrics.jobs_created.collect()[0].samples if sample.name.endswith("_total")
    )


def test_jobs_are_counted_once_when_they_are_committed(told, session, parts):
    shop, before = session(), created()
    submit(shop, NOOP)
    submit(shop, NOOP)
    parts.telling._look_at = float("-inf")
    parts.telling.turn()
    assert created() == before
    shop.commit()
    for _ in range(2):
        parts.telling._look_at = float("-inf")
        parts.telling.turn()
    assert created() == before + 2
