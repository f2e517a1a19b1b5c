"""A handler submits jobs: as a request would, of its tenant and trace, and under a name only once, however often it is tried."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from factories import attempts_of, claimed, ended, new_job, queued, row_of, waiting
from several_tenants import MINE, OTHER, SHARED, made
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from tasks.attempt.run import _front_of
from tasks.chunk import execute_jobs
from tasks.execution import execute_job
from tasks.processes import forks
from tasks.runtime import submissions
from webapp.flow.admission import Bounds
from webapp.flow.limits import Limits, QueueLimits
from webapp.flow.tenant import kept
from webapp.jobs import control
from webapp.jobs.children import Children, key_of
from webapp.jobs.errors import AttemptOver, OptionRefused
from webapp.jobs.options import Terms
from webapp.jobs.submitter import SomeRefused


@pytest.fixture
def run(handle, engine):
    """Runs attempts of a job whose handler is `function`; gives the job's id."""

    def once(function, **changes):
        name = handle(function)
        row = queued(engine, task=name, payload={"task": name}, **changes)
        again(engine, row.id)
        return row.id

    return once


def again(engine, job_id):
    """One more attempt of a job, which is due now."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET run_at = now() WHERE id = :id"), {"id": job_id})
    ended(execute_job, str(job_id))


@pytest.fixture
def children_of(parts, engine):
    """What submits from inside a job that runs."""

    def of(claim):
        return Children(claim.id, claim.attempt, lambda: _front_of(parts, claim, None))

    return of


def children(engine):
    with engine.connect() as connection:
        statement = "SELECT id FROM jobs WHERE idempotency_key LIKE '%child:%' ORDER BY id"
        return [row_of(engine, one) for one in connection.execute(text(statement)).scalars()]


def test_a_child_is_stored_as_a_request_would_have_it_and_sent_at_once(run, engine, redis):
    told = []
    at = datetime.now(UTC) + timedelta(hours=1)

    def submit(payload, context):
        told.append(context.submit({"task": "noop", "n": 1}, tags=["a"], priority=7))
        told.append(context.submit({"task": "noop"}, run_at=at, key="ada", backoff={"base": 2}, timeout=9))

    trace = "00-00000000000000000000000000000001-0000000000000002-01"
    parent = run(submit, request_id="r-1", traceparent=trace)
    first, later = (row_of(engine, one.id) for one in told)
    assert [one.created for one in told] == [True, True]
    assert (first.payload, first.priority, first.tags, first.queue) == (
        {"task": "noop", "n": 1},
        7,
        ["a"],
        "default",
    )
    assert (later.run_at, later.key, later.backoff, later.timeout) == (at, "ada", {"base": 2}, 9.0)
    assert str(first.id) in " ".join(waiting(redis))
    assert later.dispatched_at is None
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT request_id, traceparent FROM jobs WHERE id <> :id"), {"id": parent}
        )
        assert set(map(tuple, rows)) == {("r-1", trace)}


def test_a_named_child_is_submitted_once_over_all_attempts_and_an_unnamed_one_by_each(run, engine):
    told = []

    def submit(payload, context):
        told.append(context.submit({"task": "noop"}, name="receipt"))
        context.submit({"task": "noop", "of": context.attempt})
        context.submit_many([{"payload": {"task": "noop", "page": n}} for n in range(3)], name="page")
        raise ValueError("after the children")

    parent = run(submit)
    again(engine, parent)
    again(engine, parent)
    assert [one.created for one in told] == [True, False, False]
    assert len({one.id for one in told}) == 1
    keys = [one.idempotency_key.removeprefix(f"child:{parent}") for one in children(engine)]
    unnamed = [f"#{attempt}.{os.getpid()}.1" for attempt in (1, 2, 3)]
    assert sorted(keys) == [*unnamed, ":page.0", ":page.1", ":page.2", ":receipt"]
    assert len(attempts_of(engine, parent)) == 3


def test_a_coroutine_submits_and_so_does_each_job_of_a_chunk(handle, engine):
    async def submit(payload, context):
        context.submit({"task": "noop"}, name="a")

    def sync(payload, context):
        context.submit({"task": "noop"}, name="a")

    for function in (submit, sync):
        name = handle(function)
        ids = [queued(engine, task=name, payload={"task": name}).id for _ in range(3)]
        execute_jobs.run(list(map(str, ids)))
        assert {row_of(engine, one).status for one in ids} == {"completed"}
        assert {key_of(one, "a") for one in ids} <= {one.idempotency_key for one in children(engine)}


def test_a_name_that_was_used_for_another_request_is_refused_and_the_attempt_fails(run, engine):
    def submit(payload, context):
        context.submit({"task": "noop", "attempt": context.attempt}, name="receipt")
        if context.attempt == 1:
            raise ValueError("first")

    parent = run(submit)
    again(engine, parent)
    assert "was used with another request" in row_of(engine, parent).last_error
    assert len(children(engine)) == 1


def test_a_child_is_of_its_parents_tenant_and_key(app, parts, engine, handle, children_of):
    tenants = made(app, engine, MINE, OTHER)
    handle(lambda _payload, _context: None, queue=SHARED)
    handle(lambda _payload, _context: None, queue=f"{OTHER}.own")
    claim = claimed(engine, tenant=tenants[MINE], submitted_by=41)
    inside = children_of(claim)
    one = inside.submit({"task": "noop"}, "x", {"key": "ada", "queue": SHARED})
    row = row_of(engine, one.id)
    assert (row.tenant, row.submitted_by, row.key, row.queue) == (MINE, 41, "ada", SHARED)
    with engine.connect() as connection:
        stored = connection.execute(
            text("SELECT key, idempotency_key FROM jobs WHERE id = :id"), {"id": one.id}
        ).one()
    assert stored == (kept(tenants[MINE].id, "ada"), kept(tenants[MINE].id, key_of(claim.id, "x")))
    with pytest.raises(OptionRefused, match="queue must be one that workers listen to"):
        inside.submit({"task": "noop"}, None, {"queue": f"{OTHER}.own"})
    # The same key of the default tenant's is another one.
    assert children_of(claimed(engine)).submit({"task": "noop"}, None, {"idempotency_key": "k"}).created
    assert inside.submit({"task": "noop"}, None, {"idempotency_key": "k"}).created


@pytest.mark.parametrize(
    ("payload", "options", "said"),
    [
        ({"task": "noop"}, {"priority": 10}, "priority must be at most 9; given: '10'"),
        ({"task": "noop"}, {"colour": "red"}, "colour is not a field of this request; given: 'red'"),
        ({"task": "noop"}, {"run_at": datetime(2030, 1, 1)}, "run_at must be a time with an offset"),  # noqa: DTZ001
        ({"task": "noop"}, {"delay": timedelta(seconds=-1)}, "delay must be at least 0; given: '-1.0'"),
        ({"task": "noop"}, {"queue": "unheard"}, "queue must be one that workers listen to"),
        ({"task": "noop"}, {"idempotency_key": ""}, "idempotency_key must have at least 1 characters"),
        ({"task": "noop", "x": object()}, {}, "payload must be JSON (Object of type object"),
        ({"task": "noop", "x": float("nan")}, {}, "payload must be JSON (Out of range float"),
        ({"task": "noop", "x": "a\0"}, {}, "payload.x must not contain"),
        ({"task": "noop", "x": 2**63}, {}, "payload payload.x must be an integer of at most 64 bits"),
        ({"task": "noop", "x": "y" * 2**18}, {}, "payload must have at most 262144 bytes of JSON"),
        ([], {}, "payload must be a JSON object; given: 'list'"),
        ({"task": "noop"}, {"name": "x", "idempotency_key": "y"}, "name must not be given together with"),
        ({"task": "noop"}, {"name": "a\nb"}, "name must be a printable text of 1 to 200 characters"),
        ({"task": "noop"}, {"name": ""}, "name must be a printable text of 1 to 200 characters"),
        ({"task": "noop"}, {"name": "n" * 201}, "name must be a printable text of 1 to 200 characters"),
    ],
    ids=str,
)
def test_what_breaks_a_rule_is_said_in_one_sentence_and_stores_nothing(
    children_of, engine, payload, options, said
):
    rest = {name: value for name, value in options.items() if name != "name"}
    with pytest.raises(OptionRefused) as refused:
        children_of(claimed(engine)).submit(payload, options.get("name"), rest)
    assert said in str(refused.value)
    assert children(engine) == []


def test_the_longest_name_fits(children_of, engine):
    claim = claimed(engine)
    assert children_of(claim).submit({"task": "noop"}, "n" * 200, {}).created
    many = [{"payload": {"task": "noop", "n": n}} for n in range(2)]
    assert len(children_of(claim).submit_many(many, "m" * 200)) == 2


def test_of_many_all_are_checked_before_one_is_stored(children_of, engine):
    inside = children_of(claimed(engine))
    given = [{"payload": {"task": "noop"}}, {"payload": {"task": "noop"}, "priority": -1}]
    with pytest.raises(OptionRefused, match=r"^jobs\.1\.priority must be at least 0"):
        inside.submit_many(given, None)
    with pytest.raises(OptionRefused, match=r"^jobs\.0 must be a mapping"):
        inside.submit_many(["noop"], None)
    with pytest.raises(OptionRefused, match=r"^jobs must have at most 10000 items"):
        inside.submit_many([{}] * 10_001, None)
    assert inside.submit_many([], None) == []
    assert children(engine) == []


def test_what_is_refused_of_many_does_not_keep_the_others_from_being_stored(children_of, engine):
    inside = children_of(claimed(engine))
    given = [
        {"payload": {"task": "noop"}, "name": "a"},
        {"payload": {"task": "noop"}, "queue": "unheard", "name": "b"},
        {"payload": {"task": "noop"}, "name": "a"},
    ]
    with pytest.raises(
        SomeRefused, match=r"1 of 3 jobs were refused and the others are stored; jobs\.1: queue"
    ) as some:
        inside.submit_many(given, None)
    first, refused, repeated = some.value.answers
    assert (first.created, repeated.created, first.id == repeated.id) == (True, False, True)
    assert isinstance(refused, OptionRefused)
    assert len(children(engine)) == 1


def test_a_full_queue_refuses_and_the_attempt_is_tried_again(run, engine, limit):
    limit(QueueLimits(bounds=Bounds(max_depth=1)))
    queued(engine)

    def submit(payload, context):
        context.submit({"task": "noop"}, name="x")

    parent = run(submit)
    assert row_of(engine, parent).status == "queued"
    assert attempts_of(engine, parent)[0]["error_type"] == "webapp.jobs.errors.QueueFull"
    assert children(engine) == []


def test_a_database_that_is_away_is_an_error_that_is_tried_again(run, engine, closed_port, monkeypatch):
    away = create_engine(engine.url.set(port=closed_port))

    def submit(payload, context):
        if context.attempt == 1:
            monkeypatch.setattr(submissions(), "_engine", away)
        context.submit({"task": "noop"}, name="x")

    parent = run(submit)
    assert attempts_of(engine, parent)[0]["error_type"] == "sqlalchemy.exc.OperationalError"
    monkeypatch.undo()
    again(engine, parent)
    assert row_of(engine, parent).status == "completed"
    assert [one.idempotency_key for one in children(engine)] == [key_of(parent, "x")]


def test_an_attempt_that_lost_its_lease_submits_nothing(children_of, engine):
    claim = claimed(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET attempt = attempt + 1 WHERE id = :id"), {"id": claim.id})
    with pytest.raises(AttemptOver, match=f"attempt 1 of job {claim.id} does not run any more"):
        children_of(claim).submit({"task": "noop"}, "x", {})


def test_threads_of_a_handler_submit_at_once_and_each_child_is_another(children_of, engine):
    inside = children_of(claimed(engine))
    told, errors = [], []

    def submit():
        try:
            told.append(inside.submit({"task": "noop"}, None, {}))
        except SQLAlchemyError as error:
            errors.append(error)

    threads = [threading.Thread(target=submit) for _ in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(20)
    assert (len({one.id for one in told}), errors) == (6, [])


def test_a_process_that_the_handler_forks_submits_as_well(run, engine):
    def submit(payload, context):
        context.submit({"task": "noop"}, name="before")
        child = os.fork()
        if child == 0:
            try:
                forks._let_go([])
                context.submit({"task": "noop"}, name="in the copy")
                os._exit(not context.submit({"task": "noop"}).created)
            except BaseException:  # noqa: BLE001 - a copy of the test must not go on
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        context.submit({"task": "noop"}, name="after")
        assert context.submit({"task": "noop"}).created

    parent = run(submit)
    assert row_of(engine, parent).status == "completed"
    keys = {one.idempotency_key.rpartition(":")[2]: one for one in children(engine)}
    assert len(keys) == 5
    made = {name: one.dispatched_at is not None for name, one in keys.items() if "#" not in name}
    assert made == {"before": True, "in the copy": False, "after": True}


def test_an_attempt_that_submits_nothing_asks_for_nothing(run, engine):
    asked = []

    def look(payload, context):
        asked.append(context.children._front)

    run(look)
    assert asked == [None]


def test_a_child_of_a_cancelled_parent_stays(run, engine):
    def submit(payload, context):
        context.submit({"task": "noop"}, name="x")
        with engine.begin() as connection:
            control.cancel(connection, context.job_id, "enough")
        context.check_cancelled()

    parent = run(submit)
    assert row_of(engine, parent).status == "cancelled"
    assert [one.status for one in children(engine)] == ["queued"]


def test_the_child_of_a_lane_waits_in_it(engine, limit, children_of):
    limit(QueueLimits(Limits(1)))
    one = children_of(claimed(engine)).submit({"task": "noop"}, None, {})
    with engine.connect() as connection:
        statement = text("SELECT lane IS NOT NULL FROM jobs WHERE id = :id")
        assert connection.execute(statement, {"id": one.id}).scalar_one()


def test_keys_of_children_do_not_meet():
    parent = uuid4()
    assert key_of(parent, "1") != key_of(uuid4(), "1")
    assert new_job(terms=Terms(key="a")).key == "a"
