"""Steps that are groups of their own: a job for each value of a list, a job that fills a batch, a workflow."""

from __future__ import annotations

from uuid import UUID

import pytest
from ending import complete, end_last
from factories import ERROR
from flowing import NOOP, claim, count, done, failed, get, job_of, stand, step, steps_of, submit
from sqlalchemy import text

from tasks.runtime import runtime
from tasks.sweeps.count_ends import run_count
from webapp.batches.members import plain_answers
from webapp.batches.model import Member
from webapp.batches.requests import Items
from webapp.dead_letters.store import move_to_dead_letters
from webapp.flow.reach import EVERYTHING
from webapp.jobs.states import AttemptOutcome
from webapp.jobs.submission import Submission

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
