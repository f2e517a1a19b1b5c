"""Steps that are groups of their own: a job for each value of a list, a job that fills a batch, a workflow."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from unittest.mock import Mock
from uuid import UUID

import psycopg2
import pytest
from ending import complete, end_last
from factories import ERROR
from flowing import NOOP, claim, count, done, failed, get, job_of, stand, step, steps_of, submit
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from tasks.runtime import runtime
from tasks.sweeps.count_ends import run_count
from webapp.batches.members import plain_answers
from webapp.batches.model import Member
from webapp.batches.requests import Items
from webapp.dead_letters.store import move_to_dead_letters
from webapp.flow.admission import Bounds
from webapp.flow.limits import QueueLimits
from webapp.flow.reach import EVERYTHING
from webapp.jobs.states import AttemptOutcome
from webapp.jobs.submission import Submission
from webapp.workflows import children

MAP = {
    "each": step("list", map={"step": "list", "pointer": "/ids"}),
    "sum": step("each", inputs={"all": {"step": "each"}}),
}


def go_on():
    """Has what is noted be counted, and what follows done."""
    run_count(runtime())
    runtime().advancer.turn()


def members_of(engine, child_id):
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT id, payload FROM jobs WHERE group_id = :id ORDER BY id"), {"id": child_id}
        )
        return [(row[0], row[1]) for row in rows]


def complete_one(engine, job_id, result):
    held = claim(engine, job_id)
    with engine.begin() as connection:
        assert complete(connection, held, result)


def fail_one(engine, job_id):
    held = claim(engine, job_id)
    with engine.begin() as connection:
        assert end_last(connection, held, AttemptOutcome.FAILED, ERROR)
        assert move_to_dead_letters(connection, held.id, held.attempt)


def test_a_map_has_a_job_for_each_value_and_gives_their_results_in_order(client, engine):
    number = submit(client, {"list": step(), **MAP})
    done(client, engine, number, "list", result='{"ids": [7, 8, 9]}')
    each = steps_of(client, number)["each"]
    assert (each["kind"], each["status"], each["job_id"]) == ("map", "running", None)
    members = members_of(engine, each["child_id"])
    assert [payload["item"] for _, payload in members] == [7, 8, 9]
    for job_id, payload in reversed(members):
        complete_one(engine, job_id, str(payload["item"] * 10))
    go_on()
    assert stand(client, number) == "running list:completed each:completed sum:running"
    payload = client.get(f"/jobs/{job_of(client, number, 'sum')}").json["payload"]
    assert payload["all"] == [70, 80, 90]
    assert client.get(f"/batches/{each['child_id']}").json["status"] == "completed"


@pytest.mark.parametrize(
    ("result", "ends"),
    [
        ('{"ids": []}', "running list:completed each:completed sum:running"),
        ('{"ids": {"a": 1}}', "failed list:completed each:failed sum:skipped"),
        ('{"names": []}', "failed list:completed each:failed sum:skipped"),
    ],
)
def test_a_map_over_nothing_or_over_no_list(client, engine, result, ends):
    number = submit(client, {"list": step(), **MAP})
    done(client, engine, number, "list", result=result)
    go_on()
    assert stand(client, number) == ends


def test_a_map_fails_with_a_member_and_is_retried(client, engine):
    number = submit(client, {"list": step(), **MAP})
    done(client, engine, number, "list", result='{"ids": [1, 2]}')
    (first, _), (second, _) = members_of(engine, steps_of(client, number)["each"]["child_id"])
    complete_one(engine, first, "1")
    fail_one(engine, second)
    go_on()
    assert stand(client, number) == "failed list:completed each:failed sum:skipped"
    assert client.post(f"/workflows/{number}/retry").json["status"] == "running"
    go_on()
    assert stand(client, number) == "running list:completed each:running sum:waiting"
    complete_one(engine, second, "2")
    go_on()
    assert stand(client, number) == "running list:completed each:completed sum:running"


def test_a_member_that_is_requeued_from_the_dead_letters_resumes_the_workflow(client, engine):
    number = submit(client, {"list": step(), **MAP})
    done(client, engine, number, "list", result='{"ids": [1]}')
    ((only, _),) = members_of(engine, steps_of(client, number)["each"]["child_id"])
    fail_one(engine, only)
    go_on()
    assert get(client, number)["status"] == "failed"
    assert client.post(f"/dlq/{only}/requeue").status_code == 200
    go_on()
    assert stand(client, number) == "running list:completed each:running sum:waiting"


def test_a_step_that_fills_a_batch_ends_with_all_of_it(client, engine):
    steps = {"fill": step(batch=True), "after": step("fill", inputs={"said": {"step": "fill"}})}
    number = submit(client, steps)
    fill = steps_of(client, number)["fill"]
    child, job_id = UUID(fill["child_id"]), UUID(fill["job_id"])
    held = claim(engine, job_id)

    batches = client.application.extensions["batches"]
    items = Items([Submission(NOOP), Submission(NOOP)], plain_answers, b"1")
    batches.add(child, "a", items, EVERYTHING, member=Member(job_id, held.attempt))
    with engine.begin() as connection:
        complete(connection, held, '{"rows": 2}')
    go_on()
    assert stand(client, number) == "running fill:running after:waiting"
    for member, _ in members_of(engine, child):
        if member != job_id:
            complete_one(engine, member, None)
    go_on()
    assert stand(client, number) == "running fill:completed after:running"
    assert client.get(f"/jobs/{job_of(client, number, 'after')}").json["payload"]["said"] == {"rows": 2}


INNER = {"workflow": {"name": "inner", "steps": {"a": step(), "b": step("a")}}}


def test_a_workflow_may_be_a_step(client, engine):
    number = submit(client, {"first": step(), "inner": {"after": ["first"], **INNER}, "last": step("inner")})
    done(client, engine, number, "first")
    inner = steps_of(client, number)["inner"]
    child = inner["child_id"]
    assert (inner["kind"], get(client, child)["parent_id"], get(client, child)["name"]) == (
        "workflow",
        number,
        "inner",
    )
    assert (
        client.get(f"/workflows/{number}/steps/inner")
        .json["sentence"]
        .startswith(f"It is the workflow {child}")
    )
    done(client, engine, child, "a")
    assert stand(client, number).endswith("inner:running last:waiting")
    done(client, engine, child, "b")
    runtime().advancer.turn()
    assert stand(client, number) == "running first:completed inner:completed last:running"


def test_an_inner_workflow_fails_is_retried_and_is_cancelled_with_the_outer_one(client, engine):
    number = submit(client, {"inner": dict(INNER), "last": step("inner")})
    child = steps_of(client, number)["inner"]["child_id"]
    failed(client, engine, child, "a")
    runtime().advancer.turn()
    assert (get(client, child)["status"], stand(client, number)) == (
        "failed",
        "failed inner:failed last:skipped",
    )
    assert client.post(f"/workflows/{number}/retry").json["status"] == "running"
    assert stand(client, child) == "running a:running b:waiting"
    assert stand(client, number) == "running inner:running last:waiting"
    assert client.post(f"/workflows/{number}/cancel").status_code == 200
    for _ in range(3):
        runtime().advancer.turn()
    assert stand(client, child) == "cancelled a:cancelled b:skipped"
    assert stand(client, number) == "cancelled inner:cancelled last:skipped"
    assert count(engine, "SELECT count(*) FROM group_ends") == 0


def test_a_map_that_is_cancelled(client, engine):
    number = submit(client, {"list": step(), **MAP})
    done(client, engine, number, "list", result='{"ids": [1, 2]}')
    child = UUID(steps_of(client, number)["each"]["child_id"])
    assert client.post(f"/workflows/{number}/cancel").json["status"] == "cancelling"
    runtime().keeper.go_on_cancelling()
    go_on()
    go_on()
    assert stand(client, number) == "cancelled list:completed each:cancelled sum:skipped"
    assert client.get(f"/batches/{child}").json["cancelled"] == 2


@pytest.mark.parametrize(
    ("steps", "field"),
    [
        ({"a": step(map={"step": "b"})}, "steps.a.map.step"),
        ({"a": step(), "b": step("a", map={"step": "a"}, batch=True)}, "steps.b.batch"),
        ({"a": step(), "b": step("a", map={"step": "a", "as": "task"})}, "steps.b.map.as"),
        ({"a": {"payload": NOOP, **INNER}}, "steps.a.workflow"),
        ({"a": {"queue": "default", **INNER}}, "steps.a.workflow"),
        ({"a": {"workflow": {"steps": {"x": step("y")}}}}, "steps.a.workflow.steps.x.after.0"),
        ({"a": {"workflow": {"steps": {"x": step(queue="nowhere")}}}}, "steps.a.workflow.steps.x.queue"),
        (
            {"a": {"workflow": {"steps": {"b": {"workflow": {"steps": {"c": {"workflow": {"steps": {"d": step()}}}}}}}}}},
            "steps.a.workflow.steps.b.workflow.steps.c.workflow",
        ),
        ({f"w{n}": {"workflow": {"steps": {f"s{m}": step() for m in range(40)}}} for n in range(30)}, "steps"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_named(client, engine, steps, field):
    refused = client.post("/workflows", json={"steps": steps})
    assert refused.status_code == 422, refused.text
    assert refused.json["errors"][0]["field"] == field
    assert count(engine, "SELECT count(*) FROM groups") == 0


def test_a_map_waits_for_room_in_its_queue(client, engine, limit):
    number = submit(client, {"list": step(), **MAP})
    held = claim(engine, job_of(client, number, "list"))
    assert client.post("/jobs", json={"payload": NOOP}).status_code == 201
    limit(QueueLimits(bounds=Bounds(max_depth=1)))
    with engine.begin() as connection:
        complete(connection, held, '{"ids": [1]}')
    go_on()
    assert stand(client, number) == "running list:completed each:waiting sum:waiting"
    assert steps_of(client, number)["each"]["reason"].startswith("queue_full: queue 'default' is full")


def test_a_map_over_what_failed_and_does_not_matter_is_over_nothing(client, engine):
    number = submit(client, {"list": step(on_failure="continue"), **MAP})
    failed(client, engine, number, "list")
    go_on()
    assert stand(client, number) == "running list:failed each:completed sum:running"


def test_a_list_that_is_too_long_fails_the_step(client, engine, monkeypatch):
    monkeypatch.setattr(children, "MOST_MAPPED", 1)
    number = submit(client, {"list": step(), **MAP})
    done(client, engine, number, "list", result='{"ids": [1, 2]}')
    assert steps_of(client, number)["each"]["reason"] == (
        "input_too_large: map: 2 values are more than 1; fill a batch"
    )


def test_results_of_a_map_that_are_too_large_together_are_no_input(client, engine, monkeypatch):
    number = submit(client, {"list": step(), **MAP})
    done(client, engine, number, "list", result='{"ids": [1, 2]}')
    child = steps_of(client, number)["each"]["child_id"]
    means = runtime().advancer._means
    monkeypatch.setattr(runtime().advancer, "_means", replace(means, largest=30))
    for job_id, _ in members_of(engine, child):
        complete_one(engine, job_id, '"a result of some length"')
    go_on()
    assert stand(client, number) == "failed list:completed each:completed sum:failed"
    assert "more than a payload may have" in steps_of(client, number)["sum"]["reason"]


def test_what_raises_while_a_workflow_is_moved_on_costs_the_job_nothing(client, engine, monkeypatch, caplog):
    number = submit(client, {"a": step(), "b": step("a")})
    advancer = runtime().advancer
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(advancer, "_once", Mock(side_effect=ValueError("broken")))
        done(client, engine, number, "a")
        advancer.after([UUID(number)])
    assert [one.message for one in caplog.records if "moved on" in one.message] == [
        "workflow could not be moved on",
        "workflow could not be moved on after a job",
    ]
    assert stand(client, number) == "running a:running b:waiting"
    advancer.after([UUID(number)])
    assert stand(client, number) == "running a:completed b:running"


def test_a_group_that_is_no_workflow_is_asked_for_once(client, engine):
    batch = UUID(client.post("/batches", json={"jobs": [{"payload": NOOP}]}).json["id"])
    advancer = runtime().advancer
    advancer.after([batch])
    assert batch in advancer._others
    assert not advancer.advance(batch)


UNDONE = {
    "workflow": {
        "name": "inner",
        "fail_fast": True,
        "steps": {"a": step(compensate={"payload": NOOP}), "b": step("a")},
    }
}


def test_an_inner_workflow_that_was_undone_begins_anew(client, engine):
    number = submit(client, {"inner": dict(UNDONE), "last": step("inner", inputs={"of": {"step": "inner"}})})
    first = steps_of(client, number)["inner"]["child_id"]
    done(client, engine, first, "a")
    failed(client, engine, first, "b")
    done(client, engine, first, "a:compensate")
    go_on()
    assert stand(client, number) == "failed inner:failed last:skipped"
    assert client.post(f"/workflows/{number}/retry").status_code == 200
    go_on()
    again = steps_of(client, number)["inner"]["child_id"]
    assert again != first
    done(client, engine, again, "a")
    done(client, engine, again, "b")
    go_on()
    assert stand(client, number) == "running inner:completed last:running"
    payload = client.get(f"/jobs/{job_of(client, number, 'last')}").json["payload"]
    assert payload["of"] == {"workflow_id": again}


def test_a_map_that_was_cancelled_by_itself_begins_anew(client, engine):
    number = submit(client, {"list": step(), **MAP})
    done(client, engine, number, "list", result='{"ids": [1, 2]}')
    child = steps_of(client, number)["each"]["child_id"]
    assert client.post(f"/batches/{child}/cancel").status_code in {200, 202}
    go_on()
    assert stand(client, number) == "failed list:completed each:cancelled sum:skipped"
    assert client.post(f"/workflows/{number}/retry").status_code == 200
    go_on()
    each = steps_of(client, number)["each"]
    assert (each["status"], each["child_id"] != child) == ("running", True)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"steps": {"a": step()}, "callback_url": "http://169.254.169.254/"}, "callback_url"),
        (
            {"steps": {"a": step(), "b": step("a", inputs={"task": {"step": "a"}})}},
            "steps.b.inputs.task",
        ),
        (
            {
                "steps": {
                    "a": step(),
                    "b": step("a", map={"step": "a", "as": "x"}, inputs={"x": {"step": "a"}}),
                }
            },
            "steps.b.map.as",
        ),
        ({"steps": {"a": step(), "b": step("a", map={"step": "a", "as": "task"})}}, "steps.b.map.as"),
    ],
)
def test_a_key_that_is_taken_and_a_callback_that_may_not_be_called_are_named(client, body, field):
    refused = client.post("/workflows", json=body)
    assert (refused.status_code, [one["field"] for one in refused.json["errors"]]) == (422, [field])


def test_a_turn_that_takes_too_long_goes_on_in_the_next_one(client, engine, monkeypatch):
    numbers = sorted(submit(client, {"a": step(), "b": step("a")}) for _ in range(3))
    for number in numbers:
        held = claim(engine, job_of(client, number, "a"))
        with engine.begin() as connection:
            complete(connection, held, None)
    advancer = runtime().advancer
    monkeypatch.setattr(advancer, "_clock", itertools.count().__next__)
    assert [advancer.turn() for _ in range(4)] == [1, 1, 1, 0]
    assert {stand(client, number) for number in numbers} == {"running a:completed b:running"}


def test_a_workflow_that_another_session_has_locked_is_left_to_it(client, engine):
    number = submit(client, {"a": step()}, deadline="2099-01-01T00:00:00Z")
    with engine.begin() as connection:
        connection.execute(text("UPDATE groups SET deadline = now() - interval '1 second'"))
    with engine.begin() as connection:
        connection.execute(text("SELECT FROM groups FOR UPDATE"))
        assert runtime().advancer.turn() == 0
        assert not runtime().advancer.advance(UUID(number))
    assert runtime().advancer.turn() == 1


def test_what_is_wrong_with_the_server_ends_a_turn():
    away = OperationalError("", {}, psycopg2.OperationalError("away"))
    with pytest.raises(OperationalError):
        runtime().advancer._guarded(UUID(int=1), Mock(side_effect=away))
